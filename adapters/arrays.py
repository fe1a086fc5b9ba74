"""Precomputed activations: .npy, .npz and .safetensors files; AlphaFold 3's saved embeddings."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from adapters import checkpoints
from adapters.base import Adapter, Inputs
from adapters.inflate import DeflatedArray, mapped
from zoo.arrays import ARRAY_SUFFIXES, read_headers
from zoo.dumps import streams_of
from zoo.errors import BadActivations, BadCard, BadCorpus, BadWeights


@dataclass(frozen=True)
class Span:
    """Rows `start` to `stop` of file number `file`."""

    file: int
    start: int
    stop: int


@dataclass(frozen=True)
class ArrayFile:
    """One array on disk, read by rows [tokens, width]; all its axes but the last count tokens.

    `.npy`, `.safetensors` and uncompressed `.npz` are read where they lie, only the rows asked
    for. A compressed `.npz` is inflated as far as need be, and never kept whole.
    """

    path: Path
    key: str | None

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:
        """The array's shape, from the file's header. Raises `KeyError` where it has no such key."""
        headers = {header.key: header for header in read_headers(self.path)}
        header = headers[self.key if self.path.suffix != ".npy" else None]
        if not header.is_float:
            raise ValueError(f"{header.dtype} is no real floating point type")
        return header.shape

    @property
    def tokens(self) -> int:
        """Rows of width `shape[-1]`."""
        return math.prod(self.shape[:-1])

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows as a tensor of the file's dtype."""
        if self.path.suffix == ".safetensors":
            if len(self.shape) > 2:
                return self._tensor.reshape(-1, self.shape[-1])[start:stop].clone()
            from safetensors import safe_open

            with safe_open(self.path, framework="pt") as file:
                return file.get_slice(self.key)[start:stop]
        rows = self._source.rows(start, stop)
        return torch.from_numpy(np.array(rows, dtype=rows.dtype.newbyteorder("=")))

    @functools.cached_property
    def _tensor(self) -> Tensor:
        from safetensors import safe_open

        with safe_open(self.path, framework="pt") as file:
            return file.get_tensor(self.key)

    @functools.cached_property
    def _source(self) -> Rows | DeflatedArray:
        if self.path.suffix == ".npy":
            return Rows(np.load(self.path, mmap_mode="r"))
        array = mapped(self.path, str(self.key))
        if array is not None:
            return Rows(array)
        deflated = DeflatedArray(self.path, str(self.key))
        if deflated.fortran:
            # Columns first: no row can be read before the last column was.
            with np.load(self.path) as archive:
                return Rows(archive[str(self.key)])
        return deflated


@dataclass(frozen=True)
class Rows:
    """The rows of an array in memory or mapped."""

    array: np.ndarray

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows as [tokens, width], all axes but the last counting tokens."""
        return self.array.reshape(-1, self.array.shape[-1])[start:stop]


class StoredLayer(nn.Module):
    """A block that reads its output from files."""

    place: Tensor

    def __init__(self, files: list[ArrayFile]) -> None:
        super().__init__()
        self.files = files
        self.register_buffer("place", torch.empty(0), persistent=False)

    def forward(self, spans: list[Span]) -> Tensor:
        if not self.files:  # a layer that was not saved
            return self.place
        rows = [self.files[span.file].rows(span.start, span.stop) for span in spans]
        return pad_sequence(rows, batch_first=True).to(self.place.device)


class StoredModel(nn.Module):
    """The layers of a folder, as blocks `layer.{i}`."""

    def __init__(self, layers: list[list[ArrayFile]]) -> None:
        super().__init__()
        self.layer = nn.ModuleList(map(StoredLayer, layers))

    def forward(self, spans: list[Span]) -> None:
        for layer in self.layer:
            layer(spans)


class ArrayAdapter(Adapter):
    """A folder of precomputed activations as a model. `tap.blocks` is `layer.{i}`.

    Card options:
        stream: name of a stream that `zoo.scan` finds, or that the folder's manifest names:
            which files and arrays hold which layer is then taken from there.
        file: else, glob of the files below the folder, with `{i}` for the layer's number where
            there is more than one layer; default every file of a known kind.
        key: the array's name within .npz and .safetensors files.
        flatten: take arrays of more axes; all but the last count tokens.

    An example is the number of a chunk of `context` tokens; `chunks` says how many there are.
    Chunks run through the files in order of their names and never across two of them.
    """

    @functools.cached_property
    def files(self) -> list[list[ArrayFile]]:
        """The files by layer, empty for a layer that was not saved.

        Raises:
            BadWeights: there are none, one is not an array of the card's width, or the layers do
                not hold the same tokens.
        """
        stated = set(self.card.layers)
        named = self._streamed() if "stream" in self.card.options else None
        layers = [
            [] if i not in stated else self._layer_files(i) if named is None else named[i]
            for i in range(self.card.tap.layers)
        ]
        first = self.card.layers[0]
        lengths = [[file.tokens for file in files] for files in layers]
        for i in self.card.layers:
            if lengths[i] != lengths[first]:
                raise BadWeights(
                    f"model {self.card.id!r}: layer {i} holds {sum(lengths[i])} tokens, layer "
                    f"{first} holds {sum(lengths[first])}, or they are divided otherwise"
                )
        return layers

    @functools.cached_property
    def _ends(self) -> np.ndarray:
        """Chunks up to the end of each file."""
        files = self.files[self.card.layers[0]]
        return np.cumsum([-(-file.tokens // self.card.context) for file in files])

    @property
    def chunks(self) -> int:
        """How many examples there are."""
        return int(self._ends[-1])

    def span(self, chunk: int) -> Span:
        """The rows of a chunk."""
        number = int(np.searchsorted(self._ends, chunk, side="right"))
        before = int(self._ends[number - 1]) if number else 0
        start = (chunk - before) * self.card.context
        tokens = self.files[self.card.layers[0]][number].tokens
        return Span(number, start, min(start + self.card.context, tokens))

    def load(self) -> nn.Module:
        return StoredModel(self.files)

    def windows(self, example: Any) -> list[Span]:
        if isinstance(example, bool) or not isinstance(example, int | np.integer):
            raise BadCorpus(f"a chunk number is needed, not {type(example).__name__}")
        if not 0 <= example < self.chunks:
            raise BadCorpus(f"no chunk {example}: there are {self.chunks}")
        return [self.span(int(example))]

    def inputs(self, items: list[Span]) -> Inputs:
        lengths = torch.tensor([span.stop - span.start for span in items])
        valid = torch.arange(int(lengths.max())) < lengths[:, None]
        return Inputs({"spans": items}, valid, torch.zeros_like(valid))

    def _streamed(self) -> dict[int, list[ArrayFile]]:
        name = self.card.options["stream"]
        streams = {stream.name: stream for stream in streams_of(self.folder)}
        if name not in streams:
            raise BadWeights(
                f"model {self.card.id!r}: {self.folder} holds no stream {name!r}",
                f"It holds {', '.join(streams)}.",
            )
        return {
            layer.layer: [
                self._checked(ArrayFile(self.folder / part.path, part.key), flatten=True)
                for part in layer.parts
            ]
            for layer in streams[name].layers
        }

    def _layer_files(self, layer: int) -> list[ArrayFile]:
        pattern = str(self.card.options.get("file", "**/*"))
        if self.card.tap.layers > 1 and "{i}" not in pattern:
            raise BadCard(
                f"card {self.card.id!r}: options.file needs '{{i}}' for the layer's number"
            )
        folder = self.folder
        pattern = pattern.replace("{i}", str(layer))
        paths = [path for path in sorted(folder.glob(pattern)) if path.suffix in ARRAY_SUFFIXES]
        if not paths:
            raise BadWeights(
                f"model {self.card.id!r}: no arrays ({', '.join(ARRAY_SUFFIXES)}) at "
                f"{folder}/{pattern}"
            )
        key, flatten = self.card.options.get("key"), bool(self.card.options.get("flatten"))
        return [self._checked(ArrayFile(path, key), flatten=flatten) for path in paths]

    def _checked(self, file: ArrayFile, *, flatten: bool) -> ArrayFile:
        if file.path.suffix != ".npy" and file.key is None:
            raise BadCard(
                f"card {self.card.id!r}: options.key must name the array within {file.path.name}"
            )
        try:
            with checkpoints.loading_errors(self.card, file.path):
                shape = file.shape
        except BadActivations as error:
            raise BadWeights(f"model {self.card.id!r}: {error.message}", error.remedy) from None
        if len(shape) < 2 or (len(shape) > 2 and not flatten) or shape[-1] != self.card.tap.width:
            raise BadWeights(
                f"model {self.card.id!r}: {file.path} holds an array of shape {shape}, the card "
                f"says [tokens, {self.card.tap.width}]"
            )
        return file
