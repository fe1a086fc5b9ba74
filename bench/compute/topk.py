"""Exact top-k along rows, shared by the census and the training step."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import max_pool1d

from bench.compute.kernels import usable
from bench.compute.profiling import marked

# Rows this long numpy sorts in registers (float32, AVX-512: 0.7 us for 512 elements); a row twice
# as long takes nine times as long.
_SORTED_AT_ONCE = 512

# Sorting is the fastest way with at most so many threads (numpy uses one) and elements of a group,
# and with at least so many elements kept; for each of these, at most so many columns and at least
# so many groups. Measured on one and two cores of a Zen 4, n from 64 to 131,072, k from 1 to 256.
_MOST_THREADS, _LARGEST_GROUP = 2, 16
_LEAST_KEPT, _MOST_PER_KEPT, _LEAST_GROUPS_PER_KEPT = 8, 256, 4

# What is sorted in place of a row is at least so many times the elements kept, and so is at most
# what that leaves.
_FOLDED_PER_KEPT = 4

# The other way: elements of a group, and the fewest columns, in all and per kept element, with
# which it is faster than torch.topk.
_GROUP = 8
_LEAST_COLUMNS, _LEAST_PER_KEPT = 512, 24


@marked("selection")
def exact_topk(
    pre: Tensor, k: int, *, bias: Tensor | None = None, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The k largest values of each row and their columns, in no particular order.

    pre: [rows, n], any float dtype. bias: [m, n], of which the i-th row is added to the i-th of m
    equal parts of the rows; it may be added in place. mask: bool [n]; what is outside of it is
    -inf. Returns (values [rows, k], indices int64 [rows, k]); as a set of values it equals
    `torch.topk`. Among equal values at the k-th place, which columns are taken is fixed for a given
    input and device, and otherwise unspecified.
    """
    if _has_kernel(pre, k):
        from bench.compute.kernels import select

        return select.largest(pre, k, bias=bias, mask=mask)
    if bias is not None:
        pre.view(len(bias), -1, pre.shape[1]).add_(bias.unsqueeze(1))
    if mask is not None:
        pre = torch.where(mask, pre, -torch.inf)
    group = sorted_group(pre, k)
    found = None if group is None else _sorted_topk(pre.detach().contiguous(), k, group)
    if found is not None:
        return found
    if grouped_pays(pre.shape[1], k):
        return _grouped_topk(pre, k)
    values, indices = pre.topk(k, dim=1, sorted=False)
    return values, indices


@marked("selection")
def exact_topk_of_each(pre: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`exact_topk` of each of pre [m, rows, n], on a CPU: [m, rows, k] each, to the bit.

    All rows at once, unless one has NaN or little else than ties: then those of its [rows, n] are
    selected in another way, in which columns come in another order, and the others must not be.
    """
    m, rows = pre.shape[:2]
    together = pre.detach().flatten(0, 1)
    group = sorted_group(together, k)
    found = None if group is None else _sorted_topk(together, k, group)
    if found is not None:
        return found[0].view(m, rows, k), found[1].view(m, rows, k)
    each = [exact_topk(of_one, k) for of_one in pre]
    return torch.stack([values for values, _ in each]), torch.stack([at for _, at in each])


@marked("selection")
def kth_largest(pre: Tensor, k: int) -> Tensor:
    """The k-th largest value of each row of pre [rows, n], as [rows]."""
    if sorted_group(pre, k) == 1:
        return torch.from_numpy(_reaching(pre.detach().contiguous().numpy(), k).least)
    return exact_topk(pre, k)[0].amin(1)


def _has_kernel(pre: Tensor, k: int) -> bool:
    if pre.dtype != torch.float32 or not usable("select", pre.device):
        return False
    from bench.compute.kernels import select

    return k <= min(select.MOST_KEPT, pre.shape[1])


def sorted_group(pre: Tensor, k: int) -> int | None:
    """Elements of a group for `_sorted_topk`; None where another way is faster, or the only one.

    The smallest power of two that leaves no more groups than are sorted at once.
    """
    n = pre.shape[1]
    if pre.device.type != "cpu" or pre.dtype != torch.float32 or not len(pre):
        return None
    if torch.get_num_threads() > _MOST_THREADS or k < _LEAST_KEPT or n > _MOST_PER_KEPT * k:
        return None
    group = 1
    while n > group * _SORTED_AT_ONCE:
        group *= 2
    few = group == 1 or n >= _LEAST_GROUPS_PER_KEPT * k * group
    return group if few and group <= _LARGEST_GROUP and n % group == 0 else None


def _sorted_topk(pre: Tensor, k: int, group: int) -> tuple[Tensor, Tensor] | None:
    """Top-k by sorted maxima of neighbours; None where there is NaN, or little else than ties.

    The k-th largest of the maxima is no larger than the k-th largest element, so what reaches it,
    k elements and a few, holds the k largest; and it lies in groups whose maxima reach it, k and,
    with ties, a few.
    """
    rows, n = pre.shape
    elements = pre.numpy().reshape(-1, group)
    maxima = (pre if group == 1 else max_pool1d(pre, group)).numpy()
    places, starts, least = _reaching(maxima, k)
    reached = np.diff(starts)
    if reached.min() < k or reached.max() > 2 * k:
        return None
    if group > 1:
        reach = elements.take(places, axis=0) >= np.repeat(least, reached)[:, None]
        chosen, member = np.divmod(np.flatnonzero(reach), group)
        places = places.take(chosen) * group + member
        starts = np.searchsorted(places, np.arange(rows + 1) * n)
    values = elements.ravel().take(places)
    if len(values) > rows * k:
        largest = _largest(values, starts, k)
        places, values = places[largest], values[largest]
    columns = places.reshape(rows, k) - (np.arange(rows) * n)[:, None]
    return torch.from_numpy(values.reshape(rows, k)), torch.from_numpy(columns)


class _Reaching(NamedTuple):
    """What is no smaller than the k-th largest of its row in an array [rows, n].

    places: in the flattened array, ascending. starts: [rows + 1], where each row begins in
    `places`. least: [rows], the k-th largest of each.
    """

    places: np.ndarray
    starts: np.ndarray
    least: np.ndarray


def _reaching(x: np.ndarray, k: int) -> _Reaching:
    """Of an array [rows, n], in which NaN is the largest and reaches nothing.

    The k-th largest of a row's maxima, each of every so many columns, is no larger than that of the
    row, and little smaller: a short sort of them, and of the few that it leaves, is a sort of all.
    """
    rows, n = x.shape
    fold = _fold(n, k)
    ends = np.arange(rows + 1) * n
    if fold > 1:
        # torch takes a sixth of numpy's time for the maxima.
        maxima = np.sort(torch.from_numpy(x).view(rows, fold, -1).amax(1).numpy(), axis=1)
        places = np.flatnonzero(x >= maxima[:, -k, None])
        starts = np.searchsorted(places, ends)
        counts = np.diff(starts)
        # Else there is NaN, or little else than ties.
        if not np.isnan(maxima[:, -1]).any() and counts.max() <= _FOLDED_PER_KEPT * k:
            values = x.ravel().take(places)
            least = _padded(values, counts)[:, -k].copy()
            places = places[values >= np.repeat(least, counts)]
            return _Reaching(places, np.searchsorted(places, ends), least)
    least = np.sort(x, axis=1)[:, -k].copy()
    places = np.flatnonzero(x >= least[:, None])
    return _Reaching(places, np.searchsorted(places, ends), least)


def _fold(n: int, k: int) -> int:
    """Columns to a maximum: the largest power of two that leaves enough of these."""
    fold = 1
    while n % (2 * fold) == 0 and n >= 2 * fold * _FOLDED_PER_KEPT * k:
        fold *= 2
    return fold


def _padded(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Rows of so many of the values in turn, sorted, -inf before them."""
    padded = np.full((len(counts), counts.max()), -np.inf, dtype=values.dtype)
    padded[np.arange(padded.shape[1]) < counts[:, None]] = values
    padded.sort(axis=1)
    return padded


def _largest(values: np.ndarray, starts: np.ndarray, k: int) -> np.ndarray:
    """Which are the k largest of each row, bool; row i is values[starts[i] : starts[i + 1]].

    Of values that are equal at the k-th place, the first ones.
    """
    counts = np.diff(starts)
    padded = _padded(values, counts)
    least = np.repeat(padded[:, -k], counts)
    largest: np.ndarray = values >= least
    for row in np.flatnonzero(np.add.reduceat(largest, starts[:-1], dtype=np.int64) > k):
        here = slice(starts[row], starts[row + 1])
        ties = starts[row] + np.flatnonzero(values[here] == padded[row, -k])
        largest[ties[k - largest[here].sum() :]] = False
    return largest


def grouped_pays(n: int, k: int) -> bool:
    """Whether the grouped path can be used on rows of n elements, and is the faster one."""
    return n % _GROUP == 0 and n >= max(_LEAST_COLUMNS, _LEAST_PER_KEPT * k)


def _grouped_topk(pre: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Top-k by maxima of groups: the k groups with the largest maxima, then the k largest in them.

    Each of a row's k largest elements lies in one of the k groups with the largest maxima: were it
    in another group, k groups would each hold something at least as large.
    """
    rows, n = pre.shape
    groups = n // _GROUP
    maxima = pre.view(rows, _GROUP, groups).amax(1)
    chosen = maxima.topk(k, dim=1, sorted=False).indices
    members = torch.arange(0, n, groups, device=pre.device)
    columns = (chosen.unsqueeze(2) + members).flatten(1)
    values, places = pre.gather(1, columns).topk(k, dim=1, sorted=False)
    return values, columns.gather(1, places)
