"""A Triton kernel for AuxK: of pre-activations under a mask, each group of features' largest.

The masked copy of the pre-activations is not written: the k largest of the features under the mask
are found as in `encode`, from the maxima of their groups and the members of k groups.
"""

from __future__ import annotations

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from bench.compute.kernels.encode import GROUP, rows_at_once, select_in_groups
from bench.compute.timing import fastest
from bench.compute.topk import exact_topk

_ROWS, _FEATURES = 16, 256


@triton.jit
def _masked_maxima(
    pre,
    mask,
    maxima,
    rows,
    n,
    groups,
    ROWS: tl.constexpr,
    FEATURES: tl.constexpr,
    GROUP: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    feature = tl.program_id(1).to(tl.int64) * FEATURES + tl.arange(0, FEATURES)
    chosen = tl.load(mask + feature, mask=feature < n, other=0) != 0
    there = (row[:, None] < rows) & chosen[None, :]
    value = tl.load(pre + row[:, None] * n + feature[None, :], mask=there, other=float("-inf"))
    largest = tl.max(tl.reshape(value, [ROWS, FEATURES // GROUP, GROUP]), axis=2)
    group = tl.program_id(1) * (FEATURES // GROUP) + tl.arange(0, FEATURES // GROUP)
    there = (row[:, None] < rows) & (group[None, :] < groups)
    tl.store(maxima + row[:, None] * groups + group[None, :], largest, mask=there)


def masked_topk(pre: Tensor, mask: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row of pre, float32 [rows, n], at the features of a mask, bool [n].

    Values and columns, [rows, k] each, unordered; -inf where the mask has fewer than k.
    """
    rows, n = pre.shape
    groups = triton.cdiv(n, GROUP)
    maxima = torch.empty(rows, groups, dtype=torch.float32, device=pre.device)
    if rows:
        grid = (triton.cdiv(rows, _ROWS), triton.cdiv(n, _FEATURES))
        parts = (pre.contiguous(), mask.to(torch.uint8), maxima, rows, n, groups)
        _masked_maxima[grid](*parts, ROWS=_ROWS, FEATURES=_FEATURES, GROUP=GROUP)
    return select_in_groups(pre, maxima, k, mask)


@cache
def masked_pays(n: int, k: int, device: torch.device) -> bool:
    """Whether it is faster at this size than torch's selection in a masked copy: tried once."""
    pre = torch.randn(rows_at_once(n), n, device=device)
    mask = torch.arange(n, device=device) % 4 == 0

    def plain() -> object:
        return exact_topk(torch.where(mask, pre, -torch.inf), k)

    return fastest({False: plain, True: lambda: masked_topk(pre, mask, k)}, device)
