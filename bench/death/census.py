"""Who is dead on a sample of tokens, and by which path. Exact by definition.

Definition. For token t and feature f let z = x_t . w_f + bias_f, evaluated in float64. The feature
is *positive* on the token if z > 0. It *fires* on the token if z > 0 and fewer than k features have
a strictly larger z there: everything tied with the k-th largest value fires, a value of 0 does not.

- dead-by-ReLU: positive on no token.
- dead-by-TopK: positive on some token, fires on none.
- dead: either of the two, which are disjoint.

The products are taken in float32, or on a CUDA device of parts (`bench.compute.parts`), and
bounded: the error of a dot product in float32 is at most d u |x||w| (Higham, Accuracy and Stability
of Numerical Algorithms, section 3.1). A pair that this leaves open is evaluated again in float64.
So the answer does not depend on chunks, on the device, or on the matrix product's kernel; nor on
how a dictionary is divided over processes (`bench.compute.row_shards`), which exchange the largest
values and those that are open.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.compute.matmul import fast_matmul
from bench.compute.profiling import marked
from bench.compute.row_shards import (
    anywhere,
    current_shard,
    every_feature,
    most_rows,
    summed,
    together,
    whole,
)
from bench.compute.topk import exact_topk, kth_largest
from bench.death.products import Products, Way, by_the_fastest

_ALWAYS_ON = 0.99

# Values kept below the k-th largest, so that most rows' open pairs are found among the largest.
_SPARE = 8

# Once this many tokens were counted in full, only features not yet seen are followed, if they and
# the features that bound the threshold are fewer than this share of the dictionary.
_TOKENS_BEFORE_FOLLOWING = 2048
_FOLLOW_BELOW = 0.5
_BOUNDING_PER_K = 8
_FOLLOWING_CHUNKS = 4


@dataclass(frozen=True, eq=False)
class Census:
    """Dead features of one dictionary on one sample.

    n, k: the dictionary's size, and how many features a token selects. tokens: of the sample.
    never_positive, never_selected: bool [n], dead-by-ReLU and dead-by-TopK, disjoint. counts:
    int64 [n], tokens on which each feature fires, where they were asked for. All on the CPU.
    """

    n: int
    k: int
    tokens: int
    never_positive: Tensor
    never_selected: Tensor
    counts: Tensor | None = None

    @property
    def dead_relu(self) -> int:
        """Features whose pre-activation is never > 0."""
        return int(self.never_positive.sum())

    @property
    def dead_topk(self) -> int:
        """Features that are > 0 somewhere, and never selected with a value > 0."""
        return int(self.never_selected.sum())

    @property
    def dead(self) -> int:
        """The disjoint union of the two."""
        return self.dead_relu + self.dead_topk

    @property
    def alive(self) -> int:
        """Features selected on a token at least, with a value > 0."""
        return self.n - self.dead

    @property
    def dead_mask(self) -> Tensor:
        """bool [n]"""
        return self.never_positive | self.never_selected

    @property
    def dead_rate(self) -> float:
        """The dead as a share of n."""
        return self.dead / self.n

    @property
    def always_on(self) -> int | None:
        """Features that fire on more than 99 % of the tokens; None if firings were not counted."""
        if self.counts is None:
            return None
        return int((self.counts > _ALWAYS_ON * self.tokens).sum())


@marked("census")
def census(
    x: Tensor,
    W: Tensor,
    *,
    k: int,
    b_enc: Tensor | None = None,
    counts: bool = False,
    chunk: int | None = None,
    way: Way | None = None,
) -> Census:
    """Census of the dictionary W [n, d], bias b_enc [n] or 0, on the tokens x [N, d].

    counts: also count each feature's firings, which rules out an early end once all are alive.
    chunk: tokens at a time. way: to the products, by default the fastest. Neither ever changes the
    answer. Raises BadActivations on NaN or inf in x.
    """

    def run(tokens: Tensor, way: Way) -> Census:
        counter = _Counter(Products(tokens, W, b_enc, k, counts, chunk, way))
        counter.run()
        return counter.census()

    with fast_matmul(x.device), torch.autocast(x.device.type, enabled=False), torch.no_grad():
        return run(x, way) if way else by_the_fastest(run, x, W, "by rank", k, counts)


class _Counter:
    """What is known so far of the features."""

    def __init__(self, products: Products) -> None:
        c = self.products = products
        self.positive = torch.zeros(c.n, dtype=torch.bool, device=c.x.device)
        self.fired = torch.zeros_like(self.positive)
        self.counts = torch.zeros(c.n, dtype=torch.int64, device=c.x.device)
        self._bounding: Tensor | None = None
        self._follow_limit = int(_FOLLOW_BELOW * c.n) - _BOUNDING_PER_K * c.k

    def run(self) -> None:
        """Take in the sample, until nothing is left to learn."""
        c = self.products
        start = 0
        while start < c.x.shape[0] and not self.finished:
            if self.follows(start):
                # A part of the dictionary goes with more tokens, at the same memory. A card's chunk
                # is large enough.
                size = c.chunk * (_FOLLOWING_CHUNKS if c.x.device.type == "cpu" else 1)
                self.follow(c.tokens(start, size))
            else:
                size = c.chunk
                self.count(c.tokens(start, size))
            start += size

    @property
    def finished(self) -> bool:
        if self.products.counting:
            return False
        return not bool(anywhere(~self.fired.all()))

    def census(self) -> Census:
        c = self.products
        positive, fired = every_feature(self.positive).cpu(), every_feature(self.fired).cpu()
        return Census(
            n=whole(c.n),
            k=c.k,
            tokens=c.x.shape[0],
            never_positive=~positive,
            never_selected=positive & ~fired,
            counts=every_feature(self.counts).cpu() if c.counting else None,
        )

    # -- every feature ------------------------------------------------------------------------

    def count(self, x: Tensor) -> None:
        """Take in tokens x [c, d], a chunk at most."""
        c, kept = self.products, self.products.k + _SPARE
        pre, maxima = c.with_maxima(x)
        error = c.error(x)
        self._select(x, pre, error, kept, maxima)
        self._see_positive(x, pre, error, torch.arange(self.products.n, device=x.device))

    def _select(
        self, x: Tensor, pre: Tensor, error: Tensor, kept: int, maxima: Tensor | None = None
    ) -> None:
        """Mark who fires, looking at the `kept` largest values of each row, or more if need be.

        maxima: of groups of features, where a kernel has them.
        """
        c, wide = self.products, min(kept, most_rows(self.products.n))
        kept = min(kept, c.n)
        values, features = _largest(pre, kept, maxima)
        # The true k-th largest value is within `error` of the computed one.
        threshold = kth_largest(together(values, wide), c.k)
        above = torch.maximum(threshold + 2 * error, error)
        below = threshold - 2 * error
        sure = values > above[:, None]
        is_open = ~sure & (values >= below[:, None]) & (values > -error[:, None])
        # Where even the last value kept is within reach, there may be more such in the row.
        last = values.amin(1)
        cut = anywhere((kept < c.n) & (last >= below) & (last > -error))
        self._fire(features[sure & ~cut[:, None]])
        at_stake = is_open & ~cut[:, None]
        if not c.counting:
            at_stake &= ~self.fired[features]
        rows = anywhere(at_stake.any(1)).nonzero().flatten()
        if len(rows):
            certain = summed(sure[rows].sum(1))
            self._settle(x[rows], features[rows], is_open[rows], certain, wide)
        rows = cut.nonzero().flatten()
        if len(rows):
            self._select(x[rows], pre[rows], error[rows], 4 * kept)

    def _settle(
        self, x: Tensor, features: Tensor, is_open: Tensor, sure: Tensor, wide: int
    ) -> None:
        """Decide the open pairs of rows in float64; `sure` [rows] others of each row do fire.

        wide: values that are kept where most are.
        """
        row, column = is_open.nonzero(as_tuple=True)
        exact = torch.full(is_open.shape, -torch.inf, dtype=torch.float64, device=x.device)
        exact[row, column] = self.products.exact(x, row, features[row, column])
        # Those sure to fire are above the k-th largest value, so they are fewer than k.
        place = self.products.k - sure - 1
        ranked = together(exact, wide).sort(dim=1, descending=True).values
        threshold = ranked.gather(1, place[:, None])
        self._fire(features[(exact >= threshold) & (exact > 0)])

    def _fire(self, features: Tensor) -> None:
        self.fired[features] = True
        self.positive[features] = True
        self.counts += torch.bincount(features, minlength=self.products.n)

    def _see_positive(self, x: Tensor, pre: Tensor, error: Tensor, features: Tensor) -> None:
        """Mark which of `features`, the columns of pre, are positive on one of the tokens."""
        unknown = ~self.positive[features]
        if not bool(unknown.any()):
            return
        columns = (unknown & (pre.amax(0) > -error.max())).nonzero().flatten()
        part, features = pre[:, columns], features[columns]
        sure = (part > error[:, None]).any(0)
        self.positive[features[sure]] = True
        row, column = ((part > -error[:, None]) & ~sure).nonzero(as_tuple=True)
        exact = self.products.exact(x, row, features[column])
        self.positive[features[column[exact > 0]]] = True

    # -- only features that have not fired yet -------------------------------------------------

    def follows(self, start: int) -> bool:
        """Whether from token `start` on it pays to follow only what has not fired yet."""
        c = self.products
        if c.counting or start < _TOKENS_BEFORE_FOLLOWING or current_shard() is not None:
            return False
        unfired = c.n - int(self.fired.sum())
        return unfired <= self._follow_limit

    def follow(self, x: Tensor) -> None:
        """Take in tokens x [c, d] by the products of a part of the dictionary.

        The k-th largest value among the features that fire most bounds the threshold from below;
        only tokens on which an unseen feature reaches that bound are looked at in full.
        """
        c = self.products
        unseen = (~self.fired).nonzero().flatten()
        bounding = self._bounding_features()
        error = c.error(x)
        bound = kth_largest(c.some(x, bounding), c.k) - 2 * error
        pre = c.some(x, unseen)
        self._see_positive(x, pre, error, unseen)
        reaches = pre >= torch.maximum(bound, -error)[:, None]
        # First each feature's own best token, which settles most of those that fire at all.
        best = torch.where(reaches, pre - bound[:, None], -torch.inf).argmax(0)
        first = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        first[best[reaches.any(0)]] = True
        self._look(x[first], error[first])
        rest = reaches[:, ~self.fired[unseen]].any(1) & ~first
        self._look(x[rest], error[rest])
        if int(first.sum() + rest.sum()) > len(x) / 2:
            self._follow_limit = len(unseen) // 2

    def _look(self, x: Tensor, error: Tensor) -> None:
        if len(x):
            pre = self.products.some(x, slice(None))
            self._select(x, pre, error, self.products.k + _SPARE)

    def _bounding_features(self) -> Tensor:
        """The features that fired most on the tokens looked at in full."""
        if self._bounding is None:
            size = min(self.products.n, _BOUNDING_PER_K * self.products.k)
            self._bounding = self.counts.topk(size).indices
        return self._bounding


def _largest(pre: Tensor, k: int, maxima: Tensor | None) -> tuple[Tensor, Tensor]:
    """As `exact_topk`, with the maxima of groups of features where there are any."""
    if maxima is None:
        return exact_topk(pre, k)
    from bench.compute.kernels import encode

    return encode.select_in_groups(pre, maxima, k)
