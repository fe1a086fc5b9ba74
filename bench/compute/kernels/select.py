"""A Triton kernel for the selection: the k largest of each row, in one read of the row.

A program holds a piece of a row in registers. The k-th largest of the maxima of its groups bounds
the k-th largest element from below (as in `bench.compute.topk`), and is found by bisection, as is
the element from there on. Of rows in several pieces the k largest of each piece are selected from
once more. Equal values are taken by their place, so that the same bits come run to run.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from bench.compute.device import on_its_device

# Elements of a piece, at most, and those of a group.
ROW_PIECE = 8192
MEMBERS = 8

# Elements that are read at once when what was selected is written; fewer than 2 ** 15.
_CHUNK = 1024

# Values kept of a row, at most: so many a piece has in any case.
MOST_KEPT = ROW_PIECE // 8


# Keys: less than any float's, of -inf, and so many as are in 1 / 256 of a float's size.
_LEAST = tl.constexpr(-(2**31))
_MINUS_INFINITY = tl.constexpr(-(2**31) + 2**23 - 1)
_ROUGHLY = tl.constexpr(2**15)


@triton.jit(do_not_specialize=["rows_per_bias", "k"])
def _largest(
    source,
    source_columns,
    bias,
    mask,
    out,
    out_columns,
    n,
    length,
    rows_per_bias,
    k,
    HAS_COLUMNS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_MASK: tl.constexpr,
    BOUNDED: tl.constexpr,
    MEMBERS: tl.constexpr,
    GROUPS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    first = tl.program_id(1) * length
    end = tl.minimum(first + length, n)
    biases = bias
    if HAS_BIAS:
        biases = bias + (row // rows_per_bias) * n
    within = tl.arange(0, MEMBERS)[:, None] * GROUPS + tl.arange(0, GROUPS)[None, :]
    piece = _keys(source + row * n, biases, mask, first + within, end, HAS_BIAS, HAS_MASK)
    least = _kth_largest(piece, k, BOUNDED)
    missing = k - tl.sum(tl.sum((piece > least).to(tl.int32), axis=0), axis=0)

    # Read again, from the cache, so that the piece need not stay in registers meanwhile. What is
    # above the k-th is kept, and of what equals it so many as are missing, the first ones.
    target = (row * tl.num_programs(1) + tl.program_id(1)) * k
    above_before = 0
    equal_before = 0
    for start in range(first, end, CHUNK):
        column = start + tl.arange(0, CHUNK)
        key = _keys(source + row * n, biases, mask, column, end, HAS_BIAS, HAS_MASK)
        is_above, is_equal = key > least, (key == least) & (column < end)
        # Both counts in one scan: those above in the upper half of a number.
        ones = is_above.to(tl.int32) * 65536 + is_equal.to(tl.int32)
        before = tl.cumsum(ones, axis=0) - ones
        above, equal = above_before + (before >> 16), equal_before + (before & 0xFFFF)
        selected = is_above | (is_equal & (equal < missing))
        place = target + above + tl.minimum(equal, missing)
        tl.store(out + place, _values(key), mask=selected)
        found = column.to(tl.int64)
        if HAS_COLUMNS:
            found = tl.load(source_columns + row * n + column, mask=selected, other=0)
        tl.store(out_columns + place, found, mask=selected)
        counted = tl.sum(ones, axis=0)
        above_before += counted >> 16
        equal_before += counted & 0xFFFF


@triton.jit
def _kth_largest(key, k, BOUNDED: tl.constexpr):
    """The k-th largest of the keys [members, groups]; with BOUNDED there are k groups at least."""
    # k keys or more reach `low`, fewer reach `high`. First by the maxima of groups, roughly.
    tops = tl.max(key, axis=0)
    top = tl.max(tops, axis=0)
    low = tl.full([], _LEAST, tl.int64)
    high = top.to(tl.int64) + 1
    if BOUNDED:
        finite = tl.where(tops > _MINUS_INFINITY, tops, top)
        lowest = tl.min(finite, axis=0)
        if tl.sum((tops >= lowest).to(tl.int32), axis=0) >= k:
            low = lowest.to(tl.int64)
        reached = k + 1
        while (high - low > _ROUGHLY) & (reached != k):
            middle = low + (high - low) // 2
            count = tl.sum((tops >= middle.to(tl.int32)).to(tl.int32), axis=0)
            low = tl.where(count >= k, middle, low)
            high = tl.where(count >= k, high, middle)
            reached = tl.where(count >= k, count, reached)
        # A few of the largest share a group, so the k-th largest key is a little above.
        above = tl.minimum(high + 4 * _ROUGHLY, top.to(tl.int64))
        count = _reaching(key, above)
        low = tl.where(count >= k, above, low)
        high = tl.where(count >= k, top.to(tl.int64) + 1, above)
    reached = _reaching(key, low)
    while (high - low > 1) & (reached != k):
        middle = low + (high - low) // 2
        count = _reaching(key, middle)
        low = tl.where(count >= k, middle, low)
        high = tl.where(count >= k, high, middle)
        reached = tl.where(count >= k, count, reached)
    if reached == k:
        # It is the smallest that reaches `low`.
        low = tl.min(tl.min(tl.where(key >= low.to(tl.int32), key, top), axis=0), axis=0).to(
            tl.int64
        )
    return low.to(tl.int32)


@triton.jit
def _reaching(key, least):
    """How many keys are `least` or more."""
    return tl.sum(tl.sum((key >= least.to(tl.int32)).to(tl.int32), axis=0), axis=0)


@triton.jit
def _keys(source, bias, mask, column, end, HAS_BIAS: tl.constexpr, HAS_MASK: tl.constexpr):
    """Integers in the order of a row's values; what is outside is less than any of them."""
    inside = column < end
    value = tl.load(source + column, mask=inside, other=float("-inf"))
    if HAS_BIAS:
        value += tl.load(bias + column, mask=inside, other=0.0)
    if HAS_MASK:
        chosen = tl.load(mask + column, mask=inside, other=0) != 0
        value = tl.where(chosen, value, float("-inf"))
    bits = value.to(tl.int32, bitcast=True)
    return tl.where(inside, bits ^ ((bits >> 31) & 0x7FFFFFFF), _LEAST)


@triton.jit
def _values(key):
    """The values that `_keys` are of."""
    return (key ^ ((key >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@on_its_device
def largest(
    pre: Tensor, k: int, *, bias: Tensor | None = None, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The k largest of each row of pre, float32 [rows, n], and their columns, int64: [rows, k].

    In no particular order. k: at most `MOST_KEPT` and n. bias: [m, n], of which the i-th row is
    added to the i-th of m equal parts of the rows. mask: bool [n]; features outside of it are -inf.
    """
    rows = len(pre)
    pre = pre.contiguous()
    if bias is not None:
        bias = bias.contiguous()
    chosen = None if mask is None else mask.to(torch.uint8)
    columns: Tensor | None = None
    while True:
        width = pre.shape[1]
        length, pieces = pieces_of(width, k)
        shape = (rows, pieces * k)
        values = torch.empty(shape, dtype=torch.float32, device=pre.device)
        found = torch.empty(shape, dtype=torch.int64, device=pre.device)
        _launch(pre, columns, bias, chosen, (values, found), length, k)
        if pieces == 1:
            return values, found
        pre, columns, bias, chosen = values, found, None, None


def _launch(
    pre: Tensor,
    columns: Tensor | None,
    bias: Tensor | None,
    mask: Tensor | None,
    out: tuple[Tensor, Tensor],
    length: int,
    k: int,
) -> None:
    rows, n = pre.shape
    if not rows:
        return
    groups = max(16, triton.next_power_of_2(triton.cdiv(length, MEMBERS)))
    per_bias = 1 if bias is None else rows // len(bias)
    _largest[(rows, triton.cdiv(n, length))](
        *(pre, columns, bias, mask, *out, n, length, per_bias, k),
        HAS_COLUMNS=columns is not None,
        HAS_BIAS=bias is not None,
        HAS_MASK=mask is not None,
        BOUNDED=k <= groups,
        MEMBERS=MEMBERS,
        GROUPS=groups,
        CHUNK=min(_CHUNK, groups * MEMBERS),
        num_warps=4 if groups >= 128 else 1,
    )


def pieces_of(n: int, k: int) -> tuple[int, int]:
    """Elements of a piece of a row of n, and pieces; each piece has k elements at least."""
    pieces = -(-n // ROW_PIECE)
    length = -(-n // pieces)
    # Rows of a piece that begin at a whole number of cache lines are read faster.
    aligned = -(-length // 128) * 128
    if pieces > 1 and n - (pieces - 1) * aligned >= k:
        length = aligned
    return length, pieces
