"""`.parquet`: a column of lists of floats, or one float column per dimension."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from zoo.arrays.header import Header, broken
from zoo.errors import BadActivations, MissingExtra

# Elements decoded at a time.
_BATCH = 1 << 20


class ParquetFile:
    """See `zoo.arrays.header.ArrayFile`."""

    def __init__(self, path: Path) -> None:
        pa, pq = _pyarrow()
        self.path = path
        with _breakage(path):
            file = pq.ParquetFile(path)
        schema, tokens = file.schema_arrow, file.metadata.num_rows
        floats = [field for field in schema if pa.types.is_floating(field.type)]
        if floats and len(floats) == len(schema):
            wide = np.result_type(*(field.type.to_pandas_dtype() for field in floats))
            self.headers = [Header(None, (tokens, len(floats)), wide.name)]
        else:
            self.headers = [
                Header(field.name, (tokens, *shape), dtype)
                for field in schema
                for shape, dtype in _rows_of(path, file, field)
            ]

    def array(self, key: str | None) -> ParquetArray:
        """Decoded as it is read, in order; each step back costs a group of rows."""
        (header,) = (header for header in self.headers if header.key == key)
        return ParquetArray(self.path, key, header.shape[1])


class ParquetArray:
    """The rows of some columns. Rows that follow those read before are decoded once."""

    def __init__(self, path: Path, column: str | None, width: int) -> None:
        _, pq = _pyarrow()
        self.path = path
        self.width = width
        self._columns = None if column is None else [column]
        with _breakage(path):
            self._file = pq.ParquetFile(path)
            groups = self._file.metadata
            sizes = [groups.row_group(i).num_rows for i in range(groups.num_row_groups)]
        # The first row of each group, and the end.
        self._starts = np.cumsum([0, *sizes])
        # What is decoded now, the number of its first row, and what comes after it.
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
        """The rows from a group on, each batch as [rows, width]."""
        rows, groups = max(1, _BATCH // self.width), range(group, len(self._starts) - 1)
        with _breakage(self.path):
            for batch in self._file.iter_batches(rows, list(groups), self._columns):
                yield _matrix(self.path, batch, self.width)


def _matrix(path: Path, batch: Any, width: int) -> np.ndarray:
    """A batch of rows as [rows, width]."""
    if any(column.null_count for column in batch.columns):
        raise BadActivations(f"{path} has missing values", "Every token needs every dimension.")
    column = batch.column(0)
    if batch.num_columns > 1 or not hasattr(column.type, "value_type"):
        return np.stack([c.to_numpy(zero_copy_only=False) for c in batch.columns], axis=1)
    column = getattr(column, "storage", column)  # of a tensor, its lists
    values = column.flatten().to_numpy(zero_copy_only=False)
    if values.size != batch.num_rows * width:
        raise BadActivations(f"{path}: its rows are not all {width} wide")
    return values.reshape(batch.num_rows, width)


def _rows_of(path: Path, file: Any, field: Any) -> Iterator[tuple[tuple[int, ...], str]]:
    """Shape and dtype of a column's rows, where they are lists or tensors of numbers; else none."""
    pa, _ = _pyarrow()
    kind = field.type
    if isinstance(kind, pa.FixedShapeTensorType):
        yield tuple(kind.shape), _dtype_name(kind.value_type)
        return
    depth = 0
    while _is_list(kind):
        kind, depth = kind.value_type, depth + 1
    if depth:
        yield _list_shape(path, file, field.name, depth), _dtype_name(kind)


def _is_list(kind: Any) -> bool:
    pa, _ = _pyarrow()
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in tests)


def _list_shape(path: Path, file: Any, column: str, depth: int) -> tuple[int, ...]:
    """The lengths of the column's first lists, outer first; others are checked when read."""
    row: Any = None
    with _breakage(path):
        for batch in file.iter_batches(batch_size=1, columns=[column]):
            row = batch.column(0)[0].as_py()
            break
    lengths = []
    for _ in range(depth):
        lengths.append(len(row) if row else 0)
        row = row[0] if row else None
    return tuple(lengths)


def _dtype_name(kind: Any) -> str:
    pa, _ = _pyarrow()
    number = pa.types.is_floating(kind) or pa.types.is_integer(kind)
    return np.dtype(kind.to_pandas_dtype()).name if number else str(kind)


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtra(
            "reading .parquet needs the package pyarrow, which is not installed",
            'pip install "gammabench[parquet]"',
        ) from None
    return pa, pq


@contextmanager
def _breakage(path: Path) -> Iterator[None]:
    pa, _ = _pyarrow()
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise broken(path, error) from None
