"""When features that were born dead fire first: survival analysis of feature death.

A feature that was dead at birth is a subject; its first firing in training is the event; a feature
that has not fired when training ends is censored there. Product-limit estimate: Kaplan and Meier
(1958). Interval of the median: Brookmeyer and Crowley (1982), from the log-log interval of the
survival function.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import CensoredData, ecdf
from torch import Tensor

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Revival:
    """Revival of one group of features; times in training steps.

    born: features of the group, all dead at birth. revived: those that fired by the end.
    median_steps: the Kaplan-Meier median; None where it was not reached, and `reason` says so.
    interval: of the median, 95 %; None where its upper end was not reached.
    """

    born: int
    revived: int
    median_steps: float | None
    interval: tuple[float, float] | None
    reason: str | None

    @property
    def never_share(self) -> float | None:
        """Share that had not fired by the end; None where none was born dead."""
        return (self.born - self.revived) / self.born if self.born else None

    def in_tokens(self, batch: int) -> tuple[float | None, tuple[float, float] | None]:
        """Median and interval in tokens, for batches of `batch` tokens."""
        median = None if self.median_steps is None else self.median_steps * batch
        if self.interval is None:
            return median, None
        return median, (self.interval[0] * batch, self.interval[1] * batch)

    def to_dict(self) -> dict[str, object]:
        """The fields, JSON-able."""
        return asdict(self)


def survival(first_fired: Tensor, born_dead: Tensor, steps: int) -> Revival:
    """Revival of the features `born_dead` (bool [n]) in `steps` steps of training.

    first_fired: int64 [n], the step of each feature's first firing, -1 where there was none.
    """
    times = first_fired.cpu().numpy()[born_dead.cpu().numpy()]
    if not len(times):
        return Revival(0, 0, None, None, "no feature was born dead by this path")
    revived = times[times >= 0]
    curve = _Curve(revived, np.full(len(times) - len(revived), steps))
    median = curve.first_at_or_below(curve.survival)
    interval = curve.median_interval()
    reason = None
    if median is None:
        reason = f"fewer than half of {len(times)} fired within {steps} steps"
    elif interval is None:
        reason = f"the median's upper limit was not reached within {steps} steps"
    return Revival(len(times), len(revived), median, interval, reason)


def survival_curve(
    first_fired: Tensor, born_dead: Tensor, steps: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Times (steps, increasing) and the share still dead after each; both empty if none was born.

    The last time is the end of training where some never fired.
    """
    times = first_fired.cpu().numpy()[born_dead.cpu().numpy()]
    if not len(times):
        return np.empty(0), np.empty(0)
    revived = times[times >= 0]
    curve = _Curve(revived, np.full(len(times) - len(revived), steps))
    return curve.times, curve.survival


class _Curve:
    """The product-limit estimate of the share still dead."""

    def __init__(self, fired: NDArray[np.int64], censored: NDArray[np.int64]) -> None:
        data = CensoredData(uncensored=fired.astype(float), right=censored.astype(float))
        self._estimate = ecdf(data).sf
        self.times = np.asarray(self._estimate.quantiles, dtype=float)
        self.survival = np.asarray(self._estimate.probabilities, dtype=float)

    def first_at_or_below(self, share: NDArray[np.float64], level: float = 0.5) -> float | None:
        """The first time at which `share`, given per time, is at or below the level."""
        reached = np.flatnonzero(share <= level + 1e-12)
        return float(self.times[reached[0]]) if len(reached) else None

    def median_interval(self) -> tuple[float, float] | None:
        """The times at which the lower and the upper limit of the survival pass one half."""
        # Where nobody or everybody has fired yet the interval is undefined (0 / 0): no width.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            band: Any = self._estimate.confidence_interval(CONFIDENCE, method="log-log")
        low = np.asarray(band.low.probabilities, dtype=float)
        high = np.asarray(band.high.probabilities, dtype=float)
        low, high = (np.where(np.isnan(side), self.survival, side) for side in (low, high))
        first, last = self.first_at_or_below(low), self.first_at_or_below(high)
        return None if first is None or last is None else (first, last)


PATHS = ("alive", "topk", "relu")


def transitions(
    born: tuple[Tensor, Tensor], end: tuple[Tensor, Tensor]
) -> dict[str, dict[str, int]]:
    """How many features went from each state at birth to each state at the end.

    born, end: (dead-by-ReLU, dead-by-TopK), bool [n], of two censuses on the same tokens. The
    states are `alive`, `topk`, `relu`; `alive -> topk` and `alive -> relu` are later deaths, and
    `topk -> relu` is the collateral damage of staying unselected.
    """
    before, after = (_states(*pair) for pair in (born, end))
    return {
        start: {stop: int(((before == i) & (after == j)).sum()) for j, stop in enumerate(PATHS)}
        for i, start in enumerate(PATHS)
    }


def _states(dead_relu: Tensor, dead_topk: Tensor) -> NDArray[np.int64]:
    return (dead_topk.long() + 2 * dead_relu.long()).cpu().numpy()
