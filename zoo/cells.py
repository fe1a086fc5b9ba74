"""Single cells as Geneformer reads them: the genes of a cell, the most telling one first. No torch.

A cell is its rank value encoding: a list of token ids, one per expressed gene, in the order of
their expression in that cell divided by the gene's median over the training corpus. Geneformer's
own tokenizer writes such lists to a dataset of the `datasets` library, in the column `input_ids`.
Which gene an id stands for is said by a pickle beside the model, which is never read: ids are
enough. Genes by name are refused, and so is what is no whole number from 0 on. Which ids there
are depends on the model, so its adapter (`adapters/cells.py`) checks that.

Format: geneformer/tokenizer.py of the hub's repository ctheodoris/Geneformer.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from zoo.errors import BadCorpus
from zoo.tally import Tally

# Tables that hold lists of numbers.
CELL_SUFFIXES = (".arrow", ".parquet", ".jsonl")

# Ids are kept as numbers of four bytes: as Python's own they would take ten times the memory.
_LARGEST = 2**31 - 1

_BY_NAME = "Give the ids that the model's own tokenizer writes: genes by name are not looked up."


class CellRow(NamedTuple):
    """What a table gives as one cell: where it stands, for messages, and what is there.

    `bad`: why it cannot be read.
    """

    where: str
    ids: Any
    bad: BadCorpus | None = None


def read_cells(rows: Iterable[CellRow], did: Tally) -> list[array[int]]:
    """The cells that rows give; those without a gene are left out, which `did` counts.

    Raises:
        BadCorpus: a row is no list of token ids, and no more may be left out.
    """
    found = []
    for row in rows:
        try:
            if row.bad is not None:
                raise row.bad
            cell = _cell(row)
        except BadCorpus as error:
            did.leave_out(error)
            continue
        if cell:
            found.append(cell)
        else:
            did["cells without genes, left out"] += 1
    return found


def _cell(row: CellRow) -> array[int]:
    if row.ids is None:
        return array("i")
    if not isinstance(row.ids, list):
        raise BadCorpus(
            f"{row.where}: a list of token ids is needed, not {type(row.ids).__name__}", _BY_NAME
        )
    for place, value in enumerate(row.ids, 1):
        # True and False are whole numbers to Python.
        if type(value) is not int or not 0 <= value <= _LARGEST:
            raise BadCorpus(
                f"{row.where}: {json.dumps(value, default=str)[:40]} at position {place} is not a "
                "token id",
                _BY_NAME if isinstance(value, str) else "Ids are whole numbers from 0 on.",
            )
    return array("i", row.ids)


def cell_lines(lines: Iterable[str], file: str, key: str) -> Iterator[CellRow]:
    """What JSON lines hold at a key; `bad` where a line is no object that has the key."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict) and key in found:
            yield CellRow(where, found[key])
        else:
            says = f"{where}: not a JSON object with a list of token ids at the key {key!r}"
            yield CellRow(where, None, BadCorpus(says, "--column names another key."))
