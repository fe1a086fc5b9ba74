"""How a cell of each kind of column is written, and what stands where there is no number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch

from bench.intervals import Estimate
from bench.records.schema import Record, TimeToEvent
from leaderboard.columns.kinds import (
    ArmCost,
    Column,
    Dimensions,
    EventStep,
    LargestLayer,
    Metric,
    Saving,
)
from leaderboard.groups import CENTERED, RAW, Group, Spread
from leaderboard.markdown.layout import Page
from leaderboard.metric_intervals import mean_interval, saved_interval
from leaderboard.text import NOTHING, PLUS_MINUS, Show, between, count, escape, integer, percent

NOT_REACHED = "not reached"
MISSING = "missing"


@dataclass(frozen=True)
class BoardRow:
    """What a row of a table is about: a model, one of its layers, or a layer in one arm."""

    group: Group
    layer: int | None = None
    arm: str | None = None
    rank: str = ""

    @property
    def layers(self) -> list[int]:
        """The row's layer, or all layers of the model."""
        return self.group.layers if self.layer is None else [self.layer]

    @property
    def published_layer(self) -> int | None:
        """The layer's number in published tables, if it has one."""
        return None if self.layer is None else self.group.published_layer(self.layer)

    def cells(self, arm: str | None) -> list[Record | None]:
        """The cells of the row's layers (and of an arm), one for each seed."""
        return [cell for layer in self.layers for cell in self.group.at(layer, arm)]


@singledispatch
def cell_text(column: Column, page: Page, row: BoardRow, arm: str | None) -> str:
    """A column's cell in a row, of an arm where one is given; or why there is no number."""
    raise TypeError(f"no way of writing a cell of {type(column).__name__}")


# ---------------------------------------------------------------------------------------- numbers


@cell_text.register
def _metric(column: Metric, page: Page, row: BoardRow, arm: str | None) -> str:
    group, layer = row.group, row.layer
    if layer is None:
        spread = group.over_layers(column.value, arm)
        intervals = [_layer_interval(group, column, each, arm) for each in group.layers]
        interval = mean_interval(each for each in intervals if each is not None)
    else:
        spread = group.at_layer(column.value, layer, arm)
        interval = _layer_interval(group, column, layer, arm)
    if spread is None:
        return absence(page, row.cells(arm))
    text = spread_text(spread, column.show, interval)
    return text if layer is None or arm is None else text + partial(page, row.cells(arm))


@cell_text.register
def _saving(column: Saving, page: Page, row: BoardRow, arm: str | None) -> str:
    rate = column.rate
    spread = row.group.saved(rate.value, row.layers)
    if spread is not None:
        pairs = [row.group.pairs(rate.value, layer) for layer in row.layers]
        return spread_text(spread, column.show, saved_interval(pairs, rate.counted))
    return absence(page, [*row.cells(RAW), *row.cells(CENTERED)])


@cell_text.register
def _price(column: ArmCost, page: Page, row: BoardRow, arm: str | None) -> str:
    known = arm is not None and arm in row.group.arms
    ratio = column.ratio(row.group, row.layers, arm) if known and arm is not None else None
    return NOTHING if ratio is None else column.show(ratio)


@cell_text.register
def _largest_layer(column: LargestLayer, page: Page, row: BoardRow, arm: str | None) -> str:
    """The layer and its number; the first of equals."""
    values = row.group.by_layer(column.of.value, column.arm)
    if not values:
        return NOTHING
    layer = max(values, key=lambda index: (values[index], -index))
    return f"{layer} ({column.of.show(values[layer])})"


@cell_text.register
def _dimensions(column: Dimensions, page: Page, row: BoardRow, arm: str | None) -> str:
    """Those of the first cell that has them: they are the layer's, whatever the arm or seed."""
    if row.layer is None:
        return NOTHING  # A model has none of its own.
    records = row.cells(arm)
    found = (column.read(record) for record in records if record is not None)
    known = next((each for each in found if each is not None), None)
    if known is None:
        return absence(page, records)
    return ", ".join(f"{each.index} ({percent(each.share)})" for each in known[:3]) or NOTHING


def spread_text(spread: Spread, show: Show, interval: Estimate | None = None) -> str:
    """`12.3`, or `12.3 (8.1-17.0)` where mean and range differ as written; `12.3 +-1.1 (...)` with
    an interval, of which the farther end is shown."""
    low, high = show(spread.low), show(spread.high)
    mean = show(spread.mean)
    if interval is not None and interval.low is not None and interval.high is not None:
        reach = max(interval.high - spread.mean, spread.mean - interval.low)
        mean += f" {PLUS_MINUS}{show(reach)}"
    return mean if low == high else f"{mean} ({between(low, high)})"


def _layer_interval(group: Group, metric: Metric, layer: int, arm: str | None) -> Estimate | None:
    """A metric's interval over the features and seeds of a layer (and arm)."""
    if metric.interval is None:
        return None
    # Without an arm it is the layer's number, the same in every arm: one record for each seed.
    records = (record for record in group.at(layer, arm) if record is not None)
    found = {record.spec.seed: record for record in records if metric.value(record) is not None}
    return metric.interval(list(found.values()))


# ----------------------------------------------------------------------------------------- events


@cell_text.register
def _event(column: EventStep, page: Page, row: BoardRow, arm: str | None) -> str:
    records = row.cells(arm)
    found = column.events(records)
    if not found:
        return absence(page, records)
    if row.layer is None:
        return _range(found) if any(each.born for each in found) else NOTHING
    mark = partial(page, records)
    return _event_of_layer(page, found) + mark


def _event_of_layer(page: Page, found: Sequence[TimeToEvent]) -> str:
    """The median step with its interval, or over several seeds its range."""
    if all(each.median_steps is None for each in found):
        reasons = sorted({escape(each.reason or "no reason given") for each in found})
        word = NOT_REACHED if any(each.born for each in found) else NOTHING
        return f"{word}{page.notes.ref(_reasons(reasons))}"
    if len(found) == 1 and found[0].median_steps is not None:
        return f"{integer(found[0].median_steps)}{_interval(page, found[0])}"
    return _range(found)


def _interval(page: Page, found: TimeToEvent) -> str:
    if found.interval is None:
        return page.notes.ref(escape(found.reason)) if found.reason else ""
    low, high = found.interval
    return f" ({between(integer(low), integer(high))})"


def _range(found: Sequence[TimeToEvent]) -> str:
    """A median that was not reached lies beyond every one that was, so no mean is formed."""
    medians = [each.median_steps for each in found if each.median_steps is not None]
    spread = Spread.of(medians)
    if spread is None:
        return NOT_REACHED
    if any(each.median_steps is None and each.born for each in found):
        return between(integer(spread.low), NOT_REACHED)
    return spread_text(spread, integer)


# ---------------------------------------------------------------------------------------- absence


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
