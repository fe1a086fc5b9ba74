"""Runs commands in this process and notes what they must never do, whatever they are given."""

from __future__ import annotations

import itertools
import resource
import signal
import time
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TypeVar

import pytest

from bench.cli.main import run_cli

Input = TypeVar("Input")

SECONDS = 5  # of the processor
WAITING = 30  # on a machine that does other things too
BYTES = 1 << 30
# Longer lines are walls of text.
LETTERS = 1500


class _TooLong(BaseException):
    """Raised where the command is; a command cannot catch it by catching errors."""


@dataclass
class Watch:
    """What commands did that they must not do; `faults` is empty at the end of a good test."""

    capsys: pytest.CaptureFixture[str]
    stride: int = 1
    faults: list[str] = field(default_factory=list)
    codes: Counter[int] = field(default_factory=Counter)

    def some(self, inputs: Iterable[Input]) -> Iterator[Input]:
        """Each input, or one in `stride`, the first among them."""
        return itertools.islice(inputs, 0, None, self.stride)

    def run(
        self, wrong: str, *arguments: object, codes: Collection[int] = (0, 2), lines: int = 1
    ) -> int | None:
        """Runs one command line; the exit code, or None where it did not end by itself.

        Args:
            wrong: what is wrong with the input, for messages.
            codes: the exit codes that are right.
            lines: of stderr at most.
        """
        words = [str(word) for word in arguments]
        label = f"bench {' '.join(w[:50] for w in words)!r} ({wrong[:60]})"
        try:
            with _bounded(), warnings.catch_warnings():
                warnings.simplefilter("error")
                code = run_cli(words)
        except _TooLong:
            code, found = None, [f"takes more than {SECONDS} s"]
        except MemoryError:
            code, found = None, [f"takes more than {BYTES >> 20} MiB"]
        except BaseException as error:
            code, found = None, [f"{type(error).__name__}: {str(error)[:200]}"]
        else:
            found = []
        _, err = self.capsys.readouterr()
        found += _wrong_text(err, lines)
        if code is not None:
            self.codes[code] += 1
            if code not in codes:
                found.append(f"exit code {code}: {err[:200]}")
            elif code == 2 and not err:
                found.append("exit code 2 without a word")
        self.faults += [f"{label}: {fault}" for fault in found]
        return code


def _wrong_text(err: str, lines: int) -> Iterator[str]:
    said = err.splitlines()
    if len(said) > lines:
        yield f"{len(said)} lines: {err[:300]}"
    for line in said:
        if not line.startswith(("bench: ", "An extra is installed by: ")):
            yield f"says {line[:200]!r}"
        elif not line.isprintable():
            yield f"says what cannot be printed: {line[:200]!r}"
        elif len(line) > LETTERS:
            yield f"says {len(line)} letters: {line[:200]!r}"


@contextmanager
def _bounded() -> Iterator[None]:
    """What runs within may take `SECONDS` and `BYTES`."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, stop)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + 4 * BYTES, hard))
    began, resident = time.process_time(), _peak(reset=True)
    signal.setitimer(signal.ITIMER_REAL, WAITING)
    try:
        yield
        if _peak() - resident > BYTES:
            raise MemoryError
        if time.process_time() - began > SECONDS:
            raise _TooLong
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _peak(*, reset: bool = False) -> int:
    """The most bytes that were resident, since it was last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10
