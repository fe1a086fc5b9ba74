"""Intervals: over features (binomial), over seeds (paired bootstrap), over cells (Spearman)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 10_000


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
    low, high = _percentiles(
        lambda pick: difference[pick].mean(axis=1), len(difference), confidence, resamples, seed
    )
    return Estimate(value, low, high, confidence, method)


def spearman(
    x: Sequence[float],
    y: Sequence[float],
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Spearman's rank correlation over cells, ties at their mean rank, with a bootstrap interval.

    Resamples whose x or y are all equal have no correlation and are left out of the interval.
    """
    import numpy as np

    if len(x) != len(y):
        raise ValueError(f"x and y differ in length: {len(x)} and {len(y)}")
    method = "Spearman, percentile bootstrap"
    if len(x) < 3:
        return Estimate(None, None, None, confidence, method, "fewer than three cells")
    cells = np.arange(len(x))[None]
    levels = [np.unique(np.asarray(each), return_inverse=True)[1] for each in (x, y)]
    value = float(_rank_correlation(levels, cells)[0])
    if math.isnan(value):
        return Estimate(None, None, None, confidence, method, "all values are equal")
    low, high = _percentiles(
        lambda pick: _rank_correlation(levels, pick), len(x), confidence, resamples, seed
    )
    return Estimate(value, low, high, confidence, method)


def _rank_correlation(levels: Sequence[np.ndarray], pick: np.ndarray) -> np.ndarray:
    """Correlation of the ranks of two numbers of the cells picked [resamples, cells], NaN where
    undefined. `levels`: for each number the cells' places among its distinct values."""
    import numpy as np

    a, b = (_ranks(level, pick) - (pick.shape[1] + 1) / 2 for level in levels)
    scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    undefined = np.full_like(scale, np.nan)
    return np.divide((a * b).sum(axis=1), scale, out=undefined, where=scale > 0)


def _ranks(level: np.ndarray, pick: np.ndarray) -> np.ndarray:
    """Ranks within each row of `pick`, ties at their mean: by counting, for levels sort nothing."""
    import numpy as np

    resamples, distinct = len(pick), int(level.max()) + 1
    found = level[pick]
    places = found + distinct * np.arange(resamples)[:, None]
    counts = np.bincount(places.ravel(), minlength=resamples * distinct)
    counts = counts.reshape(resamples, distinct)
    ranks: np.ndarray = counts.cumsum(axis=1) - (counts - 1) / 2
    return np.take_along_axis(ranks, found, axis=1)


def _percentiles(
    statistic: Callable[[np.ndarray], np.ndarray],
    size: int,
    confidence: float,
    resamples: int,
    seed: int,
) -> tuple[float, float]:
    """Percentile bootstrap of a statistic of picked indices [resamples, size]."""
    import numpy as np

    generator = np.random.default_rng(seed)
    batch = max(1, 1_000_000 // size)
    values = np.concatenate(
        [
            statistic(generator.integers(0, size, (min(batch, resamples - done), size)))
            for done in range(0, resamples, batch)
        ]
    )
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return float(low), float(high)
