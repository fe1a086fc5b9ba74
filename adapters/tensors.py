"""Tensors out of what files and users give."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def as_tensor(array: Tensor | np.ndarray) -> Tensor:
    """A tensor as it is; an array as a copy in native byte order, in a type that torch has."""
    if isinstance(array, Tensor):
        return array.detach()
    wanted = array.dtype.newbyteorder("=") if array.dtype.itemsize <= 8 else np.dtype(np.float64)
    return torch.from_numpy(np.array(array, dtype=wanted, order="C"))
