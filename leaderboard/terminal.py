"""The short table that a run ends with: plain text of at most 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from bench.records.schema import Record
from leaderboard.columns.kinds import Column, Table
from leaderboard.columns.tables import ArmColumn, arm_columns
from leaderboard.findings import plain_sentences
from leaderboard.groups import (
    CENTERED,
    RAW,
    Group,
    arms_of,
    by_setting,
    group_records,
    sizes_as_run,
)
from leaderboard.text import plain

_WIDTH = 100
_ABSENT = "-"


def _two_arms(groups: list[Group]) -> tuple[str, str]:
    """Raw and centered, unless one of them was not run and another arm was."""
    there = arms_of(groups)
    found = [arm for arm in (RAW, CENTERED) if arm in there]
    found += [arm for arm in there if arm not in found]
    found += [arm for arm in (RAW, CENTERED) if arm not in found]
    return found[0], found[1]


def summary(records: Iterable[Record], *, told: bool = True, width: int = _WIDTH) -> str:
    """A row per model, a table per setting; at most 100 columns and free of control characters.

    told: what the records say, in sentences, comes first (`leaderboard.findings`).
    width: columns of the sentences and titles; a table is as wide as it is.

    Raises:
        BadRecord: two records claim to be the same cell and differ.
    """
    sections = by_setting(group_records(records))
    if not sections:
        return "No records."
    return "\n\n".join(_section(groups, told, width) for groups in sections.values())


def _section(groups: list[Group], told: bool, width: int) -> str:
    from tabulate import tabulate

    arms = _two_arms(groups)
    columns = arm_columns(Table.TERMINAL, groups, arms)
    headers = table_headers(columns)
    rows = [_row(group, columns) for group in groups]
    numbers = [max(map(len, column)) for column in list(zip(*headers, *rows, strict=True))[1:]]
    room = _WIDTH - sum(numbers) - 2 * len(numbers)
    for row in rows:
        row[0] = plain(row[0], max(room, 10))
    text = tabulate(
        [*headers, *rows],
        tablefmt="plain",
        colalign=["left"] + ["right"] * (len(headers[0]) - 1),
        disable_numparse=True,
    )
    first, second, *body = (line.rstrip() for line in text.splitlines())
    rule = "-" * max(len(line) for line in (first, second, *body))
    found = plain_sentences(groups, width) if told else []
    lines = [
        *found,
        *([""] if found else []),
        *wrapped(table_title(groups[0]), width),
        first,
        second,
        rule,
        *body,
    ]
    if more := [arm for arm in arms_of(groups) if arm not in arms]:
        lines += wrapped(f"not shown here: {', '.join(plain(arm, 20) for arm in more)}", width)
    return "\n".join(line[:_WIDTH] for line in lines)


def table_title(group: Group) -> str:
    found = sizes_as_run(group.spec)
    sizes = ", ".join(f"{key} {found[key]:,}" for key in ("n", "k", "N"))
    title = f"{plain(group.setting.name, 50)}: {sizes}; means over layers"
    if group.spec.limit is None:
        return title
    return f"{title}; LIMITED to {group.spec.limit:,} tokens"


def wrapped(text: str, width: int) -> list[str]:
    """Lines of a title, the second and later ones indented."""
    return textwrap.wrap(text, width, subsequent_indent="  ", break_on_hyphens=False)


def table_headers(columns: Sequence[ArmColumn]) -> tuple[list[str], list[str]]:
    """Two rows: what a column is, and of which arm."""
    upper, lower = ["", "", "cells"], ["model", "data", "done"]
    for column, arm in columns:
        first, second = column.short or (column.title, column.title)
        of_column = [each.arm for each in columns if each.column is column]
        if arm is None:
            upper.append("")
            lower.append(column.title)
        elif len(of_column) == 1:
            upper.append(first)
            lower.append(f"{plain(arm, 8)}, {second}")
        else:
            upper.append(first if arm == of_column[0] else second)
            lower.append(plain(arm, 8))
    return upper, lower


def _row(group: Group, columns: Sequence[ArmColumn]) -> list[str]:
    done = len(group.records) - len(group.failed)
    cells = [_text(column, group, arm) for column, arm in columns]
    return [group.label, group.data, f"{done}/{len(group.cells)}", *cells]


def _text(column: Column, group: Group, arm: str | None) -> str:
    value = column.of_model(group, arm)
    return _ABSENT if value is None else column.show(value)
