"""`.parquet`: a column of lists or tensors of floats, or one float column per dimension."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from zoo.arrays.columns import arrow_breakage, column_headers, pyarrow, token_matrix

# Elements decoded at a time.
_BATCH = 1 << 20


class ParquetFile:
    """See `zoo.arrays.header.ArrayFile`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with arrow_breakage(path):
            file = _opened(path)

            def first(name: str) -> Any:
                (batch, *_) = file.iter_batches(batch_size=1, columns=[name])
                return batch.column(0)[0].as_py()

            self.headers = column_headers(
                file.schema_arrow,
                file.metadata.num_rows,
                first,
                lambda name: sum(_values(file, name)),
            )

    def array(self, key: str | None) -> ParquetArray:
        """Decoded as it is read, in order; each step back costs a group of rows."""
        (header,) = (header for header in self.headers if header.key == key)
        return ParquetArray(self.path, key, header.shape[1])


class ParquetArray:
    """The rows of some columns. Rows that follow those read before are decoded once."""

    def __init__(self, path: Path, column: str | None, width: int) -> None:
        self.path = path
        self.width = width
        self._columns = None if column is None else [column]
        with arrow_breakage(path):
            self._file = _opened(path)
            groups = self._file.metadata
            self._records = [groups.row_group(i).num_rows for i in range(groups.num_row_groups)]
        tokens = self._records
        if column is not None:
            tokens = [values // width for values in _values(self._file, column)]
        # The first token of each group, and the end.
        self._starts = np.cumsum([0, *tokens])
        # What is decoded now, the number of its first token, and what comes after it.
        self._decoded = np.empty((0, width))
        self._at = 0
        self._ahead = self._batches(0)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """See `zoo.arrays.header.RowReader`."""
        group = int(np.searchsorted(self._starts, start, side="right")) - 1
        if start < self._at or self._starts[group] > self._at + len(self._decoded):
            self._seek(group)
        parts = []
        while start < stop:
            end = self._at + len(self._decoded)
            if start >= end:
                self._at = end
                self._decoded = next(self._ahead)
                continue
            parts.append(self._decoded[start - self._at : stop - self._at])
            start = min(stop, end)
        return np.concatenate(parts)

    def _seek(self, group: int) -> None:
        self._decoded = np.empty((0, self.width))
        self._at = int(self._starts[group])
        self._ahead = self._batches(group)

    def _batches(self, group: int) -> Iterator[np.ndarray]:
        """The tokens from a group on, each batch as [tokens, width]."""
        per_row = self._starts[-1] / max(1, sum(self._records))
        rows = max(1, int(_BATCH / (self.width * max(1, per_row))))
        groups = list(range(group, len(self._records)))
        with arrow_breakage(self.path):
            for batch in self._file.iter_batches(rows, groups, self._columns):
                yield token_matrix(self.path, batch, self.width)


def _opened(path: Path) -> Any:
    pyarrow()
    import pyarrow.parquet as pq

    return pq.ParquetFile(path)


def _values(file: Any, column: str) -> list[int]:
    """How many numbers a column of lists holds, by group of rows."""
    groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    (place,) = (
        i
        for i in range(file.metadata.num_columns)
        if file.schema.column(i).path.split(".list.")[0] == column
        or file.schema.column(i).path == column
    )
    return [group.column(place).num_values for group in groups]
