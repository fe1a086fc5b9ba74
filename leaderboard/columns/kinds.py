"""What a column is: its title, its meaning, the number it shows, and the tables it stands in.

How a cell is written is said once for each kind of column: for markdown in
`leaderboard/markdown/values.py`, for the terminal in `leaderboard/terminal.py`. The web page takes
the numbers as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TypeVar

from bench.intervals import Estimate
from bench.records.schema import OutlierDimension, Record, TimeToEvent, Training
from leaderboard.columns.readers import of_training, share
from leaderboard.groups import CENTERED, RAW, Group, Value
from leaderboard.metric_intervals import Counted, difference_interval, share_interval
from leaderboard.text import Show, integer, number, percent


class Table(Enum):
    """The tables that are made of columns."""

    # The overview: a row per model, ranked.
    BY_GAMMA = auto()
    BY_DEATH = auto()
    BY_SAVING = auto()
    # A domain's page: a row per model, then the same columns in a row per layer.
    DOMAIN_INIT = auto()
    DOMAIN_TRAINED = auto()
    # A domain's page: a row per model.
    DOMAIN_REVIVAL_RELU = auto()
    DOMAIN_REVIVAL_TOPK = auto()
    # The same on a domain's page (a row per model) and on a model's page (a row per layer).
    ATTRIBUTION = auto()
    # A model's page: a row per layer.
    MODEL_LAYERS = auto()
    MODEL_ACTIVATIONS = auto()
    MODEL_SPECIAL_TOKENS = auto()
    # A model's page: a row per layer and arm.
    MODEL_DEATH = auto()
    MODEL_REVIVAL_RELU = auto()
    MODEL_REVIVAL_TOPK = auto()
    MODEL_TRAINING = auto()
    # The web page: a row per model, and a row per cell.
    WEB_MODELS = auto()
    WEB_CELLS = auto()
    # What a run ends with: a row per model.
    TERMINAL = auto()
    # `bench compare`: a row per arm and column.
    COMPARISON = auto()


# ------------------------------------------------------------------------------------------- arms

# The arms of which a column stands in a table, given all arms there; None is no arm in particular.
ArmRule = Callable[[Sequence[str]], Sequence[str | None]]
Tables = dict[Table, ArmRule]


def by_row(*tables: Table) -> Tables:
    """One column: of the row's arm; where rows have none, of the layer, whatever the arm."""
    return dict.fromkeys(tables, lambda arms: (None,))


def in_raw(*tables: Table) -> Tables:
    """One column, of the raw arm."""
    return dict.fromkeys(tables, lambda arms: (RAW,))


def raw_and_centered(*tables: Table) -> Tables:
    """A column for raw and one for centered, whether they were run or not."""
    return dict.fromkeys(tables, lambda arms: (RAW, CENTERED))


def every_arm(*tables: Table) -> Tables:
    """A column for raw and one for centered, whether they were run or not, and for each other."""
    return dict.fromkeys(
        tables, lambda arms: (RAW, CENTERED, *(a for a in arms if a not in (RAW, CENTERED)))
    )


def beside_raw(*tables: Table) -> Tables:
    """A column for each arm of the table but raw, which it is compared with."""
    return dict.fromkeys(tables, lambda arms: [arm for arm in arms if arm != RAW])


def each_arm(*tables: Table) -> Tables:
    """A column for each arm of the table."""
    return dict.fromkeys(tables, lambda arms: arms)


def first_arm(*tables: Table) -> Tables:
    """One column, of the table's first arm."""
    return dict.fromkeys(tables, lambda arms: arms[:1])


# ------------------------------------------------------------------------------------------ kinds


def _no_number(record: Record) -> float | None:
    return None


@dataclass(frozen=True, eq=False, kw_only=True)
class Column:
    """What all kinds of columns have.

    value: the number of a cell; None where the cell has none, and `meaning` says when that is.
    show: how the number is written.
    tables: where the column stands, and of which arms.
    optional: whether it is left out of a table where no cell has the number.
    short: in the terminal, the words above the columns of two arms, or above and in that of one.
    """

    title: str
    meaning: str
    tables: Mapping[Table, ArmRule] = field(default_factory=dict)
    value: Value = _no_number
    show: Show = number
    optional: bool = False
    short: tuple[str, str] | None = None

    def of_model(self, group: Group, arm: str | None = None) -> float | None:
        """The number of a model: the mean over layers of the means over seeds."""
        spread = group.over_layers(self.value, arm)
        return None if spread is None else spread.mean

    def is_known(self, groups: Sequence[Group]) -> bool:
        """Whether any cell of the groups has the number."""
        return any(self.value(record) is not None for group in groups for record in group.records)


@dataclass(frozen=True, eq=False, kw_only=True)
class Metric(Column):
    """A number of a cell, and perhaps its interval.

    interval: of the mean over records of one layer and arm, one for each seed.
    """

    interval: Callable[[Sequence[Record]], Estimate | None] | None = None


def metric(
    title: str,
    meaning: str,
    value: Value,
    tables: Tables,
    *,
    show: Show = number,
    optional: bool = False,
    short: tuple[str, str] | None = None,
) -> Metric:
    """A number without an interval."""
    return Metric(
        title=title,
        meaning=meaning,
        value=value,
        tables=tables,
        show=show,
        optional=optional,
        short=short,
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class Rate(Metric):
    """A share of features that were counted, with its interval over features."""

    counted: Counted


def rate(
    title: str,
    meaning: str,
    counted: Counted,
    tables: Tables,
    *,
    optional: bool = False,
    short: tuple[str, str] | None = None,
) -> Rate:
    """The share of counted features, in percent."""
    return Rate(
        title=title,
        meaning=meaning,
        tables=tables,
        value=share(counted),
        show=percent,
        interval=lambda records: share_interval(counted, records),
        counted=counted,
        optional=optional,
        short=short,
    )


def rate_difference(
    title: str,
    meaning: str,
    first: Counted,
    second: Counted,
    tables: Tables,
    *,
    optional: bool = False,
) -> Metric:
    """One share of a record minus another of the same record, in points of percent."""

    def value(record: Record) -> float | None:
        one, other = first(record), second(record)
        return (one[0] - other[0]) / one[1] if one and other and one[1] else None

    def interval(records: Sequence[Record]) -> Estimate | None:
        pairs = [(record, record) for record in records if value(record) is not None]
        return difference_interval(first, second, pairs)

    return Metric(
        title=title,
        meaning=meaning,
        tables=tables,
        value=value,
        show=percent,
        interval=interval,
        optional=optional,
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class EventStep(Column):
    """The median step of an event. Where a cell did not reach it, there is no mean over cells."""

    read: Callable[[Training], TimeToEvent | None]

    def events(self, records: Iterable[Record | None]) -> list[TimeToEvent]:
        """Of the cells that were trained; older records may have none."""
        trained = (each.result.training for each in records if each is not None and each.result)
        found = (self.read(training) for training in trained if training is not None)
        return [each for each in found if each is not None]

    def of_model(self, group: Group, arm: str | None = None) -> float | None:
        """The mean over layers; None where a cell with features born dead did not reach it."""
        found = self.events(cell for layer in group.layers for cell in group.at(layer, arm))
        if any(each.born and each.median_steps is None for each in found):
            return None
        return super().of_model(group, arm)


def event_step(
    title: str,
    meaning: str,
    read: Callable[[Training], TimeToEvent | None],
    tables: Tables,
    *,
    optional: bool = False,
) -> EventStep:
    """The Kaplan-Meier median of an event, in steps."""

    def median(training: Training) -> float | None:
        found = read(training)
        return None if found is None else found.median_steps

    return EventStep(
        title=title,
        meaning=meaning,
        tables=tables,
        value=of_training(median),
        show=integer,
        optional=optional,
        read=read,
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class Saving(Column):
    """What centering saves: a rate in the raw arm minus that in the centered one, paired."""

    rate: Rate

    def of_model(self, group: Group, arm: str | None = None) -> float | None:
        """The mean over layers of the mean over pairs of one seed."""
        spread = group.saved(self.rate.value)
        return None if spread is None else spread.mean


@dataclass(frozen=True, eq=False, kw_only=True)
class ArmCost(Column):
    """What an arm costs over what raw costs: a ratio of layers, not a number of a cell."""

    ratio: Callable[[Group, Sequence[int], str], float | None]

    def of_model(self, group: Group, arm: str | None = None) -> float | None:
        """Of the median layer."""
        if arm is None or arm not in group.arms:
            return None
        return self.ratio(group, group.layers, arm)

    def is_known(self, groups: Sequence[Group]) -> bool:
        """Whether any arm but raw has it."""
        return any(
            self.of_model(group, arm) is not None
            for group in groups
            for arm in group.arms
            if arm != RAW
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class LargestLayer(Column):
    """The layer of a model where the ranked column is largest."""

    title: str = "Max layer"
    meaning: str = "the layer where the ranked number is largest, with the number"
    of: Column
    arm: str | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Dimensions(Column):
    """The dimensions that carry most of a layer's mean."""

    read: Callable[[Record], tuple[OutlierDimension, ...] | None]


# ------------------------------------------------------------------------------------------- list

AnyColumn = TypeVar("AnyColumn", bound=Column)


class ColumnList(list[Column]):
    """Columns in the order of every table."""

    def add(self, column: AnyColumn) -> AnyColumn:
        """Appends a column and gives it back, so that it can have a name."""
        self.append(column)
        return column
