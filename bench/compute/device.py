"""Whether a device can be used; and of CUDA devices which one is current, and their streams.

Kernels are launched, and graphs are captured, on the device that is current, which is the first one
unless said otherwise. Torch deals out 32 streams of a device in turn: who takes a new one each time
shares it with somebody in the end, and memory is kept for each stream by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from threading import Lock
from typing import Any, Literal, ParamSpec, TypeVar

import torch

from zoo.errors import UsageError

Use = Literal["refill", "capture", "warm-up", "upload"]

_streams: dict[tuple[int, Use], Any] = {}
_lock = Lock()

_Given = ParamSpec("_Given")
_Found = TypeVar("_Found")


def check_device(name: str) -> str:
    """The name of a device of torch's that can be computed on. Raises UsageError where none is."""
    try:
        if torch.device(name).type == "meta":
            raise RuntimeError("it holds no numbers")
        torch.empty(1, device=torch.device(name))
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"device {name!r} cannot be used ({reason})", "Leave --device out, or say cpu."
        ) from None
    return name


@contextmanager
def current_device(device: torch.device | str) -> Iterator[None]:
    """Has a CUDA device be the current one of this thread; the former one comes back after."""
    device = torch.device(device)
    if device.type != "cuda" or device.index is None:
        yield
        return
    with torch.cuda.device(device):
        yield


def on_its_device(launch: Callable[_Given, _Found]) -> Callable[_Given, _Found]:
    """A function whose first argument is a tensor, run with that one's device as the current."""

    @wraps(launch)
    def launched(*given: _Given.args, **named: _Given.kwargs) -> _Found:
        with torch.cuda.device_of(given[0]):
            return launch(*given, **named)

    return launched


def stream_for(use: Use, device: torch.device) -> Any:
    """The CUDA device's stream for that use, which no other use has."""
    index = torch.cuda.current_device() if device.index is None else device.index
    with _lock:
        if (index, use) not in _streams:
            taken = {stream.cuda_stream for (of, _), stream in _streams.items() if of == index}
            stream = torch.cuda.Stream(index)
            while stream.cuda_stream in taken:
                stream = torch.cuda.Stream(index)
            _streams[index, use] = stream
        return _streams[index, use]
