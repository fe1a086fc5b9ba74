"""Tables of text whose first record names the columns: .csv and .tsv. No torch.

Python's csv module divides them, as RFC 4180 says: a cell in quotes may hold separators, line
breaks and doubled quotes. It takes no more lines than a record has, so that a stream knows the byte
each record begins at; pyarrow's reader tells no places, and reads cells of digits as numbers.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from zoo.errors import BadCorpus
from zoo.fasta import SequenceRow
from zoo.table_columns import name_one

SEPARATORS = {".csv": ",", ".tsv": "\t"}

# Characters of a cell. More are a quote that nothing closes.
LONGEST_CELL = 1 << 26

# Characters of a column's name in a message: where there is no header, it is an example.
_SHOWN = 40

_QUOTED = "A cell with separators, line breaks or quotes is written in quotes, its quotes doubled."


class TableHeader(NamedTuple):
    """What the first record says: how many cells a record has, and which of them is meant."""

    width: int
    column: int


def records(lines: Iterable[str], separator: str, where: str) -> Iterator[tuple[int, list[str]]]:
    """The cells of each record that is not blank, with the number of its first line, from 1.

    Raises:
        BadCorpus: quotes are not as they should be. Where the next record begins is then unknown.
    """
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CELL))
    reader = csv.reader(lines, delimiter=separator, strict=True)
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise BadCorpus(f"{where}, line {number}: {error}", _QUOTED) from None
        if cells is None:
            return
        if cells:
            yield number, cells


def header_of(cells: list[str], key: str, file: str) -> TableHeader:
    """Which column is meant.

    Raises:
        BadCorpus: none has that name, or several have.
    """
    if key not in cells:
        names = [ascii(name[:_SHOWN]) for name in cells]
        raise BadCorpus(f"{file} has no column {key!r}", name_one(names, "text"))
    if cells.count(key) > 1:
        raise BadCorpus(f"{file} has several columns {key!r}", "Give each a name of its own.")
    return TableHeader(len(cells), cells.index(key))


def row_of(cells: list[str], header: TableHeader, where: str) -> SequenceRow:
    """The example of a record; `bad` where it has more or fewer cells than the header."""
    if len(cells) == header.width:
        return SequenceRow(where, cells[header.column])
    says = f"{where}: the number of cells is {len(cells)}, and in the header {header.width}"
    return SequenceRow(where, "", bad=BadCorpus(says, _QUOTED))


def delimited_rows(
    lines: Iterable[str], separator: str, file: str, key: str
) -> Iterator[SequenceRow]:
    """The examples of a whole table.

    Raises:
        BadCorpus: it has no such column, or quotes are not as they should be.
    """
    found = records(lines, separator, file)
    for _, cells in found:
        header = header_of(cells, key, file)
        for number, row in found:
            yield row_of(row, header, f"{file}, line {number}")
