"""A Triton kernel for the encoder: the product, and beside it each group of features' largest.

Each of a row's k largest pre-activations lies in one of the k groups with the largest maxima (as in
`bench.compute.topk`), so the selection reads the maxima, n / 32 a row, and k groups. Censuses take
it where it is the fastest way (`bench.death.products`). Training steps select in one read of each
row instead (`bench.compute.kernels.select`).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from bench.compute.device import on_its_device

GROUP = 32
_ROWS, _FEATURES, _INNER = 64, 128, 32


@triton.jit
def _product_and_maxima(
    x,
    W,
    bias,
    pre,
    maxima,
    rows,
    n,
    d,
    groups,
    ROWS: tl.constexpr,
    FEATURES: tl.constexpr,
    INNER: tl.constexpr,
    GROUP: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    feature = tl.program_id(1).to(tl.int64) * FEATURES + tl.arange(0, FEATURES)
    total = tl.zeros([ROWS, FEATURES], dtype=tl.float32)
    for start in range(0, d, INNER):
        inner = start + tl.arange(0, INNER)
        in_x = (row[:, None] < rows) & (inner[None, :] < d)
        in_W = (feature[None, :] < n) & (inner[:, None] < d)
        left = tl.load(x + row[:, None] * d + inner[None, :], mask=in_x, other=0.0)
        right = tl.load(W + feature[None, :] * d + inner[:, None], mask=in_W, other=0.0)
        total += tl.dot(left, right, input_precision="ieee")
    total += tl.load(bias + feature, mask=feature < n, other=0.0)[None, :]
    there = (row[:, None] < rows) & (feature[None, :] < n)
    tl.store(pre + row[:, None] * n + feature[None, :], total, mask=there)
    total = tl.where(feature[None, :] < n, total, float("-inf"))
    largest = tl.max(tl.reshape(total, [ROWS, FEATURES // GROUP, GROUP]), axis=2)
    group = tl.program_id(1) * (FEATURES // GROUP) + tl.arange(0, FEATURES // GROUP)
    there = (row[:, None] < rows) & (group[None, :] < groups)
    tl.store(maxima + row[:, None] * groups + group[None, :], largest, mask=there)


@on_its_device
def product_and_maxima(centered: Tensor, W_enc: Tensor, b_enc: Tensor) -> tuple[Tensor, Tensor]:
    """Pre-activations [rows, n] and the maxima of their groups [rows, ceil(n / 32)], float32.

    centered: y - b [rows, d]. W_enc: [n, d]. b_enc: [n]. All float32.
    """
    rows, d = centered.shape
    n = len(W_enc)
    groups = triton.cdiv(n, GROUP)
    pre = torch.empty(rows, n, dtype=torch.float32, device=centered.device)
    maxima = torch.empty(rows, groups, dtype=torch.float32, device=centered.device)
    if rows:
        grid = (triton.cdiv(rows, _ROWS), triton.cdiv(n, _FEATURES))
        _product_and_maxima[grid](
            *(centered.contiguous(), W_enc.contiguous(), b_enc, pre, maxima, rows, n, d, groups),
            ROWS=_ROWS,
            FEATURES=_FEATURES,
            INNER=_INNER,
            GROUP=GROUP,
        )
    return pre, maxima


def select_in_groups(pre: Tensor, maxima: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row of pre [rows, n] and their columns, [rows, k] each, unordered.

    maxima: of the groups [rows, ceil(n / 32)].
    """
    n, groups = pre.shape[1], maxima.shape[1]
    if groups <= k:
        values, columns = pre.topk(k, dim=1, sorted=False)
        return values, columns
    chosen = maxima.topk(k, dim=1, sorted=False).indices
    members = torch.arange(GROUP, device=pre.device)
    columns = (chosen.unsqueeze(2) * GROUP + members).flatten(1)
    # The last group may be cut short.
    outside, within = columns >= n, columns.clamp(max=n - 1)
    found = pre.gather(1, within).masked_fill_(outside, -torch.inf)
    values, places = found.topk(k, dim=1, sorted=False)
    # Where fewer than k are there, what fills up may lie outside: any column will do.
    return values, columns.gather(1, places).clamp_(max=n - 1)
