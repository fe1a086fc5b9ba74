"""Precomputed activations: array files of every format that `zoo.arrays` knows."""

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
from adapters.base import Adapter
from adapters.passes import Inputs
from adapters.tensors import as_tensor
from adapters.transfer import to_device
from zoo.arrays import ARRAY_FORMATS, ArrayFile, Header, RowReader, is_array_file, open_arrays
from zoo.dumps import streams_of
from zoo.errors import BadActivations, BadCard, BadCorpus, BadWeights


@dataclass(frozen=True)
class Span:
    """Rows `start` to `stop` of file number `file`."""

    file: int
    start: int
    stop: int


@dataclass(frozen=True)
class StoredArray:
    """One array on disk, read by rows [tokens, width]; all its axes but the last count tokens."""

    path: Path
    key: str | None

    @functools.cached_property
    def header(self) -> Header:
        """What the file says of the array; an array without a name is meant by any key.

        Raises:
            BadActivations: the file is broken.
            KeyError, ValueError: it has no such key, or no real floating point numbers there.
        """
        by_key = {header.key: header for header in self._file.headers}
        header = by_key.get(None) or by_key[self.key]
        if not header.is_float:
            raise ValueError(f"{header.dtype} is not a real floating point type")
        return header

    @property
    def is_alone(self) -> bool:
        """Whether the file holds one array without a name. Raises `BadActivations`."""
        return any(header.key is None for header in self._file.headers)

    @property
    def tokens(self) -> int:
        """Rows of width `shape[-1]`."""
        return math.prod(self.header.shape[:-1])

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows as a tensor of the file's dtype."""
        return as_tensor(self._rows.rows(start, stop))

    @functools.cached_property
    def _file(self) -> ArrayFile:
        return open_arrays(self.path)

    @functools.cached_property
    def _rows(self) -> RowReader:
        return self._file.array(self.header.key)


class StoredLayer(nn.Module):
    """A block that reads its output from files."""

    place: Tensor

    def __init__(self, files: list[StoredArray]) -> None:
        super().__init__()
        self.files = files
        self.register_buffer("place", torch.empty(0), persistent=False)

    def forward(self, spans: list[Span]) -> Tensor:
        if not self.files:  # a layer that was not saved
            return self.place
        rows = [self.files[span.file].rows(span.start, span.stop) for span in spans]
        return to_device(pad_sequence(rows, batch_first=True), self.place.device)


class StoredModel(nn.Module):
    """The layers of a folder, as blocks `layer.{i}`."""

    def __init__(self, layers: list[list[StoredArray]]) -> None:
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
        key: the array's name within a file, where its arrays have names.
        flatten: take arrays of more axes; all but the last count tokens.

    An example is the number of a chunk of `context` tokens; `chunks` says how many there are.
    Chunks run through the files in order of their names and never across two of them.
    """

    known_options = ("stream", "file", "key", "flatten")

    @functools.cached_property
    def files(self) -> list[list[StoredArray]]:
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

    def _streamed(self) -> dict[int, list[StoredArray]]:
        name = self.card.options["stream"]
        others = sorted(self.card.options.keys() - {"stream"})
        if others:
            raise BadCard(
                f"card {self.card.id!r}: options.{others[0]} is not read beside options.stream",
                "Name a stream, or the files and arrays.",
            )
        streams = {stream.name: stream for stream in streams_of(self.folder)}
        if name not in streams:
            raise BadWeights(
                f"model {self.card.id!r}: {self.folder} holds no stream {name!r}",
                f"It holds {', '.join(streams)}.",
            )
        return {
            layer.layer: [
                self._checked(StoredArray(self.folder / part.path, part.key), flatten=True)
                for part in layer.parts
            ]
            for layer in streams[name].layers
        }

    def _layer_files(self, layer: int) -> list[StoredArray]:
        pattern = str(self.card.options.get("file", "**/*"))
        if self.card.tap.layers > 1 and "{i}" not in pattern:
            raise BadCard(
                f"card {self.card.id!r}: options.file needs '{{i}}' for the layer's number"
            )
        folder = self.folder
        pattern = pattern.replace("{i}", str(layer))
        paths = [path for path in sorted(folder.glob(pattern)) if is_array_file(path)]
        if not paths:
            raise BadWeights(
                f"model {self.card.id!r}: no arrays ({', '.join(ARRAY_FORMATS)}) at "
                f"{folder}/{pattern}"
            )
        key, flatten = self.card.options.get("key"), bool(self.card.options.get("flatten"))
        return [self._checked(StoredArray(path, key), flatten=flatten) for path in paths]

    def _checked(self, array: StoredArray, *, flatten: bool) -> StoredArray:
        try:
            with checkpoints.loading_errors(self.card, array.path):
                if array.key is None and not array.is_alone:
                    raise BadCard(
                        f"card {self.card.id!r}: options.key must name the array within "
                        f"{array.path.name}"
                    )
                shape = array.header.shape
        except BadActivations as error:
            raise BadWeights(f"model {self.card.id!r}: {error.message}", error.remedy) from None
        if len(shape) < 2 or (len(shape) > 2 and not flatten) or shape[-1] != self.card.tap.width:
            raise BadWeights(
                f"model {self.card.id!r}: {array.path} holds an array of shape {shape}, the card "
                f"says [tokens, {self.card.tap.width}]"
            )
        return array
