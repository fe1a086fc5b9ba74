"""95 % intervals of what the boards show: over features, over seeds, and of means over layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import fsum
from statistics import fmean

from bench.intervals import (
    CONFIDENCE,
    Estimate,
    binomial_interval,
    difference,
    paired_bootstrap,
)
from bench.records.schema import Record

# Features counted, and of how many; None where the record has no such numbers.
Counted = Callable[[Record], tuple[int, int] | None]
Pairs = Sequence[tuple[Record, Record]]


def share_interval(counted: Counted, records: Iterable[Record]) -> Estimate | None:
    """A share's binomial interval over the features of all seeds; None where none were counted."""
    found = [each for record in records if (each := counted(record)) is not None]
    features = sum(of for _, of in found)
    return binomial_interval(sum(some for some, _ in found), features) if features else None


def difference_interval(first: Counted, second: Counted, pairs: Pairs) -> Estimate | None:
    """The first record's share minus the second's, one pair for each seed, both counted.

    With several seeds a paired bootstrap over them; with one, Newcombe's interval over features.
    """
    if len(pairs) > 1:
        shares = [(_share(first, a), _share(second, b)) for a, b in pairs]
        return paired_bootstrap([a for a, _ in shares], [b for _, b in shares])
    ends = [(share_interval(first, [a]), share_interval(second, [b])) for a, b in pairs]
    known = [(a, b) for a, b in ends if a is not None and b is not None]
    return difference(*known[0]) if known else None


def saved_interval(layers: Sequence[Pairs], counted: Counted) -> Estimate | None:
    """Of the mean over layers of raw minus centered; `layers` are pairs, one for each seed.

    With several seeds a paired bootstrap over the seeds' means; with one, over features.
    """
    layers = [pairs for pairs in layers if pairs]
    seeds = [{raw.spec.seed: (raw, cured) for raw, cured in pairs} for pairs in layers]
    shared = sorted(set.intersection(*(set(each) for each in seeds))) if seeds else []
    if len(shared) < 2:
        return mean_interval(difference_interval(counted, counted, pairs) for pairs in layers)
    raw, cured = (
        [fmean(_share(counted, each[seed][side]) for each in seeds) for seed in shared]
        for side in (0, 1)
    )
    return paired_bootstrap(raw, cured)


def mean_interval(estimates: Iterable[Estimate | None]) -> Estimate | None:
    """Of the mean of several shares, whatever their dependence: the means of the ends.

    Layers of one model share their tokens and their directions, so that their errors do not
    cancel; a mean's error is at most the mean of the errors. None unless all are known.
    """
    found = list(estimates)
    ends = [
        (each.value, each.low, each.high)
        for each in found
        if each is not None
        and each.value is not None
        and each.low is not None
        and each.high is not None
    ]
    if not ends or len(ends) < len(found):
        return None
    value, low, high = (fsum(column) / len(ends) for column in zip(*ends, strict=True))
    return Estimate(value, low, high, CONFIDENCE, "means of the ends")


def _share(counted: Counted, record: Record) -> float:
    found = counted(record)
    assert found is not None
    return found[0] / found[1]
