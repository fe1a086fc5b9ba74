"""Who is dead where a feature fires above a threshold of its own: for families without a k.

For token t and feature f let z = x_t . w_f + bias_f, evaluated in float64. The feature is
*positive* on the token if z > 0, and *fires* if also z > theta_f, its threshold >= 0.

- dead-by-ReLU: positive on no token.
- dead-by-threshold: positive on some token, fires on none. It takes the place of dead-by-TopK.

Exact in the same way as `bench.death.census`: products with a bound on their error, and float64 for
the pairs that this leaves open.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.compute.matmul import fast_matmul
from bench.compute.profiling import marked
from bench.compute.row_shards import every_feature, whole
from bench.death.census import Census
from bench.death.products import Products, Way, by_the_fastest


@marked("census")
def threshold_census(
    x: Tensor, W: Tensor, thresholds: Tensor, b_enc: Tensor | None, counts: bool = False
) -> Census:
    """Census of the dictionary W [n, d], bias b_enc [n] or 0, on the tokens x [N, d].

    thresholds: [n], >= 0. counts: also count each feature's firings. Raises BadActivations on NaN
    or inf in x.
    """

    def run(tokens: Tensor, way: Way) -> _Counter:
        counter = _Counter(Products(tokens, W, b_enc, 1, counts, None, way), thresholds)
        counter.run()
        return counter

    with fast_matmul(x.device), torch.autocast(x.device.type, enabled=False), torch.no_grad():
        counter = by_the_fastest(run, x, W, "by threshold", counts)
    firings, positive = every_feature(counter.firings).cpu(), every_feature(counter.positive).cpu()
    fired = firings > 0
    return Census(
        n=whole(len(W)),
        k=whole(len(W)),
        tokens=len(x),
        never_positive=~positive,
        never_selected=positive & ~fired,
        counts=firings if counts else None,
    )


class _Counter:
    """Tokens on which each feature fires, and whether it ever was positive.

    Where firings need not be counted, a feature is followed until it fires once.
    """

    def __init__(self, products: Products, thresholds: Tensor) -> None:
        device, n = products.x.device, products.n
        self.products = products
        self.thresholds = thresholds.to(device, torch.float64)
        self.positive = torch.zeros(n, dtype=torch.bool, device=device)
        self.firings = torch.zeros(n, dtype=torch.int64, device=device)

    def run(self) -> None:
        p = self.products
        followed = torch.arange(p.n, device=p.x.device)
        for start in range(0, len(p.x), p.chunk):
            if not p.counting:
                followed = followed[self.firings[followed] == 0]
                if not len(followed):
                    return
            x = p.tokens(start, p.chunk)
            pre, error = p.some(x, followed), p.error(x)
            zero = torch.zeros_like(self.thresholds)
            self.positive[followed] |= self._above(x, pre, error, followed, zero) > 0
            self.firings[followed] += self._above(x, pre, error, followed, self.thresholds)

    def _above(
        self, x: Tensor, pre: Tensor, error: Tensor, features: Tensor, levels: Tensor
    ) -> Tensor:
        """On how many tokens each of `features`, the columns of pre, is above its level."""
        level = levels[features].to(pre.dtype)
        # The comparison itself rounds too.
        margin = error[:, None] + 4 * self.products.unit * level
        distance = pre - level
        found = (distance > margin).sum(0)
        row, column = (distance.abs() <= margin).nonzero(as_tuple=True)
        exact = self.products.exact(x, row, features[column])
        above = column[exact > levels[features[column]]]
        return found + torch.bincount(above, minlength=len(features))
