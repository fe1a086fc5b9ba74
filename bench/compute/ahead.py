"""Whether the host runs ahead of where a tensor is computed.

On a device operations are queued: the host that asks for a value, or for a size that depends on
values, waits until all before it are done, and the device has nothing to do meanwhile. There every
shape must follow from those of the arguments. On a CPU nothing runs ahead, and smaller shapes are
less work.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

_pretended = False


def host_runs_ahead(x: Tensor) -> bool:
    """Whether to ask for values of `x` would make its device wait."""
    return _pretended or x.device.type != "cpu"


@contextmanager
def pretend_device() -> Iterator[None]:
    """Take a device's ways on the CPU too, so that tests can compare them."""
    global _pretended
    before, _pretended = _pretended, True
    try:
        yield
    finally:
        _pretended = before
