"""`.arrow`: tables as the datasets library saves them, mapped.

`Dataset.save_to_disk` writes them, and with it the CacheActivationsRunner of SAELens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from zoo.arrays.columns import arrow_breakage, column_headers, pyarrow, token_matrix


class ArrowFile:
    """See `zoo.arrays.header.ArrayFile`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        table = _table(path)
        with arrow_breakage(path):
            self.headers = column_headers(
                table.schema,
                table.num_rows,
                lambda name: table.column(name)[0].as_py(),
                lambda name: sum(map(_values, table.column(name).chunks)),
            )

    def array(self, key: str | None) -> ArrowArray:
        """Mapped: only the pages that are used are read."""
        (header,) = (header for header in self.headers if header.key == key)
        return ArrowArray(self.path, key, header.shape[1])


class ArrowArray:
    """The rows of some columns."""

    def __init__(self, path: Path, column: str | None, width: int) -> None:
        self.path = path
        self.width = width
        table = _table(path)
        self._batches = (table if column is None else table.select([column])).to_batches()
        tokens = [
            batch.num_rows if column is None else _values(batch.column(0)) // width
            for batch in self._batches
        ]
        # The first token of each batch, and the end.
        self._starts = np.cumsum([0, *tokens])

    def rows(self, start: int, stop: int) -> np.ndarray:
        """See `zoo.arrays.header.RowReader`."""
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        last = int(np.searchsorted(self._starts, stop, side="left"))
        parts = []
        for number in range(first, last):
            begin = int(self._starts[number])
            with arrow_breakage(self.path):
                whole = token_matrix(self.path, self._batches[number], self.width)
            parts.append(whole[max(0, start - begin) : stop - begin])
        return np.concatenate(parts)


def _table(path: Path) -> Any:
    """All of the file as a table; its numbers stay on disk until they are used."""
    pa = pyarrow(".arrow")
    with arrow_breakage(path):
        source = pa.memory_map(str(path))
        if source.read(6) == b"ARROW1":
            return pa.ipc.open_file(source).read_all()
        source.seek(0)
        return pa.ipc.open_stream(source).read_all()


def _values(array: Any) -> int:
    """How many numbers an array of lists holds."""
    array = getattr(array, "storage", array)
    while hasattr(array, "flatten") and hasattr(array.type, "value_type"):
        array = array.flatten()
    return len(array)
