"""How a number of a layer or of a model is written, and what stands where there is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bench.intervals import Estimate
from bench.records.schema import Record, Revival
from leaderboard.groups import Group, Spread
from leaderboard.markdown.layout import Page
from leaderboard.metric_intervals import mean_interval
from leaderboard.metrics import Metric, RevivalMetric
from leaderboard.text import NOTHING, PLUS_MINUS, Show, between, count, escape, integer

NOT_REACHED = "not reached"
MISSING = "missing"


def spread_text(spread: Spread, show: Show, interval: Estimate | None = None) -> str:
    """`12.3`, or `12.3 (8.1-17.0)` where mean and range differ as written; `12.3 +-1.1 (...)` with
    an interval, of which the farther end is shown."""
    low, high = show(spread.low), show(spread.high)
    mean = show(spread.mean)
    if interval is not None and interval.low is not None and interval.high is not None:
        reach = max(interval.high - spread.mean, spread.mean - interval.low)
        mean += f" {PLUS_MINUS}{show(reach)}"
    return mean if low == high else f"{mean} ({between(low, high)})"


def layer_value(page: Page, group: Group, metric: Metric, layer: int, arm: str | None) -> str:
    """A metric of one layer (and arm) over its seeds, or why there is none."""
    records = group.at(layer, arm)
    spread = group.at_layer(metric.value, layer, arm)
    if spread is None:
        return absence(page, records)
    return spread_text(spread, metric.show, layer_interval(group, metric, layer, arm)) + (
        partial(page, records) if arm else ""
    )


def group_value(page: Page, group: Group, metric: Metric, arm: str | None = None) -> str:
    """A metric of a model over its layers, or why there is none."""
    spread = group.over_layers(metric.value, arm)
    if spread is None:
        return absence(page, [cell for layer in group.layers for cell in group.at(layer, arm)])
    intervals = (layer_interval(group, metric, layer, arm) for layer in group.layers)
    known = [each for each in intervals if each is not None]
    return spread_text(spread, metric.show, mean_interval(known))


def layer_interval(group: Group, metric: Metric, layer: int, arm: str | None) -> Estimate | None:
    """A metric's interval over the features and seeds of a layer (and arm)."""
    if metric.interval is None:
        return None
    # Without an arm it is the layer's number, the same in every arm: one record for each seed.
    records = (record for record in group.at(layer, arm) if record is not None)
    found = {record.spec.seed: record for record in records if metric.value(record) is not None}
    return metric.interval(list(found.values()))


def absence(page: Page, records: Sequence[Record | None]) -> str:
    """What stands for a number that none of these cells has."""
    if mark := failures(page, records):
        return f"failed{mark}"
    if records and all(record is None for record in records):
        return MISSING
    return NOTHING


def failures(page: Page, records: Sequence[Record | None]) -> str:
    """The mark of a footnote with the reasons of failed cells; empty where none failed."""
    reasons = {escape(str(record.failure)) for record in records if record and record.failure}
    return page.notes.ref(_reasons(sorted(reasons))) if reasons else ""


def partial(page: Page, records: Sequence[Record | None]) -> str:
    """A footnote's mark where some of a row's seeds have no result; empty where all have one."""
    missing = sum(record is None for record in records)
    failed = [record.failure for record in records if record and record.failure]
    if not missing and not failed:
        return ""
    parts = [f"{len(failed)} failed"] if failed else []
    parts += [f"{missing} missing"] if missing else []
    reasons = sorted({escape(str(failure)) for failure in failed})
    text = f"of {count(len(records), 'seed')}, {' and '.join(parts)}"
    return page.notes.ref(f"{text}: {_reasons(reasons)}" if reasons else text)


def _reasons(reasons: Sequence[str]) -> str:
    more = f" (and {count(len(reasons) - 3, 'other reason')})" if len(reasons) > 3 else ""
    return "; ".join(reasons[:3]) + more


def layer_revival(page: Page, group: Group, metric: RevivalMetric, layer: int, arm: str) -> str:
    """The median revival step of a layer: with its interval, or over several seeds its range."""
    records = group.at(layer, arm)
    found = [each for record in records if record and (each := metric.of(record)) is not None]
    if not found:
        return absence(page, records)
    medians = [each.median_steps for each in found if each.median_steps is not None]
    mark = partial(page, records)
    if not medians:
        reasons = sorted({escape(each.reason or "no reason given") for each in found})
        word = NOT_REACHED if any(each.born for each in found) else NOTHING
        return f"{word}{page.notes.ref(_reasons(reasons))}{mark}"
    if len(found) == 1:
        return f"{integer(medians[0])}{_interval(page, found[0])}{mark}"
    unreached = [each for each in found if each.median_steps is None and each.born]
    return _range(medians, unreached) + mark


def _interval(page: Page, revival: Revival) -> str:
    if revival.interval is None:
        return page.notes.ref(escape(revival.reason)) if revival.reason else ""
    low, high = revival.interval
    return f" ({between(integer(low), integer(high))})"


def group_revival(page: Page, group: Group, metric: RevivalMetric, arm: str) -> str:
    """The range of a model's median revival steps over layers and seeds."""
    records = [cell for layer in group.layers for cell in group.at(layer, arm)]
    found = [each for record in records if record and (each := metric.of(record)) is not None]
    born = [each for each in found if each.born]
    if not found:
        return absence(page, records)
    if not born:
        return NOTHING
    medians = [each.median_steps for each in born if each.median_steps is not None]
    return _range(medians, [each for each in born if each.median_steps is None])


def _range(medians: Sequence[float], unreached: Sequence[Any]) -> str:
    """A median that was not reached lies beyond every one that was, so no mean is formed."""
    if not medians:
        return NOT_REACHED
    if unreached:
        return between(integer(min(medians)), NOT_REACHED)
    spread = Spread.of(medians)
    assert spread is not None
    return spread_text(spread, integer)


# --------------------------------------------------------------------------------------- ranking

Rank = Callable[[Group], float | None]


def ranked(groups: Sequence[Group], value: Rank) -> list[tuple[str, Group]]:
    """Groups by falling value with their rank; equal values share one, groups without come last."""
    found = {id(group): value(group) for group in groups}

    def order(group: Group) -> tuple[bool, float, str, str]:
        worth = found[id(group)]
        return worth is None, -(worth or 0.0), group.label, group.key

    ordered = sorted(groups, key=order)
    ranks: list[tuple[str, Group]] = []
    for position, group in enumerate(ordered):
        worth = found[id(group)]
        if worth is None:
            rank = NOTHING
        elif position and worth == found[id(ordered[position - 1])]:
            rank = ranks[-1][0]
        else:
            rank = str(position + 1)
        ranks.append((rank, group))
    return ranks


def worst_layer(group: Group, metric: Metric, arm: str | None) -> str:
    """The layer where a metric is largest, the first of equals."""
    values = group.by_layer(metric.value, arm)
    if not values:
        return NOTHING
    layer = max(values, key=lambda index: (values[index], -index))
    return f"{layer} ({metric.show(values[layer])})"


def measured_layers(group: Group) -> str:
    """`3 of 12`: layers with a result, of those that the model has."""
    done = {record.spec.layer for record in group.records if record.status == "ok"}
    return f"{len(done)} of {group.depth}"
