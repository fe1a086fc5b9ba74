"""Batches from a buffer in the host's memory, sent to a CUDA device one ahead of their use.

The rows of a batch are gathered into pinned memory, from which a stream of its own copies them to
the device while it computes on the batch before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from bench.compute.device import stream_for

ByLayer = dict[int, Tensor]


class Copies(Protocol):
    """How a device copies beside what it computes."""

    def memory(self, like: Tensor, rows: int) -> Tensor:
        """Host memory to copy from: [rows, width] of that dtype."""

    def begin(self, staged: Mapping[int, Tensor]) -> tuple[ByLayer, Any]:
        """Tensors of the device that are being written, and what `arrived` and `finished` take."""

    def arrived(self, sent: ByLayer, event: Any) -> None:
        """What the device is given from here on sees the copies. No host waits."""

    def finished(self, event: Any) -> None:
        """Waits until the memory that was copied from may be written to."""


class CopyStream:
    """The copies of a CUDA device by a stream of its own."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = stream_for("upload", device)

    def memory(self, like: Tensor, rows: int) -> Tensor:
        return torch.empty((rows, like.shape[1]), dtype=like.dtype, pin_memory=True)

    def begin(self, staged: Mapping[int, Tensor]) -> tuple[ByLayer, Any]:
        with torch.cuda.stream(self._stream):
            sent = {layer: x.to(self._device, non_blocking=True) for layer, x in staged.items()}
        return sent, self._stream.record_event()

    def arrived(self, sent: ByLayer, event: Any) -> None:
        computing = torch.cuda.current_stream(self._device)
        computing.wait_event(event)
        for x in sent.values():
            # Its memory is the other stream's, which must not write to it before this one has read.
            x.record_stream(computing)

    def finished(self, event: Any) -> None:
        event.synchronize()


class Uploads:
    """Gives batches of `batch` rows of a host's buffer, and sends the next one ahead.

    Two pieces of pinned memory take turns: one is written again when what it held has been copied,
    a batch ago, so that the host waits for copies alone, and for none in practice.
    """

    def __init__(self, buffer: ByLayer, batch: int, copies: Copies) -> None:
        self._buffer, self._copies = buffer, copies
        self._staged = [
            {layer: copies.memory(x, batch) for layer, x in buffer.items()} for _ in range(2)
        ]
        self._events: list[Any] = [None, None]
        self._turn = 0
        self._ahead: tuple[int, ByLayer, Any] | None = None

    def begin(self, place: int, rows: Tensor) -> None:
        """Sends the batch of these rows [batch], which is to be taken at `place`."""
        self._ahead = (place, *self._send(rows))

    def take(self, place: int, rows: Tensor) -> ByLayer:
        """The batch at `place`, of these rows; what was sent ahead, if it is that one."""
        ahead, self._ahead = self._ahead, None
        if ahead is None or ahead[0] != place:
            ahead = (place, *self._send(rows))
        _, sent, event = ahead
        self._copies.arrived(sent, event)
        return sent

    def forget(self) -> None:
        """What was sent ahead is not of this buffer any more."""
        self._ahead = None

    def _send(self, rows: Tensor) -> tuple[ByLayer, Any]:
        staged, event = self._staged[self._turn], self._events[self._turn]
        if event is not None:
            self._copies.finished(event)
        for layer, x in self._buffer.items():
            torch.index_select(x, 0, rows, out=staged[layer])
        sent, event = self._copies.begin(staged)
        self._events[self._turn] = event
        self._turn = 1 - self._turn
        return sent, event
