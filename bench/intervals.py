"""Intervals: over features (binomial), over seeds (paired bootstrap), over models (Spearman)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 10_000

# A rank correlation of fewer layers, or an interval of fewer models, says nothing.
FEWEST_LAYERS, FEWEST_MODELS = 10, 5


@dataclass(frozen=True)
class Estimate:
    """A value with its interval. What could not be computed is None, and `reason` says why."""

    value: float | None
    low: float | None
    high: float | None
    confidence: float
    method: str
    reason: str | None = None

    def to_dict(self) -> dict[str, float | str | None]:
        return asdict(self)


def binomial_interval(successes: int, trials: int, *, confidence: float = CONFIDENCE) -> Estimate:
    """The share successes / trials with its Wilson (1927) interval."""
    if trials == 0:
        return Estimate(None, None, None, confidence, "wilson", "no trials")
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials")
    share = successes / trials
    low, high = _wilson(successes, trials, confidence)
    return Estimate(share, low, high, confidence, "wilson")


@lru_cache(maxsize=10_000)  # As below: the same shares of the same dictionaries, on every page.
def _wilson(successes: int, trials: int, confidence: float) -> tuple[float, float]:
    # Written out: importing scipy.stats takes longer than a leaderboard.
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, extra = successes / trials, z**2 / trials
    middle = share + extra / 2
    reach = z * math.sqrt(share * (1 - share) / trials + extra / (4 * trials))
    low = 0.0 if successes == 0 else (middle - reach) / (1 + extra)
    high = 1.0 if successes == trials else (middle + reach) / (1 + extra)
    return low, high


def difference(first: Estimate, second: Estimate) -> Estimate:
    """first - second of two shares, with Newcombe's hybrid score interval (1998, method 10).

    From the intervals of the two, taken as independent: too wide rather than too narrow where
    the same features tend to be dead in both. Without both values there is none.
    """
    method, one, other = "Newcombe", _ends(first), _ends(second)
    if one is None or other is None:
        reason = first.reason or second.reason
        return Estimate(None, None, None, first.confidence, method, reason)
    (a, a_low, a_high), (b, b_low, b_high) = one, other
    low, high = a - b - math.hypot(a - a_low, b_high - b), a - b + math.hypot(a_high - a, b - b_low)
    return Estimate(a - b, low, high, first.confidence, method)


def _ends(each: Estimate) -> tuple[float, float, float] | None:
    if each.value is None or each.low is None or each.high is None:
        return None
    return each.value, each.low, each.high


def paired_bootstrap(
    first: Sequence[float],
    second: Sequence[float],
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Mean of first - second over pairs (one per seed), with a percentile bootstrap interval.

    With one pair there is a value and no interval.
    """
    import numpy as np

    if len(first) != len(second):
        raise ValueError(f"pairs differ in number: {len(first)} and {len(second)}")
    method = "paired bootstrap"
    if not len(first):
        return Estimate(None, None, None, confidence, method, "no pairs")
    difference = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    value = float(difference.mean())
    if len(difference) == 1:
        return Estimate(value, None, None, confidence, method, "one seed has no interval")
    low, high = _ends_over_pairs(tuple(difference.tolist()), confidence, resamples, seed)
    return Estimate(value, low, high, confidence, method)


@lru_cache(maxsize=10_000)  # The pages of a domain, a model and the overview ask for the same ones.
def _ends_over_pairs(
    differences: tuple[float, ...], confidence: float, resamples: int, seed: int
) -> tuple[float, float]:
    import numpy as np

    picks, times = _resampled_pairs(len(differences), resamples, seed)
    means = np.repeat(np.array(differences)[picks].mean(axis=1), times)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail], overwrite_input=True)
    return float(low), float(high)


@lru_cache(maxsize=16)
def _resampled_pairs(pairs: int, resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The different resamples of some pairs, a row of indices each, and how often each was drawn.

    Boards ask for thousands of intervals over the same few seeds, of which there are few different
    resamples: 27 of three.
    """
    import numpy as np

    drawn = np.random.default_rng(seed).integers(0, pairs, (resamples, pairs))
    return np.unique(drawn, axis=0, return_counts=True)


def spearman(
    x: Sequence[float],
    y: Sequence[float],
    models: Sequence[str],
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Spearman's rank correlation over layers, ties at their mean rank, with a bootstrap interval.

    models: whose each layer is. The layers of a model are much alike, so that the bootstrap draws
    models, each with all its layers, and not layers (Davison and Hinkley 1997, section 3.8).

    There is no value from fewer than ten layers or from one model, and no interval from fewer than
    five models, or where all resamples agree; `reason` says so. Resamples whose x or y are all
    equal have no correlation and are left out of the interval.
    """
    import numpy as np

    if not len(x) == len(y) == len(models):
        raise ValueError(f"x, y and models differ in length: {len(x)}, {len(y)}, {len(models)}")
    method = "Spearman, percentile bootstrap over models"
    names, model = np.unique(np.asarray(models, dtype=str), return_inverse=True)
    if len(x) < FEWEST_LAYERS:
        return Estimate(None, None, None, confidence, method, "fewer than ten layers")
    if len(names) < 2:
        return Estimate(None, None, None, confidence, method, "layers of one model")
    order_x, order_y = (_Levels(np.asarray(each, dtype=np.float64)) for each in (x, y))
    value = float(_rank_correlation(order_x, order_y, np.ones((1, len(x))))[0])
    if math.isnan(value):
        return Estimate(None, None, None, confidence, method, "all values are equal")
    if len(names) < FEWEST_MODELS:
        return Estimate(value, None, None, confidence, method, "an interval needs five models")
    low, high = _percentiles(
        lambda counts: _rank_correlation(order_x, order_y, counts[:, model]),
        lambda generator, rows: generator.multinomial(
            len(names), np.full(len(names), 1 / len(names)), rows
        ),
        len(x),
        confidence,
        resamples,
        seed,
    )
    if not low < high:
        return Estimate(value, None, None, confidence, method, "every resample gives the same")
    return Estimate(value, low, high, confidence, method)


class _Levels:
    """Numbers of cells in ascending order, and where equal ones begin."""

    def __init__(self, values: np.ndarray) -> None:
        import numpy as np

        self.order = np.argsort(values, kind="stable")
        distinct, self.level = np.unique(values, return_inverse=True)
        self.starts = np.searchsorted(values[self.order], distinct)

    def ranks(self, weights: np.ndarray) -> np.ndarray:
        """Ranks of the cells [resamples, cells] that occur so often each, ties at their mean."""
        import numpy as np

        counts = np.add.reduceat(weights[:, self.order], self.starts, axis=1)
        ranks: np.ndarray = counts.cumsum(axis=1) - (counts - 1) / 2
        return ranks[:, self.level]


def _rank_correlation(x: _Levels, y: _Levels, weights: np.ndarray) -> np.ndarray:
    """Correlation of the ranks of two numbers of cells that occur so often each [resamples, cells],
    NaN where undefined."""
    import numpy as np

    middle = (weights.sum(axis=1, keepdims=True) + 1) / 2
    a, b = (each.ranks(weights) - middle for each in (x, y))
    scale = np.sqrt((weights * a**2).sum(axis=1) * (weights * b**2).sum(axis=1))
    undefined = np.full_like(scale, np.nan)
    return np.divide((weights * a * b).sum(axis=1), scale, out=undefined, where=scale > 0)


def _percentiles(
    statistic: Callable[[np.ndarray], np.ndarray],
    draw: Callable[[np.random.Generator, int], np.ndarray],
    size: int,
    confidence: float,
    resamples: int,
    seed: int,
) -> tuple[float, float]:
    """Percentile bootstrap of a statistic of what `draw` gives of resamples, a row each; `size`
    numbers of a resample are worked on."""
    import numpy as np

    generator = np.random.default_rng(seed)
    batch = max(1, 1_000_000 // size)
    values = np.concatenate(
        [
            statistic(draw(generator, min(batch, resamples - done)))
            for done in range(0, resamples, batch)
        ]
    )
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return float(low), float(high)
