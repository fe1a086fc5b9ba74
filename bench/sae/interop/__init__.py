"""SAEs in other libraries' files: reading theirs, writing ours.

One file per library, each with `matches(place)`, `read(place)` and `write(sae, place, origin)`; one
line in the table below. Everything goes through plain weights on raw activations (`SAE.folded`):

    codes = activation(W_enc (x - b) + b_enc),   x_hat = W_dec^T codes + b

What a format cannot say is refused when it is written, and what we do not know when it is read.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bench.sae.origin import Origin
from zoo.errors import BadWeights, UnknownName, UsageError

if TYPE_CHECKING:
    from bench.sae.model import SAE

# In this order a folder is looked at; `bench convert --to` takes those that are written.
LIBRARIES = {
    "gammabench": "bench.sae.interop.gammabench",
    "saelens": "bench.sae.interop.saelens",
    "sparsify": "bench.sae.interop.sparsify",
    "saebench": "bench.sae.interop.saebench",
    "dictionary_learning": "bench.sae.interop.dictionary_learning",
    "saev": "bench.sae.interop.saev",
    "gemma_scope": "bench.sae.interop.gemma_scope",
    "interplm": "bench.sae.interop.interplm",
    "qwen_scope": "bench.sae.interop.qwen_scope",
    "esmc": "bench.sae.interop.esmc",
}

# Releases whose files are only read: what they say is said in other files too.
READ_ONLY = ("gemma_scope", "interplm", "qwen_scope", "esmc")


class Library(Protocol):
    """What the module of a library offers."""

    def matches(self, place: Path) -> bool:
        """Whether a folder or file is an SAE of this library, by its files and keys."""

    def read(self, place: Path) -> tuple[SAE, Origin]:
        """The SAE and what its files say of its origin. Raises `BadWeights`."""

    def write(self, sae: SAE, place: Path, origin: Origin) -> list[str]:
        """Writes the SAE; returns sentences on what is not exactly as it was.

        Raises:
            CannotSay: the format has no words for it.
            OutputError: the place cannot be written to.
        """


class CannotSay(UsageError):
    """A library's format cannot express this SAE."""


def library(name: str) -> Library:
    """The module of a library. Raises `UnknownName`."""
    if name not in LIBRARIES:
        raise UnknownName("library", name, LIBRARIES, f"There are: {', '.join(LIBRARIES)}.")
    module: Library = importlib.import_module(LIBRARIES[name])
    return module


def library_of(place: Path) -> str:
    """Whose format an SAE is in.

    Raises:
        BadWeights: there is nothing, or it is of no format that is known.
    """
    if not place.exists():
        raise BadWeights(f"no SAE at {place}", "Give a folder or a file.")
    for name in LIBRARIES:
        if library(name).matches(place):
            return name
    raise BadWeights(
        f"{place}: not an SAE of a library that is known",
        f"Known are the files of {', '.join(LIBRARIES)}.",
    )


def read_sae(place: Path) -> tuple[SAE, Origin, str]:
    """An SAE of any known library, where it comes from, and the library's name.

    Raises:
        BadWeights: it is of no known library, broken, or of a kind that is not known.
    """
    name = library_of(place)
    try:
        sae, origin = library(name).read(place)
    except (TypeError, ValueError, LookupError, OverflowError, AttributeError) as error:
        # Settings of other types than the library writes.
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BadWeights(f"{place}: its settings do not fit ({reason})") from None
    return sae, origin, name
