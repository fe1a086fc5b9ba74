"""Rows of a buffer that are written again: at once, or in a thread while the others are used."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import Protocol

import torch
from torch import Tensor

from bench.compute.device import stream_for
from bench.compute.profiling import mark
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

    def close(self) -> None:
        """Nothing more is taken, unless after `go_to`."""


@dataclass(frozen=True)
class Mark:
    """Where a source stood when so many rows of a refill were written."""

    place: tuple[int, int, int]
    first_pass: int
    written: int

    @classmethod
    def of(cls, source: RowSource, written: int) -> Mark:
        example, window, rows = astuple(source.place)
        return cls((example, window, rows), source.first_pass, written)


class Refill:
    """Writes the next rows of a source to rows `rows` of a buffer, in that order.

    `now` writes them at once. `start` does so in a thread, which writes to a row only when `free`
    said that it was used; `finish` waits for the thread. On a CUDA device the thread has a stream
    of its own, and the two streams wait for each other.

    Args:
        written: so many of the rows are written already.
        device: where the source computes; the buffer is there or on the host.

    Attributes:
        mark: where to go on if all is lost but what the buffer holds.
    """

    def __init__(
        self,
        source: RowSource,
        buffer: dict[int, Tensor],
        rows: Tensor,
        written: int,
        *,
        device: torch.device,
    ) -> None:
        self._source, self._buffer, self._rows = source, buffer, rows
        self._written = written
        self.mark = Mark.of(source, written)
        self._free = 0
        self._changed = threading.Condition()
        self._stopped = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._streams = _Streams(device)

    def now(self) -> None:
        """Writes all of it. Raises `BadCorpus` where the source ends before."""
        self._free = len(self._rows)
        self._write_all()

    def start(self) -> None:
        """Begins, in a thread, to write to the rows that are free."""
        threads = torch.get_num_threads()

        def work() -> None:
            torch.set_num_threads(threads)  # a thread has its own number
            try:
                with self._streams.own():
                    self._write_all()
            except BaseException as error:  # raised by `finish`
                self._error = error

        self._thread = threading.Thread(target=work, name="refill", daemon=True)
        self._thread.start()

    def free(self, rows: int) -> None:
        """The first `rows` of the rows have been read, or will be by what is queued now."""
        with self._changed:
            self._free = rows
            self._streams.was_read()
            self._changed.notify()

    def settle(self) -> None:
        """What the caller's stream reads from here on is what is written up to `mark`."""
        self._streams.wait_for_writes()

    def finish(self) -> None:
        """Waits until all is written. Raises what went wrong."""
        self.free(len(self._rows))
        assert self._thread is not None
        with mark("waiting"):
            self._thread.join()
        self.settle()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Ends the thread, whatever is left to write."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _write_all(self) -> None:
        for chunk in self._source.take(len(self._rows) - self._written):
            if not self._write(chunk):
                return
            self.mark = Mark.of(self._source, self._written)
        if self._written < len(self._rows):
            raise BadCorpus("the corpus has no more examples to train on", "Train for fewer steps.")

    def _write(self, chunk: dict[int, Tensor]) -> bool:
        """Whether the whole chunk was written before `close`."""
        done, count = 0, row_count(chunk)
        while done < count:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._free > self._written)
                if self._stopped:
                    return False
                some = min(count - done, self._free - self._written)
                self._streams.wait_for_reads()
            rows = self._rows[self._written : self._written + some]
            for layer, x in chunk.items():
                if x.is_cuda:
                    # What another stream computed must not be written over before this one read it.
                    x.record_stream(torch.cuda.current_stream(x.device))
                buffer = self._buffer[layer]
                # Rounded first: less to copy where the buffer is on the host.
                buffer[rows] = x[done : done + some].to(buffer.dtype).to(buffer.device)
            done += some
            self._written += some
        return True


class _Streams:
    """The CUDA stream of a refill beside its caller's; nothing to do elsewhere."""

    def __init__(self, device: torch.device) -> None:
        self._device = device if device.type == "cuda" else None
        self._side = stream_for("refill", device) if self._device is not None else None
        self._read: torch.cuda.Event | None = None

    @contextmanager
    def own(self) -> Iterator[None]:
        if self._side is None:
            yield
            return
        with torch.cuda.device(self._device), torch.cuda.stream(self._side):
            yield

    def was_read(self) -> None:
        if self._device is not None:
            self._read = torch.cuda.current_stream(self._device).record_event()

    def wait_for_reads(self) -> None:
        if self._side is not None and self._read is not None:
            self._side.wait_event(self._read)

    def wait_for_writes(self) -> None:
        if self._side is not None:
            torch.cuda.current_stream(self._device).wait_stream(self._side)


def row_count(by_layer: dict[int, Tensor]) -> int:
    """The rows of [rows, width] by layer, the same in every layer."""
    return len(next(iter(by_layer.values())))


def device_of(by_layer: dict[int, Tensor]) -> torch.device:
    """Where the tensors are, all on one device."""
    return next(iter(by_layer.values())).device
