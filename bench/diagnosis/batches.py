"""Anything that holds activations, as tensors [tokens, width]: what `bench.diagnose` takes.

Tensors and arrays of two or three axes; iterables of them, endless ones too; loaders whose batches
are tuples or dictionaries; dictionaries and caches by hook name; datasets of the datasets library;
proxies of nnsight; opened files. Nothing is imported for it: libraries are told by what they offer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adapters.tensors import as_tensor
from bench.diagnosis.files import Activations
from bench.diagnosis.selection import Candidate, check_shape, flattening, joined, select_arrays
from zoo.errors import BadActivations, UsageError

# Tokens measured at a time, and rows read at a time from a dataset.
_BATCH = 4096
_ROWS = 64

# Types of tensors that are measured.
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

# Depth of dictionaries and lists within each other.
_DEPTH = 4


@dataclass
class TokenReader:
    """Reads tokens once.

    key: which entry of dictionaries, tuples and datasets; a glob joins those it names.
    max_tokens: after so many it stops; None reads all.
    endless: tokens to stop after where the source is known to be endless.
    notes: what was done to what was given, filled while it is read.
    """

    key: str | None = None
    max_tokens: int | None = None
    endless: int = 100_000
    notes: list[str] = field(default_factory=list)

    def batches(self, source: Any) -> Iterator[Tensor]:
        """The tokens, in order, as [tokens, width] of at most 4,096.

        Raises:
            BadActivations: there are other things than activations.
            UsageError: which of several entries is meant cannot be told.
        """
        left = self.max_tokens
        if left is None and _is_endless(source):
            left = self.endless
            self._note(f"the source is endless: its first {left:,} tokens are measured")
        for tensor in self._tensors(source):
            for batch in tensor.split(_BATCH):
                batch = batch if left is None else batch[:left]
                yield batch
                left = None if left is None else left - len(batch)
                if left == 0:
                    return

    def _tensors(self, source: Any) -> Iterator[Tensor]:
        source = _settled(source)
        if isinstance(source, Activations):
            if self.key is not None:
                raise UsageError(f"{source.name} is opened already", "Say the key where it is.")
            for note in source.notes:
                self._note(note)
            yield from source.chunks()
        elif isinstance(source, Tensor | np.ndarray):
            yield self._flat(self._unnamed(source))
        elif self.key is None and (table := _numbers_of(source)) is not None:
            yield self._flat(table)
        elif _is_dataset(source):
            rows = source.with_format("numpy").iter(batch_size=_ROWS)
            for batch in rows:
                yield from map(self._flat, self._chosen(batch))
        elif _is_mapping(source):
            yield from map(self._flat, self._chosen(source))
        else:
            yield from self._of_items(source)

    def _of_items(self, source: Iterable[Any]) -> Iterator[Tensor]:
        """The tokens of batches, or of examples with a vector each, which are stacked."""
        if isinstance(source, tuple) and _are_layers(source):
            raise UsageError(
                f"a tuple of {len(source)} arrays of one shape {tuple(source[0].shape)} looks like "
                "the layers of a model",
                "Give the one that is meant, as hidden_states[5].",
            )
        of_items = any(hasattr(source, name) for name in ("__iter__", "__getitem__"))
        if isinstance(source, str | bytes | PathLike) or not of_items:
            raise _no_activations(source)
        vectors: list[Tensor] = []
        for item in source:
            item = _settled(item)
            plain = isinstance(item, Tensor | np.ndarray)
            if not plain and not _is_mapping(item) and not isinstance(item, tuple | list):
                raise BadActivations(
                    f"activations hold a {type(item).__name__}, not a tensor or an array"
                )
            found = [self._unnamed(item)] if plain else self._chosen(item)
            if len(found) == 1 and found[0].ndim == 1:
                vectors.append(as_tensor(_checked(found[0])))
                if len(vectors) == _BATCH:
                    yield _stacked(vectors)
                    vectors = []
                continue
            yield from map(self._flat, found)
        if vectors:
            yield _stacked(vectors)

    def _unnamed(self, array: Tensor | np.ndarray) -> Tensor | np.ndarray:
        if self.key is not None:
            raise UsageError(f"an array has no name, and is no {self.key!r}", "Leave key out.")
        return array

    def _chosen(self, holder: Any) -> list[Tensor | np.ndarray]:
        """The arrays of a dictionary, tuple or list that are activations."""
        entries = dict(_entries(holder))
        if not entries:
            what = [type(part).__name__ for part in holder] if isinstance(holder, list) else []
            raise BadActivations(
                f"activations hold a {type(holder).__name__}"
                + (f" of {what[0]}" if what else "")
                + ", not a tensor or an array"
            )
        for value in entries.values():
            if isinstance(value, Tensor) and value.is_nested:  # which has no shape
                _checked(value)
        candidates = [
            Candidate(name, tuple(value.shape), _is_float(value)) for name, value in entries.items()
        ]
        vectors = [each for each in candidates if each.is_float and len(each.shape) == 1]
        if self.key is None and len(vectors) == 1 and not _has_matrix(candidates):
            return [entries[vectors[0].name]]  # an example with its label
        chosen = select_arrays(f"the {type(holder).__name__}", candidates, self.key)
        if len(chosen) > 1:
            self._note(joined([each.name for each in chosen]))
        return [entries[each.name] for each in chosen]

    def _flat(self, array: Tensor | np.ndarray) -> Tensor:
        tensor = as_tensor(_checked(array))
        check_shape("activations", tuple(tensor.shape)) if tensor.numel() else None
        for note in flattening(tuple(tensor.shape)):
            self._note(note)
        return tensor.reshape(-1, tensor.shape[-1])

    def _note(self, note: str) -> None:
        # Batches of a loader differ in their sizes alone: one of each kind is enough.
        kinds = {_kind(known) for known in self.notes}
        if _kind(note) not in kinds:
            self.notes.append(note)


def _kind(note: str) -> str:
    return "".join(letter for letter in note if not letter.isdigit() and letter not in " ,")


def _settled(source: Any) -> Any:
    """What a proxy of nnsight holds, once its trace has run; anything else as it is."""
    module = type(source).__module__ or ""
    return source.value if module.startswith("nnsight") and hasattr(source, "value") else source


def _is_endless(source: Any) -> bool:
    """Whether it begins anew when its texts are used up, as SAELens' ActivationsStore does."""
    return type(source).__name__ == "ActivationsStore" and hasattr(source, "next_batch")


def _is_dataset(source: Any) -> bool:
    return hasattr(source, "with_format") and hasattr(source, "iter")


def _is_mapping(source: Any) -> bool:
    # TransformerLens' ActivationCache is one in all but name.
    return isinstance(source, Mapping) or (hasattr(source, "keys") and hasattr(source, "items"))


def _are_layers(source: Sequence[Any]) -> bool:
    shapes = {tuple(getattr(part, "shape", ())) for part in source}
    return len(source) > 1 and len(shapes) == 1 and len(next(iter(shapes))) == 3


def _entries(holder: Any, depth: int = _DEPTH) -> Iterator[tuple[str, Tensor | np.ndarray]]:
    """The arrays in it with their names, those of dictionaries within it as `a.b`."""
    pairs = holder.items() if _is_mapping(holder) else enumerate(holder)
    for name, value in pairs:
        value = _settled(value)
        if isinstance(value, Tensor | np.ndarray):
            yield str(name), value
        elif depth and (_is_mapping(value) or isinstance(value, tuple | list)):
            yield from ((f"{name}.{key}", part) for key, part in _entries(value, depth - 1))


def _has_matrix(candidates: list[Candidate]) -> bool:
    return any(each.is_float and len(each.shape) > 1 for each in candidates)


def _is_float(value: Tensor | np.ndarray) -> bool:
    if isinstance(value, Tensor):
        return value.dtype.is_floating_point
    return value.dtype.kind == "f"


def _checked(part: Tensor | np.ndarray) -> Tensor | np.ndarray:
    """The array. Raises BadActivations where it holds no numbers of a type that is measured."""
    measured = part.dtype in _DTYPES if isinstance(part, Tensor) else part.dtype.kind == "f"
    if not measured:
        raise BadActivations(
            f"activations have dtype {str(part.dtype).removeprefix('torch.')}",
            "They must be real floating point numbers of 16 bits or more.",
        )
    if isinstance(part, Tensor) and (
        part.is_nested or part.is_meta or part.layout != torch.strided
    ):
        kind = "nested" if part.is_nested else "without data" if part.is_meta else "sparse"
        raise BadActivations(
            f"activations are a tensor that is {kind}", "Give a dense one, [tokens, width]."
        )
    if isinstance(part, np.ma.MaskedArray):
        if np.ma.is_masked(part):
            raise BadActivations(
                "activations are a masked array with values masked",
                "Give the tokens that are whole: x[~x.mask.any(-1)].",
            )
        return part.data
    return part


def _numbers_of(source: Any) -> np.ndarray | None:
    """The numbers of a table of pandas or polars whose columns are floating point, [rows, columns];
    None of anything else.

    Raises:
        BadActivations: two columns or more are, and others, which are labels, are not.
    """
    if not (hasattr(source, "to_numpy") and hasattr(source, "columns")):
        return None
    kinds = {str(name): source[name].to_numpy().dtype.kind for name in source.columns}
    labels = [name for name, kind in kinds.items() if kind != "f"]
    if "O" in kinds.values() or len(kinds) - len(labels) < 2:
        return None
    if labels:
        raise BadActivations(
            f"a table has columns that are no activations: {', '.join(labels[:4])}",
            "Leave them out.",
        )
    return np.asarray(source.to_numpy())


def _no_activations(source: Any) -> BadActivations:
    kind = type(source).__name__
    if isinstance(source, str | bytes | PathLike):
        remedy = "Open a file by bench.diagnosis.files.open_activations(Path(...)), and give that."
    else:
        remedy = "Give a tensor or an array, or an iterable of them."
    return BadActivations(f"activations are of type {kind}, not a tensor or an array", remedy)


def _stacked(vectors: list[Tensor]) -> Tensor:
    widths = {len(vector) for vector in vectors}
    if len(widths) > 1:
        raise BadActivations(f"vectors of {min(widths)} and {max(widths)} dimensions are mixed")
    return torch.stack(vectors)
