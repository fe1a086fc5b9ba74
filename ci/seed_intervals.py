"""95 % intervals over seeds that stay where their numbers live, and what they say of a bound.

Student's t, on a scale where that is safe: shares as angles asin sqrt(share), so that an interval
stays in [0, 1]; ratios as logarithms, so that it stays above 0. One seed has no interval.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from scipy.stats import t as student

Verdict = Literal["yes", "no", "open", "not measured"]


class Interval(NamedTuple):
    """A mean over seeds with the ends of its interval; None where there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def text(self, show: Callable[[float], str]) -> str:
        """`mean [low, high]`, `-` where nothing is known."""
        if self.value is None:
            return "-"
        if self.low is None or self.high is None:
            return show(self.value)
        return f"{show(self.value)} [{show(self.low)}, {show(self.high)}]"

    def over(self, bound: float, *, clear: float | None = None) -> Verdict:
        """Whether it lies above the bound: no where it lies below `clear`, the bound if unsaid."""
        if self.value is None:
            return "not measured"
        if self.low is None or self.high is None:
            return "open"
        if self.low > bound:
            return "yes"
        return "no" if self.high < (bound if clear is None else clear) else "open"

    def under(self, bound: float, *, clear: float | None = None) -> Verdict:
        """Whether it lies below the bound: no where it lies above `clear`, the bound if unsaid."""
        ends = (self.value, self.high, self.low)
        turned = Interval(*(None if end is None else -end for end in ends))
        return turned.over(-bound, clear=None if clear is None else -clear)


def of_shares(values: Sequence[float | None]) -> Interval:
    """The mean of shares in [0, 1]; none unless every seed has one.

    Raises:
        ValueError: one is no share.
    """
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not known:
        return Interval(None)
    if not all(0 <= value <= 1 for value in known):
        raise ValueError(f"a share is not in [0, 1]: {known}")
    mean = statistics.fmean(known)
    ends = _student([math.asin(math.sqrt(value)) for value in known])
    if ends is None:
        return Interval(mean)
    low, high = (math.sin(min(max(end, 0.0), math.pi / 2)) ** 2 for end in ends)
    return Interval(mean, min(low, mean), max(high, mean))


def of_differences(first: Sequence[float | None], second: Sequence[float | None]) -> Interval:
    """The mean of first - second, paired by seed."""
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    if len(pairs) < len(first) or not pairs:
        return Interval(None)
    differences = [a - b for a, b in pairs]
    return Interval(statistics.fmean(differences), *(_student(differences) or (None, None)))


def of_ratios(first: Sequence[float | None], second: Sequence[float | None]) -> Interval:
    """The geometric mean of first / second, paired by seed; none unless all are above 0."""
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    if len(pairs) < len(first) or not pairs or min(min(pair) for pair in pairs) <= 0:
        return Interval(None)
    logs = [math.log(a / b) for a, b in pairs]
    ends = _student(logs)
    mean = math.exp(statistics.fmean(logs))
    return Interval(mean) if ends is None else Interval(mean, *map(math.exp, ends))


def of_numbers(values: Sequence[float | None]) -> Interval:
    """The mean of numbers without ends."""
    return of_differences(values, [0.0] * len(values))


def all_or_none(held: Sequence[bool]) -> Verdict:
    """Whether something held in every seed; no where it held in none."""
    if not held:
        return "not measured"
    return "yes" if all(held) else "open" if any(held) else "no"


def _student(values: Sequence[float]) -> tuple[float, float] | None:
    if len(values) < 2:
        return None
    reach = student.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    mean = statistics.fmean(values)
    return mean - float(reach), mean + float(reach)
