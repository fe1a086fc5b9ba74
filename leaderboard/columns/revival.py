"""Columns about features that were born dead: who revived for good, what chance does, and when."""

from __future__ import annotations

from collections.abc import Callable

from bench.records.schema import FirstFiring, Record, Revival, Training
from leaderboard.columns.kinds import (
    ColumnList,
    EventStep,
    Metric,
    Rate,
    Table,
    Tables,
    by_row,
    each_arm,
    event_step,
    first_arm,
    in_raw,
    metric,
    rate,
    rate_difference,
)
from leaderboard.columns.readers import of_training
from leaderboard.metric_intervals import Counted
from leaderboard.text import percent

REVIVAL_COLUMNS = ColumnList()

ReadRevival = Callable[[Training], Revival | None]


def born_dead(read: ReadRevival, count: Callable[[Revival], int | None]) -> Counted:
    """Features of a kind, of those born dead; older records have none."""

    def counted(record: Record) -> tuple[int, int] | None:
        training = record.result.training if record.result else None
        revival = None if training is None else read(training)
        features = None if revival is None else count(revival)
        return None if revival is None or features is None else (features, revival.born)

    return counted


def _awake_by_chance(revival: Revival) -> int:
    return revival.chance.awake if revival.chance else 0


def never_fired(read: Callable[[Training], FirstFiring]) -> Counted:
    """Features that had not fired by the end of training, of those born dead."""

    def counted(record: Record) -> tuple[int, int] | None:
        training = record.result.training if record.result else None
        if training is None:
            return None
        first = read(training)
        return first.born - first.fired, first.born

    return counted


def _never_by_chance(read: ReadRevival) -> Callable[[Record], float | None]:
    def share(training: Training) -> float | None:
        revival = read(training)
        return revival.chance.never if revival and revival.chance else None

    return of_training(share)


class RevivalColumns:
    """The columns of the features born dead by one path, or by either.

    path: between the words of a title and its unit, empty for either path. of: which features.
    tables: of a column, by its attribute's name here.
    """

    def __init__(
        self,
        path: str,
        of: str,
        revival: ReadRevival,
        first: Callable[[Training], FirstFiring],
        tables: Callable[[str], Tables],
    ) -> None:
        self._path, self._of, self._revival, self._first = path, of, revival, first
        self._tables = tables
        # In the order of the boards.
        self.durable, self.chance, self.beyond = self._revived()
        self.relapsed, self.never, self.never_by_chance = self._lost()
        self.step, self.first = self._times()

    def _title(self, words: str, unit: str = "") -> str:
        return " ".join(part for part in (words, self._path, unit) if part)

    def _revived(self) -> tuple[Rate, Rate, Metric]:
        """Those that revived for good, what chance does, and the difference."""
        durable = born_dead(self._revival, lambda found: found.durable)
        chance = born_dead(self._revival, _awake_by_chance)
        return (
            REVIVAL_COLUMNS.add(
                rate(
                    self._title("Durable", "%"),
                    f"of the features {self._of}, those that revived in training and were alive at "
                    "the end: they fired on one of the last N training tokens and on the frozen "
                    "sample",
                    durable,
                    self._tables("durable"),
                    optional=True,
                    short=("durable", "%"),
                )
            ),
            REVIVAL_COLUMNS.add(
                rate(
                    self._title("Chance", "%"),
                    "what sampling alone shows of the same features, at most: in the same "
                    "dictionary without training, those that fire on one of N fresh training "
                    "tokens",
                    chance,
                    self._tables("chance"),
                    optional=True,
                )
            ),
            REVIVAL_COLUMNS.add(
                rate_difference(
                    self._title("Beyond chance", "%"),
                    "durable minus chance: what training revived at least",
                    durable,
                    chance,
                    self._tables("beyond"),
                    optional=True,
                )
            ),
        )

    def _lost(self) -> tuple[Rate, Rate, Metric]:
        """Those that died again, those that never fired, and how many never would by chance."""
        return (
            REVIVAL_COLUMNS.add(
                rate(
                    self._title("Relapsed", "%"),
                    f"of the features {self._of}, those that fired in training and were silent or "
                    "dead at the end",
                    born_dead(self._revival, lambda found: found.relapsed),
                    self._tables("relapsed"),
                    optional=True,
                )
            ),
            REVIVAL_COLUMNS.add(
                rate(
                    self._title("Never", "%"),
                    f"of the features {self._of}, those that had not fired by the end of training",
                    never_fired(self._first),
                    self._tables("never"),
                )
            ),
            REVIVAL_COLUMNS.add(
                metric(
                    self._title("Never by chance", "%"),
                    "the same features in the same dictionary without training, on as many "
                    "training tokens: counted on the first of them and, if there are more, "
                    "extrapolated; none where that cannot be done well",
                    _never_by_chance(self._revival),
                    self._tables("never_by_chance"),
                    show=percent,
                    optional=True,
                )
            ),
        )

    def _times(self) -> tuple[EventStep, EventStep]:
        """When half of them had revived for good, and when they had first fired."""
        return (
            REVIVAL_COLUMNS.add(
                event_step(
                    self._title("Durable after"),
                    f"step by which half of the features {self._of} had revived durably "
                    "(Kaplan-Meier median over all of them, censored at the end of training, with "
                    "its 95 % interval)",
                    self._revival,
                    self._tables("step"),
                    optional=True,
                )
            ),
            REVIVAL_COLUMNS.add(
                event_step(
                    self._title("First firing"),
                    f"step by which half of the features {self._of} had fired for the first time, "
                    "whatever became of them (Kaplan-Meier median, with its 95 % interval)",
                    self._first,
                    self._tables("first"),
                )
            ),
        )


def _of_either(name: str) -> Tables:
    tables = by_row(Table.WEB_CELLS)
    if name != "never_by_chance":
        tables |= in_raw(Table.DOMAIN_TRAINED)
    if name in ("durable", "relapsed", "never"):
        tables |= by_row(Table.COMPARISON)
    if name == "durable":
        tables |= first_arm(Table.TERMINAL) | each_arm(Table.WEB_MODELS)
    return tables


def _of_path(model_table: Table, domain_table: Table) -> Callable[[str], Tables]:
    def tables(name: str) -> Tables:
        shown = in_raw(domain_table) if name not in ("beyond", "never_by_chance") else {}
        return by_row(model_table) | shown

    return tables


BORN_DEAD = RevivalColumns(
    "",
    "that were dead at initialisation",
    lambda training: training.revival,
    lambda training: training.first_firing,
    _of_either,
)
BY_RELU = RevivalColumns(
    "ReLU",
    "dead by ReLU at initialisation",
    lambda training: training.revival_relu,
    lambda training: training.first_firing_relu,
    _of_path(Table.MODEL_REVIVAL_RELU, Table.DOMAIN_REVIVAL_RELU),
)
BY_TOPK = RevivalColumns(
    "TopK",
    "dead by TopK at initialisation",
    lambda training: training.revival_topk,
    lambda training: training.first_firing_topk,
    _of_path(Table.MODEL_REVIVAL_TOPK, Table.DOMAIN_REVIVAL_TOPK),
)
