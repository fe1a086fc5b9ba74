"""How long computing takes here, and which of several ways is the fastest: by trying."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import torch

# Each is timed so many times, in turns; the best counts.
_ROUNDS = 4

_Way = TypeVar("_Way")


def fastest(ways: Mapping[_Way, Callable[[], object]], device: torch.device) -> _Way:
    """The way whose best time is the shortest; of two that are as fast the first."""
    seconds: dict[_Way, float] = dict.fromkeys(ways, float("inf"))
    for _ in range(_ROUNDS):
        for name, way in ways.items():
            _wait(device)
            start = time.perf_counter()
            way()
            _wait(device)
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return min(seconds, key=lambda name: seconds[name])


def compute_seconds() -> float:
    """A clock for what this thread computes on a CPU: its processor time, in which other work on
    the machine does not count; the time that passes where torch's kernels have several threads."""
    return time.thread_time() if torch.get_num_threads() == 1 else time.perf_counter()


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch's operations by one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)  # which need not be the current one
    elif device.type != "cpu":
        getattr(torch, device.type).synchronize()
