"""CUDA's current device and streams, without a device: what torch is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import pytest
import torch
from torch import Tensor

from bench.compute import device as module
from bench.compute.matmul import fast_matmul
from bench.compute.timing import fastest

SECOND = torch.device("cuda:1")


@pytest.fixture(name="current")
def fixture_current(monkeypatch: pytest.MonkeyPatch) -> list[int | str]:
    """The devices that became current, in turn; the end of each too."""
    entered: list[int | str] = []

    @contextmanager
    def device(of: torch.device) -> Iterator[None]:
        entered.append(str(of))
        yield
        entered.append("back")

    monkeypatch.setattr(torch.cuda, "device", device)
    return entered


class Pooled:
    """A stream out of a few that are dealt in turn, as torch deals its 32."""

    dealt = count()

    def __init__(self, device: int) -> None:
        self.device, self.cuda_stream = device, next(self.dealt) % 3


def test_each_use_has_one_stream_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Stream", Pooled)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(module, "_streams", {})
    refill = module.stream_for("refill", SECOND)
    for _ in range(2):  # what others take meanwhile, until the first one is dealt again
        Pooled(1)
    capture = module.stream_for("capture", SECOND)
    assert capture.cuda_stream != refill.cuda_stream
    assert module.stream_for("refill", SECOND) is refill
    first = module.stream_for("refill", torch.device("cuda"))
    assert first is module.stream_for("refill", torch.device("cuda:0"))
    assert (first.device, refill.device) == (0, 1)


def test_what_is_computed_on_a_device_has_it_as_the_current_one(current: list[str]) -> None:
    with fast_matmul(SECOND):
        assert current == ["cuda:1"]
    assert current == ["cuda:1", "back"]
    for other in ("cuda", "cpu"):
        with module.current_device(other):
            assert len(current) == 2


def test_a_kernel_is_launched_on_its_tensors_device(monkeypatch: pytest.MonkeyPatch) -> None:
    current: list[torch.device] = []

    @contextmanager
    def device_of(x: Tensor) -> Iterator[None]:
        current.append(x.device)
        yield
        current.clear()

    monkeypatch.setattr(torch.cuda, "device_of", device_of)

    @module.on_its_device
    def launch(x: Tensor, *, by: int) -> tuple[int, list[torch.device]]:
        return by, list(current)

    assert launch(torch.zeros(1), by=3) == (3, [torch.device("cpu")])
    assert not current


def test_what_is_timed_is_waited_for_on_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    assert fastest({"only": lambda: None}, SECOND) == "only"
    assert set(waited) == {SECOND}
