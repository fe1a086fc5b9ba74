"""A table of a page: its leading columns, then those that the list of columns gives it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from leaderboard.columns.kinds import Table
from leaderboard.columns.tables import arm_columns
from leaderboard.groups import Group
from leaderboard.markdown.layout import Page, model_link
from leaderboard.markdown.values import BoardRow, cell_text
from leaderboard.page_names import domain_page
from leaderboard.text import NOTHING, escape, link, table


@dataclass(frozen=True)
class Lead:
    """A leading column: it says what a row is about. Words stand to the left, numbers do not.

    where: a table in which no row has anything to say in the column goes without it.
    """

    title: str
    cell: Callable[[BoardRow], str]
    meaning: str | None = None
    words: bool = True
    where: Callable[[BoardRow], bool] = lambda row: True


RANKING = Lead("#", lambda row: row.rank)
MODEL = Lead("Model", lambda row: model_link(row.group))
DOMAIN = Lead("Domain", lambda row: link(escape(row.group.domain), domain_page(row.group.domain)))
DATA = Lead(
    "Data",
    lambda row: row.group.data,
    "whether the model read *real* data, or data that a program *made* so that a run needs no "
    "download; synthetic models are made",
)
LAYER = Lead("Layer", lambda row: str(row.layer), words=False)
PUBLISHED_LAYER = Lead(
    "Published as",
    lambda row: NOTHING if row.published_layer is None else str(row.published_layer),
    "the layer's number in published tables, which may count otherwise",
    words=False,
    where=lambda row: row.published_layer is not None,
)
LAYERS = (LAYER, PUBLISHED_LAYER)
ARM = Lead("Arm", lambda row: escape(row.arm or ""))
COVERAGE = Lead(
    "Layers",
    lambda row: row.group.coverage,
    "layers with a result, of those that the model has",
    words=False,
)


def column_table(page: Page, which: Table, leads: Sequence[Lead], rows: Sequence[BoardRow]) -> str:
    """A table of rows; empty where none of its columns has a number to show."""
    groups = list({id(row.group): row.group for row in rows}.values())
    columns = arm_columns(which, groups)
    if not columns:
        return ""
    leads = [each for each in leads if any(map(each.where, rows))]
    headers = [
        page.term(each.title, each.meaning) if each.meaning else each.title for each in leads
    ]
    headers += [page.head(column, arm) for column, arm in columns]
    body = [
        [
            *(lead.cell(row) for lead in leads),
            *(cell_text(column, page, row, arm or row.arm) for column, arm in columns),
        ]
        for row in rows
    ]
    left = max((place for place, each in enumerate(leads, 1) if each.words), default=1)
    return table(headers, body, left=left)


def model_rows(groups: Sequence[Group]) -> list[BoardRow]:
    """A row per model."""
    return [BoardRow(group) for group in groups]


def layer_rows(groups: Sequence[Group]) -> list[BoardRow]:
    """A row per model and layer."""
    return [BoardRow(group, layer) for group in groups for layer in group.layers]


def arm_rows(group: Group) -> list[BoardRow]:
    """A row per layer and arm of a model."""
    return [BoardRow(group, layer, arm) for layer in group.layers for arm in group.arms]


def ranked_rows(groups: Sequence[Group], number: Callable[[Group], float | None]) -> list[BoardRow]:
    """A row per model by falling number; equal ones share a rank, models without one come last."""
    found = {id(group): number(group) for group in groups}

    def order(group: Group) -> tuple[bool, float, str, str]:
        value = found[id(group)]
        return value is None, -(value or 0.0), group.label, group.key

    rows: list[BoardRow] = []
    for position, group in enumerate(sorted(groups, key=order), 1):
        value = found[id(group)]
        if value is None:
            rank = NOTHING
        elif rows and value == found[id(rows[-1].group)]:
            rank = rows[-1].rank
        else:
            rank = str(position)
        rows.append(BoardRow(group, rank=rank))
    return rows
