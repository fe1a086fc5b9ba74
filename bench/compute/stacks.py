"""Tensors of one shape as the rows of one tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Of tensors of one shape a stack, whose rows they become."""
    stack = torch.stack(list(tensors))
    for tensor, row in zip(tensors, stack, strict=True):
        tensor.set_(row)
    return stack
