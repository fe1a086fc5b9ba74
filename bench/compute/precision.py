"""Matrix products of a training step in less than single precision, where a protocol asks for it.

`tf32` and `bf16` round both factors, to 10 and to 7 bits after the leading one, and sum their
products in float32. What comes out is float32, and so is everything that is not a product here:
weights, moments, the sparse sums, statistics and censuses. On a CUDA device tensor cores do so;
elsewhere the factors are rounded and multiplied in float32, which gives the same but for the order
of the sums, and saves no time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal

import torch
from torch import Tensor

from bench.compute.matmul import matmul_precision

Precision = Literal["float32", "tf32", "bf16"]

# Bits of a float32 that TF32 drops.
_DROPPED = 13

_current: Precision = "float32"


@contextmanager
def product_precision(precision: Precision, device: torch.device | str) -> Iterator[None]:
    """Have `product` and `affine` multiply float32 tensors like that; the former way comes back."""
    global _current
    before, _current = _current, precision
    tf32 = precision == "tf32" and torch.device(device).type == "cuda"
    try:
        with matmul_precision("high") if tf32 else nullcontext():
            yield
    finally:
        _current = before


def current_precision() -> Precision:
    """What `product_precision` has set."""
    return _current


def factor(x: Tensor) -> Tensor:
    """A tensor that is multiplied more than once, as `product` then reads it."""
    in_bf16 = _current == "bf16" and x.dtype == torch.float32 and x.device.type == "cuda"
    return x.bfloat16() if in_bf16 else x


def product(left: Tensor, right: Tensor) -> Tensor:
    """left @ right of two matrices, or of two stacks of matrices, in the dtype of `left`."""
    if _current == "float32" or left.dtype != torch.float32:
        return left @ right
    if left.device.type != "cuda":
        return rounded(left, _current) @ rounded(right, _current)
    return left @ right if _current == "tf32" else _bf16_product(left, right)


def affine(bias: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """bias + left @ right, the bias a row; or each [m, ...] of stacks, the biases [m, 1, n]."""
    if _current == "float32" or left.dtype != torch.float32:
        return (torch.addmm if left.ndim == 2 else torch.baddbmm)(bias, left, right)
    return product(left, right).add_(bias)


def rounded(x: Tensor, precision: Precision) -> Tensor:
    """A float32 tensor with each element rounded to the nearest that the precision has."""
    if precision == "float32":
        return x
    if precision == "bf16":
        return x.bfloat16().float()
    bits = x.contiguous().view(torch.int32)
    # To the nearest, ties to even: half of the last bit kept, less one where that bit is 0.
    half = (1 << (_DROPPED - 1)) - 1 + ((bits >> _DROPPED) & 1)
    nearest = ((bits + half) & -(1 << _DROPPED)).view(torch.float32)
    return torch.where(x.isfinite(), nearest, x)


def _bf16_product(left: Tensor, right: Tensor) -> Tensor:
    """On a CUDA device; the sums leave the tensor cores in float32 where torch can have it so."""
    left, right = left.bfloat16(), right.bfloat16()
    try:
        multiply = torch.mm if left.ndim == 2 else torch.bmm
        return multiply(left, right, out_dtype=torch.float32)
    except (TypeError, NotImplementedError, RuntimeError):
        return (left @ right).float()
