"""A Triton kernel for single pairs of a token and a feature: their dot products in float64."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from bench.compute.device import on_its_device

# Pairs of one program, and columns that it reads at once.
_PAIRS, _INNER = 4, 256


@triton.jit
def _pair_products(x, W, row, feature, out, pairs, d, PAIRS: tl.constexpr, INNER: tl.constexpr):
    pair = tl.program_id(0).to(tl.int64) * PAIRS + tl.arange(0, PAIRS)
    there = pair < pairs
    left = x + tl.load(row + pair, mask=there, other=0)[:, None] * d
    right = W + tl.load(feature + pair, mask=there, other=0)[:, None] * d
    total = tl.zeros([PAIRS], dtype=tl.float64)
    for start in range(0, d, INNER):
        inner = start + tl.arange(0, INNER)[None, :]
        inside = there[:, None] & (inner < d)
        of_token = tl.load(left + inner, mask=inside, other=0.0).to(tl.float64)
        of_feature = tl.load(right + inner, mask=inside, other=0.0).to(tl.float64)
        total += tl.sum(of_token * of_feature, axis=1)
    tl.store(out + pair, total, mask=there)


@on_its_device
def pair_products(x: Tensor, W: Tensor, row: Tensor, feature: Tensor) -> Tensor:
    """x[row[i]] . W[feature[i]] of each of the pairs, float64 [pairs].

    x: [tokens, d]. W: [n, d]. Both of float32 or float64. row, feature: int64 [pairs].
    """
    pairs, d = len(row), x.shape[1]
    out = torch.empty(pairs, dtype=torch.float64, device=x.device)
    if pairs:
        given = (each.contiguous() for each in (x, W, row, feature))
        grid = (triton.cdiv(pairs, _PAIRS),)
        _pair_products[grid](*given, out, pairs, d, PAIRS=_PAIRS, INNER=_INNER)
    return out
