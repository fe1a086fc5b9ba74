"""Which arrays of those at hand are the activations: one, one by name, or many sequences together.

The same rules for the arrays of a file, the files of a folder, and the entries of a dictionary.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from zoo.errors import BadActivations, UsageError
from zoo.files import natural_key
from zoo.scan import ALPHAFOLD_STREAMS, layer_number, shared_name

_ALPHAFOLD_KEY = next(iter(ALPHAFOLD_STREAMS))

# With more names than a model has kinds of streams, they are names of sequences.
_MOST_STREAMS = 8


@dataclass(frozen=True)
class Candidate:
    """An array that may be activations: its name, shape, and whether it is floating point."""

    name: str
    shape: tuple[int, ...]
    is_float: bool

    @property
    def axes(self) -> tuple[int, ...]:
        """Its shape without the ones in front of the last two axes."""
        return without_leading_ones(self.shape)

    @property
    def tokens(self) -> int:
        """How many rows of its last axis it has."""
        return math.prod(self.shape[:-1])


def without_leading_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(1, L, d) as (L, d); (1, d) stays."""
    while len(shape) > 2 and shape[0] == 1:
        shape = shape[1:]
    return shape


def check_shape(name: str, shape: tuple[int, ...]) -> None:
    """Raises `BadActivations` where an array of that shape holds no tokens in rows."""
    if not 2 <= len(without_leading_ones(shape)) <= 3:
        raise BadActivations(
            f"{name} has shape {shape}, not [tokens, width]",
            "Reshape it to one row per token; leave padding out.",
        )
    if 0 in shape:
        raise BadActivations(f"{name} holds no activations: its shape is {shape}")
    if shape[-1] == 1:
        raise BadActivations(
            f"{name} has shape {shape}: one number a token, of which a per-token LayerNorm leaves "
            "nothing",
            "Give vectors, [tokens, width].",
        )


def flattening(shape: tuple[int, ...]) -> tuple[str, ...]:
    """What is done to an array of that shape to make it [tokens, width], in words."""
    axes = without_leading_ones(shape)
    found = []
    if axes != shape:
        found.append(f"{list(shape)} taken as {list(axes)}: the leading 1 is dropped")
    if len(axes) == 3:
        found.append(
            f"{list(axes)} taken as {axes[0] * axes[1]:,} tokens of width {axes[2]}; padding among "
            "them counts as tokens"
        )
    return tuple(found)


def select_arrays(place: str, found: Sequence[Candidate], key: str | None) -> list[Candidate]:
    """Those that are the activations, in natural order of their names.

    place: what holds them, for messages. key: the name of one, a glob, or the name of what holds
    some (`representations` for `representations.33`).

    Raises:
        UsageError: there is none of that name, or which one is meant cannot be told.
        BadActivations: there is none at all.
    """
    in_order = sorted(found, key=lambda each: natural_key(each.name))
    if not in_order:
        raise BadActivations(f"{place} holds no arrays")
    if key is not None:
        return _named(place, in_order, key)
    for each in in_order:
        if each.name == _ALPHAFOLD_KEY:
            return [each]
    if len(in_order) == 1:
        return in_order
    likely = _likely(in_order)
    if len(likely) == 1 or are_sequences(likely):
        return likely
    raise UsageError(
        f"{place} holds several arrays: {_shown(likely or in_order)}",
        "Choose one with --key NAME" + (", or join all with --key '*'." if likely else "."),
    )


def are_sequences(found: Sequence[Candidate]) -> bool:
    """Whether the arrays are one stream in pieces: of one width, and not the same tokens again.

    Layers and streams of a model hold as many tokens as each other, sequences seldom do.
    """
    if not found or len({each.shape[-1] for each in found}) > 1:
        return False
    if len({layer_number(each.name) for each in found}) > 1:
        return False
    return len({each.tokens for each in found}) > 1


def are_names_of_sequences(names: Sequence[str]) -> bool:
    """Whether files with such names are more than a model has streams and layers."""
    if len({layer_number(name) for name in names}) > 1:
        return False
    return len({shared_name(name) for name in names}) > _MOST_STREAMS


def joined(names: Sequence[str]) -> str:
    """What was joined, in words."""
    shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
    return f"{len(names):,} arrays joined: {shown}"


def _named(place: str, found: list[Candidate], key: str) -> list[Candidate]:
    exact = [each for each in found if each.name == key]
    inside = [each for each in found if each.name.startswith((f"{key}/", f"{key}."))]
    matching = [each for each in found if fnmatchcase(each.name, key)]
    chosen = exact or _likely(inside) or inside or _likely(matching) or matching
    if not chosen:
        raise UsageError(f"{place} holds no {key!r}", f"It holds {_shown(found)}.")
    if chosen is not exact and not _is_glob(key) and len(chosen) > 1 and not are_sequences(chosen):
        raise UsageError(
            f"{place} holds several arrays below {key}: {_shown(chosen)}",
            f"Choose one with --key NAME, or join all with --key '{key}*'.",
        )
    return chosen


def _likely(found: Sequence[Candidate]) -> list[Candidate]:
    """The matrices [tokens, width] of floats; where there are none, [batch, sequence, width]."""
    floats = [each for each in found if each.is_float and 0 not in each.shape]
    return [e for e in floats if len(e.axes) == 2] or [e for e in floats if len(e.axes) == 3]


def _shown(found: Sequence[Candidate]) -> str:
    return ", ".join(each.name for each in found[:8]) + (", ..." if len(found) > 8 else "")


def _is_glob(key: str) -> bool:
    return re.search(r"[*?\[]", key) is not None
