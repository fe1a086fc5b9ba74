"""The errors a user can meet. Each names the thing, the reason and the remedy, in one line.

Three kinds. What is wrong with the request (a name, a card, an option, an output folder) is found
before any model is loaded: the command stops, exit code 2. What is wrong with one model (weights,
activations) fails that model's cells: it is written into their records, the other cells go on, and
the command ends with exit code 1. What is not there (`Unavailable`) says nothing about the model:
its cells are left out, nothing is written, and the next run tries again.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# Of a word and of a whole line: a name may be of any length, and what is said of it is read.
_LONGEST_WORD = 400
_LONGEST_LINE = 700


def one_line(text: str) -> str:
    """Text as one line to read: what has no shape is escaped, what is very long shortened."""
    words = [_shortened(word, _LONGEST_WORD) for word in text.split()]
    line = " ".join(words)
    if not line.isprintable():
        line = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in line)
    return _shortened(line, _LONGEST_LINE)


def _shortened(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    return f"{text[: longest * 2 // 3]}...{text[-longest // 4 :]}"


class BenchError(Exception):
    """An error with a remedy. `str(error)` is one line: the message, then the remedy."""

    def __init__(self, message: str, remedy: str = "") -> None:
        self.message = one_line(message)
        self.remedy = one_line(remedy)
        super().__init__(self.message, self.remedy)

    def __str__(self) -> str:
        return f"{self.message}. {self.remedy}" if self.remedy else self.message


class UsageError(BenchError):
    """The request cannot be understood or carried out; nothing was run."""


class UnknownName(UsageError):
    """A name that is not in the registry; says what it might have been."""

    def __init__(self, kind: str, name: str, known: Iterable[str], remedy: str = "") -> None:
        close = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(close)}?" if close else remedy
        super().__init__(f"unknown {kind} {name!r}", hint)


class BadCard(UsageError):
    """A card, suite or corpus file that does not validate."""


class BadReference(UsageError):
    """A checkpoint named without a card, of which no card can be made."""


class BadManifest(UsageError):
    """A folder of activations that is not one, or whose manifest says other than it holds."""


class BadRecord(UsageError):
    """A record that is not one: broken, edited by hand, or of an unknown version."""


class OutputError(UsageError):
    """The output folder cannot be written to (permissions, full disk)."""


class ModelError(BenchError):
    """Something about one model: its cells fail with this, the others go on."""


class Unavailable(ModelError):
    """The environment lacks something that the model needs; no record is made of it."""


class MissingExtra(Unavailable):
    """A dependency of this model is not installed; the remedy is the install line."""


class ModelUnavailable(Unavailable):
    """The checkpoint is unavailable: absent, gated, or the network is down."""


class CorpusUnavailable(Unavailable):
    """The corpus that is named has to be downloaded first."""


class HubUnreachable(ModelUnavailable):
    """There is no network to the hub, or it is switched off; what is in the cache can be used."""


class MeasuredElsewhere(Unavailable):
    """Another run is at work on these cells of the same output."""


class BadWeights(ModelError):
    """The checkpoint is corrupt, truncated, or of another architecture."""


class WrongArchitecture(BadWeights):
    """The model has no blocks where the card says, or another number of them."""


class BadCorpus(ModelError):
    """The corpus is empty, unreadable, of the wrong kind, or too short for N tokens."""


class BadActivations(ModelError):
    """Activations that cannot be measured: non-finite, constant, or of the wrong shape."""


class TrainingFailed(ModelError):
    """Training diverged (the message says at which step)."""


class OutOfMemory(ModelError):
    """A single cell, with the model at one window at a time, does not fit memory."""


class WorkerFailed(ModelError):
    """The process that measured a block ended before it was done."""
