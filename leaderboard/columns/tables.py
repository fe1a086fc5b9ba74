"""Which columns a table has, in which order, and of which arms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from leaderboard.columns import activations, death, revival, training
from leaderboard.columns.activations import EFFECTIVE_RANK, GAMMA
from leaderboard.columns.death import (
    DUE_TO_MEAN,
    DUE_TO_NEITHER,
    DUE_TO_SPECTRUM,
    END,
    INIT,
    INIT_RELU,
    INIT_TOPK,
)
from leaderboard.columns.kinds import Column, ColumnList, Table
from leaderboard.columns.revival import BORN_DEAD
from leaderboard.columns.training import FVU, MEMORY, SAVED_END, SAVED_INIT, STEP_TIME
from leaderboard.groups import RAW, Group, arms_of

COLUMNS = ColumnList(
    [
        *activations.ACTIVATION_COLUMNS,
        *death.DEATH_COLUMNS,
        *revival.REVIVAL_COLUMNS,
        *training.TRAINING_COLUMNS,
    ]
)

# Where a table does not follow the order of the list: what comes first.
_FIRST: dict[Table, tuple[Column, ...]] = {
    Table.BY_DEATH: (
        INIT,
        DUE_TO_MEAN,
        DUE_TO_SPECTRUM,
        DUE_TO_NEITHER,
        INIT_RELU,
        INIT_TOPK,
    ),
    Table.BY_SAVING: (SAVED_INIT, INIT, SAVED_END, END),
}

# In these tables a row tells a story: how far the mean dominates, who is born dead, why, what
# centering leaves, who is dead at the end, who revived, at which error and at which price. Other
# columns follow.
_STORY_TABLES = (Table.DOMAIN_INIT, Table.MODEL_LAYERS, Table.WEB_MODELS)
_BORN = (GAMMA, EFFECTIVE_RANK, INIT, DUE_TO_MEAN, DUE_TO_SPECTRUM, DUE_TO_NEITHER)
_LATER = (END, BORN_DEAD.durable, FVU, STEP_TIME, MEMORY)


def _place_in_story(each: ArmColumn) -> int:
    if each.column is INIT and each.arm not in (RAW, None):
        return len(_BORN)  # what centering and other arms leave follows the causes
    if each.column in _BORN:
        return _BORN.index(each.column)
    if each.column in _LATER:
        return len(_BORN) + 1 + _LATER.index(each.column)
    return len(_BORN) + 1 + len(_LATER)


class ArmColumn(NamedTuple):
    """A column of one table, with the arm that its header names; None where it names none."""

    column: Column
    arm: str | None


def columns_of(table: Table, groups: Sequence[Group] | None = None) -> list[Column]:
    """The columns of a table in order; of groups, optional ones only if a cell has the number."""
    first = _FIRST.get(table, ())
    found = [each for each in COLUMNS if table in each.tables]
    found.sort(key=lambda each: first.index(each) if each in first else len(first))
    if groups is None:
        return found
    return [each for each in found if not each.optional or each.is_known(groups)]


def arm_columns(
    table: Table, groups: Sequence[Group], arms: Sequence[str] | None = None
) -> list[ArmColumn]:
    """The columns of a table of groups, each once for every arm it shows there.

    arms: of the table; all arms of the groups where none are given.
    """
    every = arms_of(groups) if arms is None else arms
    found = [
        ArmColumn(column, arm)
        for column in columns_of(table, groups)
        for arm in column.tables[table](every)
    ]
    return sorted(found, key=_place_in_story) if table in _STORY_TABLES else found
