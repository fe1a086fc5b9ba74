"""From the host's memory to a device's."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(x: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """x on the device, and in the dtype if one is given.

    A CUDA device copies from pinned memory: otherwise the host would wait until the device has done
    all that it was given before.
    """
    if device.type == "cuda" and x.device.type == "cpu":
        return x.pin_memory().to(device, dtype, non_blocking=True)
    return x.to(device, dtype)
