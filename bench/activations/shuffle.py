"""A shuffling buffer over rows of activations, which can be left and resumed at any batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from adapters.transfer import to_device
from bench.activations.refill import Mark, Refill, RowSource, StreamPosition, device_of, row_count
from bench.activations.upload import Copies, CopyStream, Uploads
from zoo.corpora import Corpus


class Shuffled:
    """Batches in random order out of a buffer.

    The buffer is filled, half of it is given out in random order, and filled again. It holds
    `protocol.buffer` tokens per layer.

    Args:
        source: where rows come from.
        buffer: by layer, float32 or bfloat16 [tokens, width], its contents overwritten.
        batch: tokens of a batch; half of the buffer is rounded down to whole batches.
        seed: of the order.
        corpus: what the rows are of, if it is read.
        device: where batches are given; that of the buffer, unless the buffer is on the host.
        ahead: extract the next half while the present one is given out. The batches are the same.
        copies: how the device copies from the host, where the buffer is there; by default a CUDA
            device by a stream of its own, a batch ahead.

    Attributes:
        to_come: batches that will still be asked for, where that is known: no half is extracted
            ahead that nobody would be given.
    """

    def __init__(
        self,
        source: RowSource,
        buffer: dict[int, Tensor],
        batch: int,
        seed: int,
        corpus: Corpus | None = None,
        *,
        device: torch.device | None = None,
        ahead: bool = False,
        copies: Copies | None = None,
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
        self._written = 0  # rows of the next half that a resumed buffer holds already
        self._first_pass = 0
        self._place = device_of(buffer)
        self._device = device or self._place
        self._ahead = ahead
        if copies is None and self._device.type == "cuda" and self._place.type == "cpu":
            copies = CopyStream(self._device)
        self._uploads = None if copies is None else Uploads(buffer, batch, copies)
        self._refill: Refill | None = None
        self.to_come: int | None = None

    def next(self) -> dict[int, Tensor]:
        """The next batch by layer, float32 [batch, width].

        Raises:
            BadCorpus: the corpus has no tokens left.
        """
        if self._order is None:
            self._fill(torch.arange(self._size, device=self._place))
        elif self._given == self._half:
            self._fill(self._order[: self._half])
        assert self._order is not None
        batch = self._taken(self._order)
        self._given += self._batch
        if self.to_come is not None:
            self.to_come -= 1
        if self._uploads is not None and self._given < self._half and self.to_come != 0:
            self._uploads.begin(self._given, self._rows_at(self._order, self._given))
        if self._ahead:
            self._go_ahead(self._order)
        return batch

    def close(self) -> None:
        """Ends what is extracted ahead; only `load_state_dict` may follow."""
        if self._refill is not None:
            self._refill.close()
            self._refill = None
        self._source.close()

    @property
    def first_pass(self) -> int:
        """Rows read for the batches so far that are not of an example which was read before."""
        return self._first_pass

    def state_dict(self) -> dict[str, Any]:
        """Everything that the batches to come depend on; tensors are not copied."""
        if self._refill is None:
            mark = Mark.of(self._source, self._written)
        else:
            mark = self._refill.mark
            self._refill.settle()
        return {
            "place": mark.place,
            "first_pass": mark.first_pass,
            "counted": self._first_pass,
            "written": mark.written,
            "corpus": {} if self._corpus is None else self._corpus.state_dict(),
            "buffer": self._buffer,
            "random": self._random.get_state(),
            "order": self._order,
            "given": self._given,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after `state_dict()` of the same stream; it may hold more layers."""
        self.close()
        if self._uploads is not None:
            self._uploads.forget()
        if self._corpus is not None:
            self._corpus.load_state_dict(state["corpus"])
        self._source.go_to(StreamPosition(*state["place"]))
        self._source.first_pass = state["first_pass"]
        self._first_pass, self._written = state["counted"], state["written"]
        for layer, x in self._buffer.items():
            x.copy_(state["buffer"][layer])
        self._random.set_state(state["random"])
        self._order = state["order"].to(self._place, copy=True)
        self._given = state["given"]

    def _fill(self, rows: Tensor) -> None:
        """Writes the next rows of the source to `rows`, and shuffles all of them."""
        if self._refill is None:
            self._refill_of(rows).now()
        else:
            self._refill.finish()
        self._refill, self._written = None, 0
        self._first_pass = self._source.first_pass
        # To the device once, not once per batch.
        order = torch.randperm(self._size, generator=self._random)
        self._order = to_device(order, self._place)
        self._given = 0

    def _go_ahead(self, order: Tensor) -> None:
        """Lets the rows that were given out be written again."""
        if self._refill is None:
            left = (self._half - self._given) // self._batch
            if self.to_come is not None and self.to_come <= left:
                return
            self._refill = self._refill_of(order[: self._half])
            self._refill.start()
        self._refill.free(self._given)

    def _refill_of(self, rows: Tensor) -> Refill:
        return Refill(self._source, self._buffer, rows, self._written, device=self._device)

    def _rows_at(self, order: Tensor, place: int) -> Tensor:
        return order[place : place + self._batch]

    def _taken(self, order: Tensor) -> dict[int, Tensor]:
        """The batch at hand, on the device."""
        rows = self._rows_at(order, self._given)
        if self._uploads is not None:
            # In the buffer's dtype, which is less to copy.
            sent = self._uploads.take(self._given, rows)
            return {layer: x.float() for layer, x in sent.items()}
        return {layer: x[rows].to(self._device).float() for layer, x in self._buffer.items()}
