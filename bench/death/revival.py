"""What becomes of features that are born dead: who revives for good, and when.

At the end of training a feature that was dead at birth is one of three:

- *durable*: it has fired, and is neither silent (`bench.death.firings`) nor dead on the frozen
  sample;
- *relapsed*: it has fired, and is silent or dead on the frozen sample again;
- *never fired*: on no training token.

Times are those of survival analysis. A feature born dead is a subject. The event is its last
revival, where that is durable, or its first firing; a feature without the event is censored at the
end of training. Product-limit estimate: Kaplan and Meier (1958). Interval of the median: Brookmeyer
and Crowley (1982), from the log-log interval of the survival function.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.stats import CensoredData, ecdf
from torch import Tensor

from bench.death.firings import NEVER, FiringClock
from bench.intervals import CONFIDENCE


class FateMasks(NamedTuple):
    """What became of features that were born dead: disjoint masks, bool [n], on the CPU."""

    durable: Tensor
    relapsed: Tensor
    never: Tensor

    def counts(self) -> dict[str, int]:
        """The numbers of features, by name."""
        return {name: int(mask.sum()) for name, mask in self._asdict().items()}


def fates(clock: FiringClock, born_dead: Tensor, dead: Tensor, steps: int) -> FateMasks:
    """Of the features `born_dead` after `steps` steps, where `dead` are dead on the frozen sample.

    born_dead, dead: bool [n], on the CPU.
    """
    fired = clock.fired.cpu()
    gone = dead | clock.silent(steps).cpu()
    return FateMasks(born_dead & fired & ~gone, born_dead & fired & gone, born_dead & ~fired)


def durable_times(clock: FiringClock, found: FateMasks) -> Tensor:
    """int64 [n], the step of each feature's durable revival; -1 where there was none."""
    return clock.last_revived.cpu().masked_fill(~found.durable, NEVER)


@dataclass(frozen=True)
class Survival:
    """When an event came to one group of features; times in training steps.

    born: features of the group, all dead at birth. events: those that the event came to.
    median_steps: the Kaplan-Meier median; None where it was not reached, and `reason` says so.
    interval: of the median, 95 %; None where its upper end was not reached.
    """

    born: int
    events: int
    median_steps: float | None
    interval: tuple[float, float] | None
    reason: str | None

    def in_tokens(self, batch: int) -> tuple[float | None, tuple[float, float] | None]:
        """Median and interval in tokens, for batches of `batch` tokens."""
        median = None if self.median_steps is None else self.median_steps * batch
        if self.interval is None:
            return median, None
        return median, (self.interval[0] * batch, self.interval[1] * batch)

    def to_dict(self) -> dict[str, object]:
        """The fields, JSON-able."""
        return asdict(self)


def survival(times: Tensor, born_dead: Tensor, steps: int, event: str = "fired") -> Survival:
    """The features `born_dead` (bool [n]) until the event, in `steps` steps of training.

    times: int64 [n], the step of each feature's event, -1 where there was none. event: what a
    reason calls it.
    """
    known = times.cpu().numpy()[born_dead.cpu().numpy()]
    if not len(known):
        return Survival(0, 0, None, None, "no feature was born dead by this path")
    curve = _Curve.of(known, steps)
    median = curve.first_at_or_below(curve.survival)
    interval = curve.median_interval()
    reason = None
    if median is None:
        reason = f"fewer than half of {len(known)} {event} within {steps} steps"
    elif interval is None:
        reason = f"the median's upper limit was not reached within {steps} steps"
    return Survival(len(known), int((known >= 0).sum()), median, interval, reason)


def survival_curve(
    times: Tensor, born_dead: Tensor, steps: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Times (steps, increasing) and the share without the event after each, both [times]; empty
    if none was born dead. The last time is the end of training where some are without it.

    times: int64 [n], -1 where there was no event. born_dead: bool [n].
    """
    known = times.cpu().numpy()[born_dead.cpu().numpy()]
    if not len(known):
        return np.empty(0), np.empty(0)
    curve = _Curve.of(known, steps)
    return curve.times, curve.survival


class _Curve:
    """The product-limit estimate of the share that is still without the event."""

    @classmethod
    def of(cls, times: NDArray[np.int64], steps: int) -> Self:
        """Of event times, -1 where there was none by the end."""
        seen = times[times >= 0]
        return cls(seen, np.full(len(times) - len(seen), steps))

    def __init__(self, seen: NDArray[np.int64], censored: NDArray[np.int64]) -> None:
        data = CensoredData(uncensored=seen.astype(float), right=censored.astype(float))
        self._estimate = ecdf(data).sf
        self.times = np.asarray(self._estimate.quantiles, dtype=float)
        self.survival = np.asarray(self._estimate.probabilities, dtype=float)

    def first_at_or_below(self, share: NDArray[np.float64], level: float = 0.5) -> float | None:
        """The first time at which `share`, given per time, is at or below the level."""
        reached = np.flatnonzero(share <= level + 1e-12)
        return float(self.times[reached[0]]) if len(reached) else None

    def median_interval(self) -> tuple[float, float] | None:
        """The times at which the lower and the upper limit of the survival pass one half."""
        # Before any event and after all of them the interval is undefined (0 / 0): no width.
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
