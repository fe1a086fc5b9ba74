"""Reads markdown tables back, as GitHub does: cells are split at pipes that are not escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import leaderboard
from bench.records.schema import Record

_PIPE = re.compile(r"(?<!\\)\|")
_LINK = re.compile(r"\[([^\]]*)\]\(([^)]*)\)")


@dataclass(frozen=True)
class Table:
    """One table: the heading it stands below, its headers, and its rows."""

    heading: str
    headers: list[str]
    rows: list[list[str]]

    def column(self, header: str) -> list[str]:
        return [row[self.headers.index(header)] for row in self.rows]

    def row(self, **where: str) -> dict[str, str]:
        """The only row whose cells begin with the values given (links read as their labels)."""
        found = [
            dict(zip(self.headers, row, strict=True))
            for row in self.rows
            if all(label(row[self.headers.index(key)]) == value for key, value in where.items())
        ]
        assert len(found) == 1, (where, self)
        return found[0]


def render(records: Iterable[Record]) -> dict[str, str]:
    """The markdown pages of records."""
    return {
        name: text for name, text in leaderboard.render(records).items() if name.endswith(".md")
    }


def tables(markdown: str) -> list[Table]:
    """Every table of a page, each checked to have the same number of cells in all its lines."""
    found: list[Table] = []
    heading = ""
    block: list[str] = []
    for line in [*markdown.splitlines(), ""]:
        if line.startswith("#"):
            heading = line.lstrip("# ")
        if line.startswith("|"):
            block.append(line)
        elif block:
            found.append(_table(heading, block))
            block = []
    return found


def table(markdown: str, heading: str, index: int = 0) -> Table:
    """The table below a heading; the `index`-th where several sections have such a one."""
    return [each for each in tables(markdown) if each.heading == heading][index]


def label(cell: str) -> str:
    """A cell's text, links replaced by their labels."""
    return _LINK.sub(r"\1", cell)


def links(markdown: str) -> list[str]:
    """The targets of all links."""
    return [target for _, target in _LINK.findall(markdown)]


def mean(cell: str) -> float:
    """The number that a cell begins with."""
    return float(cell.split()[0].split("[^")[0].replace(",", ""))


def _table(heading: str, lines: list[str]) -> Table:
    cells = [_cells(line) for line in lines]
    widths = {len(row) for row in cells}
    assert len(widths) == 1, f"ragged table below {heading!r}: {widths}"
    assert len(cells) >= 3, f"table below {heading!r} has no rows"
    assert all(re.fullmatch(r":?-+:?", rule) for rule in cells[1]), cells[1]
    return Table(heading, cells[0], cells[2:])


def _cells(line: str) -> list[str]:
    parts = _PIPE.split(line)
    assert parts[0] == parts[-1] == "", line
    return [part.strip() for part in parts[1:-1]]
