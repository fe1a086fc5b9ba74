"""Triton kernels for the optimizer: what a step does to a matrix of weights, in two reads of it.

First the squared norm of each row of the gradient, of the decoder's less the part along its own
row; then, in one pass, that part removed, the gradient clipped, Adam (Kingma and Ba, 2014) and the
decoder's rows set back to unit norm.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from bench.compute.device import on_its_device

# Widths of a row: it is held in registers.
WIDEST = 8192

# Elements of the rows that a program takes.
_ELEMENTS = 2048


@triton.jit
def _row_squares(
    gradient,
    weight,
    radial,
    out,
    n,
    d,
    PROJECT: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, WIDTH)
    inside = (row[:, None] < n) & (columns[None, :] < d)
    at = row[:, None] * d + columns[None, :]
    g = tl.load(gradient + at, mask=inside, other=0.0)
    if PROJECT:
        along = tl.load(radial + row, mask=row < n, other=0.0)
        g -= along[:, None] * tl.load(weight + at, mask=inside, other=0.0)
    tl.store(out + row, tl.sum(g * g, axis=1), mask=row < n)


@triton.jit
def _adam(
    weight,
    gradient,
    first,
    second,
    radial,
    clip,
    updates,
    n,
    d,
    rate,
    beta2,
    eps,
    rest1,
    rest2,
    log_beta1,
    log_beta2,
    PROJECT: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, WIDTH)
    inside = (row[:, None] < n) & (columns[None, :] < d)
    at = row[:, None] * d + columns[None, :]
    # 1 - beta ** updates; of betas near 1 the power needs float64.
    done = tl.load(updates).to(tl.float64)
    correction1 = (1 - tl.exp(done * log_beta1)).to(tl.float32)
    correction2 = tl.sqrt(1 - tl.exp(done * log_beta2)).to(tl.float32)
    w = tl.load(weight + at, mask=inside, other=0.0)
    g = tl.load(gradient + at, mask=inside, other=0.0)
    if PROJECT:
        along = tl.load(radial + row, mask=row < n, other=0.0)
        g -= along[:, None] * w
    g /= tl.load(clip)
    m = tl.load(first + at, mask=inside, other=0.0)
    v = tl.load(second + at, mask=inside, other=0.0)
    m += (g - m) * rest1
    v = beta2 * v + rest2 * g * g
    w -= rate / correction1 * m / (tl.sqrt_rn(v) / correction2 + eps)
    if PROJECT:
        length = tl.sqrt_rn(tl.sum(w * w, axis=1))
        w /= tl.where(row < n, length, 1.0)[:, None]
    tl.store(first + at, m, mask=inside)
    tl.store(second + at, v, mask=inside)
    tl.store(weight + at, w, mask=inside)


class AdamRate(NamedTuple):
    """Adam's numbers: rate, beta1, beta2, eps."""

    rate: float
    beta1: float
    beta2: float
    eps: float


@on_its_device
def row_squares(gradient: Tensor, weight: Tensor, radial: Tensor | None) -> Tensor:
    """The squared norm of each row of a gradient [n, d], float32 [n].

    radial: [n], each row's inner product with its row of `weight`; what lies along that row does
    not count. None: all counts.
    """
    n, d = gradient.shape
    out = torch.empty(n, dtype=torch.float32, device=gradient.device)
    rows, width, warps = _tile(d)
    _row_squares[(triton.cdiv(n, rows),)](
        *(gradient, weight, radial, out, n, d),
        PROJECT=radial is not None,
        ROWS=rows,
        WIDTH=width,
        num_warps=warps,
    )
    return out


@on_its_device
def adam_rows(
    weight: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    radial: Tensor | None,
    clip: Tensor,
    updates: Tensor,
    rates: AdamRate,
) -> None:
    """One update in place of weight [n, d] and its moments, by a gradient that is divided by clip.

    radial: as in `row_squares`; with it the rows of weight have unit norm afterwards. clip: [].
    updates: [], the number of this update, from 1 on.
    """
    n, d = weight.shape
    rows, width, warps = _tile(d)
    rate, beta1, beta2, eps = rates
    # They arrive in float32, in which 1 - beta2 has few correct digits.
    numbers = (rate, beta2, eps, 1 - beta1, 1 - beta2, _log(beta1), _log(beta2))
    _adam[(triton.cdiv(n, rows),)](
        *(weight, gradient, first, second, radial, clip, updates, n, d, *numbers),
        PROJECT=radial is not None,
        ROWS=rows,
        WIDTH=width,
        num_warps=warps,
    )


def _tile(d: int) -> tuple[int, int, int]:
    """Rows of a program, their width as a power of two, and warps."""
    width = int(triton.next_power_of_2(d))
    return max(1, _ELEMENTS // width), width, 8 if width > _ELEMENTS else 4


def _log(beta: float) -> float:
    return math.log(beta) if beta > 0 else -math.inf
