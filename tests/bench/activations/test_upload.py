"""A buffer on the host: batches go to the device ahead of their use, and are the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from adapters.transfer import to_device
from bench.activations.refill import StreamPosition
from bench.activations.shuffle import Shuffled
from bench.activations.upload import ByLayer

WIDTH, BATCH, SIZE = 3, 4, 24


class Rows:
    """Rows of two layers without end, each of which is its number."""

    first_pass = 0

    def __init__(self) -> None:
        self._next = 0

    @property
    def place(self) -> StreamPosition:
        return StreamPosition(rows=self._next)

    def go_to(self, place: StreamPosition) -> None:
        self._next = place.rows

    def close(self) -> None: ...

    def take(self, rows: int) -> Iterator[ByLayer]:
        for _ in range(rows):
            row = torch.full((1, WIDTH), float(self._next))
            self._next += 1
            yield {0: row, 1: -row}


@dataclass
class LateCopies:
    """A device that copies as late as it may: when the copy is waited for."""

    log: list[str] = field(default_factory=list)

    def memory(self, like: Tensor, rows: int) -> Tensor:
        return torch.full((rows, like.shape[1]), torch.nan, dtype=like.dtype)

    def begin(self, staged: Mapping[int, Tensor]) -> tuple[ByLayer, Any]:
        sent = {layer: torch.full_like(x, torch.nan) for layer, x in staged.items()}
        self.log.append("begin")
        return sent, [False, sent, staged]

    def arrived(self, sent: ByLayer, event: Any) -> None:
        self._copy(event)
        self.log.append("arrived")

    def finished(self, event: Any) -> None:
        self._copy(event)
        self.log.append("finished")

    def _copy(self, event: Any) -> None:
        done, sent, staged = event
        for layer, x in staged.items() if not done else ():
            sent[layer].copy_(x)
        event[0] = True


def shuffled(copies: LateCopies | None = None, *, ahead: bool = False) -> Shuffled:
    buffer = {layer: torch.empty(SIZE, WIDTH) for layer in (0, 1)}
    return Shuffled(Rows(), buffer, BATCH, seed=0, copies=copies, ahead=ahead)


@pytest.mark.parametrize("ahead", [False, True])
def test_batches_that_are_sent_ahead_are_the_same(ahead: bool) -> None:
    copies = LateCopies()
    plain, sending = shuffled(), shuffled(copies, ahead=ahead)
    for _ in range(20):
        ours, theirs = sending.next(), plain.next()
        for layer, x in theirs.items():
            assert torch.equal(ours[layer], x)
    sending.close()


def test_the_next_batch_is_on_its_way_while_one_is_in_use() -> None:
    copies = LateCopies()
    batches = shuffled(copies)
    batches.next()
    assert copies.log == ["begin", "arrived", "begin"]
    batches.next()
    assert copies.log[3:] == ["arrived", "finished", "begin"], "of the memory a batch ago"
    # The last of a half: the rows of the next one are not there yet.
    batches.next()
    assert copies.log[6:] == ["arrived"]
    batches.to_come = 1
    batches.next()
    assert copies.log[7:] == ["finished", "begin", "arrived"], "none is sent that nobody takes"


@pytest.mark.parametrize("given", [1, 2, 3, 7])
def test_it_goes_on_where_a_batch_was_sent_that_nobody_took(given: int) -> None:
    first, second, whole = shuffled(LateCopies()), shuffled(LateCopies()), shuffled()
    second.next()
    for _ in range(given):
        first.next()
        whole.next()
    second.load_state_dict(first.state_dict())
    for _ in range(5):
        assert torch.equal(second.next()[1], whole.next()[1])


def test_to_a_cuda_device_nothing_goes_from_pageable_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[tuple[str, Any]] = []

    class Here(Tensor):
        device = torch.device("cpu")

        def pin_memory(self) -> Here:  # type: ignore[override]
            calls.append(("pin", None))
            return self

        def to(self, *args: Any, **kwargs: Any) -> Here:  # type: ignore[override]
            calls.append(("to", (args, kwargs)))
            return self

    x = torch.ones(2).as_subclass(Here)
    to_device(x, torch.device("cuda"), torch.float16)
    to = ((torch.device("cuda"), torch.float16), {"non_blocking": True})
    assert calls == [("pin", None), ("to", to)]
    calls.clear()
    to_device(x, torch.device("cpu"))
    assert calls == [("to", ((torch.device("cpu"), None), {}))]


def test_no_batch_of_a_buffer_on_the_host_waits_for_the_device() -> None:
    class MetaCopies(LateCopies):
        def memory(self, like: Tensor, rows: int) -> Tensor:
            return torch.empty((rows, like.shape[1]))

        def begin(self, staged: Mapping[int, Tensor]) -> tuple[ByLayer, Any]:
            return {layer: x.to("meta") for layer, x in staged.items()}, None

        def arrived(self, sent: ByLayer, event: Any) -> None: ...

    with FakeTensorMode(allow_non_fake_inputs=True):
        buffer = {0: torch.empty(SIZE, WIDTH), 1: torch.empty(SIZE, WIDTH)}
        batches = Shuffled(
            Rows(), buffer, BATCH, seed=0, device=torch.device("meta"), copies=MetaCopies()
        )
        for _ in range(8):
            batch = batches.next()
        assert {x.device.type for x in batch.values()} == {"meta"}
