"""A shuffling buffer over rows of activations, which can be left and resumed at any batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from zoo.corpora import Corpus
from zoo.errors import BadCorpus


@dataclass(frozen=True)
class StreamPosition:
    """Examples used up, windows used of the next one, and rows used of what follows there."""

    example: int = 0
    window: int = 0
    rows: int = 0


class RowSource(Protocol):
    """Rows of activations by layer, in order, taken in any number and from any place on.

    Attributes:
        first_pass: rows taken so far that are not of an example which was there before.
    """

    first_pass: int

    @property
    def place(self) -> StreamPosition:
        """Where the next row comes from."""

    def go_to(self, place: StreamPosition) -> None:
        """Go on at `place`."""

    def take(self, rows: int) -> Iterator[dict[int, Tensor]]:
        """The next `rows` rows, in pieces [*, width] by layer; fewer where there are no more."""


class Shuffled:
    """Batches in random order out of a buffer.

    The buffer is filled, half of it is given out in random order, and filled again. It holds
    `protocol.buffer` tokens per layer.

    Args:
        source: where rows come from.
        buffer: by layer, float32 [tokens, width], its contents overwritten.
        batch: tokens of a batch; half of the buffer is rounded down to whole batches.
        seed: of the order.
        corpus: what the rows are of, if it is read.
    """

    def __init__(
        self,
        source: RowSource,
        buffer: dict[int, Tensor],
        batch: int,
        seed: int,
        corpus: Corpus | None = None,
    ) -> None:
        self._source = source
        self._corpus = corpus
        self._buffer = buffer
        self._batch = batch
        self._size = row_count(buffer)
        self._half = self._size // 2 // batch * batch
        self._random = torch.Generator().manual_seed(seed)
        self._order: Tensor | None = None
        self._given = 0

    def next(self) -> dict[int, Tensor]:
        """The next batch by layer, float32 [batch, width].

        Raises:
            BadCorpus: the corpus has no tokens left.
        """
        if self._order is None:
            self._fill(torch.arange(self._size, device=self._device))
            self._shuffle()
        elif self._given == self._half:
            self._fill(self._order[: self._half])
            self._shuffle()
        assert self._order is not None
        rows = self._order[self._given : self._given + self._batch]
        self._given += self._batch
        return {layer: x[rows] for layer, x in self._buffer.items()}

    @property
    def first_pass(self) -> int:
        """Rows read so far that are not of an example which was read before."""
        return self._source.first_pass

    def state_dict(self) -> dict[str, Any]:
        """Everything that the batches to come depend on; tensors are not copied."""
        return {
            "place": astuple(self._source.place),
            "first_pass": self._source.first_pass,
            "corpus": {} if self._corpus is None else self._corpus.state_dict(),
            "buffer": self._buffer,
            "random": self._random.get_state(),
            "order": self._order,
            "given": self._given,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after `state_dict()` of the same stream; it may hold more layers."""
        if self._corpus is not None:
            self._corpus.load_state_dict(state["corpus"])
        self._source.go_to(StreamPosition(*state["place"]))
        self._source.first_pass = state["first_pass"]
        for layer, x in self._buffer.items():
            x.copy_(state["buffer"][layer])
        self._random.set_state(state["random"])
        self._order = state["order"].to(self._device, copy=True)
        self._given = state["given"]

    def _fill(self, rows: Tensor) -> None:
        filled = 0
        for chunk in self._source.take(len(rows)):
            count = row_count(chunk)
            for layer, x in chunk.items():
                self._buffer[layer][rows[filled : filled + count]] = x
            filled += count
        if filled < len(rows):
            raise BadCorpus("the corpus has no more examples to train on", "Train for fewer steps.")

    def _shuffle(self) -> None:
        # To the device once, not once per batch.
        self._order = torch.randperm(self._size, generator=self._random).to(self._device)
        self._given = 0

    @property
    def _device(self) -> torch.device:
        return next(iter(self._buffer.values())).device


def row_count(by_layer: dict[int, Tensor]) -> int:
    """The rows of [rows, width] by layer, the same in every layer."""
    return len(next(iter(by_layer.values())))
