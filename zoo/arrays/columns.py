"""Columns of Arrow tables, in `.parquet` and `.arrow` files, as [tokens, width].

A column of lists holds a token per row; one of lists of lists (`Array2D` of the datasets library,
residues of a protein) a sequence per row. The innermost lists are the tokens: all of one length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from zoo.arrays.header import Header, broken
from zoo.errors import BadActivations, MissingExtra
from zoo.install import install_line


def column_headers(
    schema: Any, rows: int, first: Callable[[str], Any], values: Callable[[str], int]
) -> list[Header]:
    """The arrays of a table: one without a name where all columns are floats, a dimension each.

    first: the first row of a column. values: how many numbers a column holds.
    """
    pa = pyarrow()
    floats = [field for field in schema if pa.types.is_floating(field.type)]
    if floats and len(floats) == len(schema):
        wide = np.result_type(*(field.type.to_pandas_dtype() for field in floats))
        return [Header(None, (rows, len(floats)), wide.name)]
    found = []
    for field in schema:
        kind, depth = field.type, 0
        if isinstance(kind, pa.FixedShapeTensorType):
            width, kind = int(kind.shape[-1]), kind.value_type
        else:
            while _is_list(kind):
                kind, depth = kind.value_type, depth + 1
            if not depth:
                continue
            width = _innermost(first(field.name) if rows else None, depth)
        tokens = values(field.name) // width if width else 0
        found.append(Header(field.name, (tokens, width), _dtype_name(kind)))
    return found


def token_matrix(path: Path, batch: Any, width: int) -> np.ndarray:
    """The columns of a batch of rows, or the innermost lists of its only one, as [tokens, width].

    Raises:
        BadActivations: a number is missing, or tokens are not all so wide.
    """
    columns = [getattr(column, "storage", column) for column in batch.columns]
    if not _is_list(columns[0].type):
        for column in columns:
            _check_present(path, column)
        return np.stack([c.to_numpy(zero_copy_only=False) for c in columns], axis=1)
    (column,) = columns
    is_tensor = hasattr(batch.column(0), "storage")  # its shape is the column's
    lists = column
    while _is_list(column.type):
        _check_present(path, column)
        lists, column = column, column.flatten()
    _check_present(path, column)
    if not is_tensor and not _all_of_length(lists, width):
        raise BadActivations(f"{path}: its rows are not all {width} wide")
    values: np.ndarray = column.to_numpy(zero_copy_only=False)
    return values.reshape(-1, width)


def pyarrow(suffix: str = ".parquet") -> Any:
    """The package. Raises `MissingExtra` where it is not installed."""
    try:
        import pyarrow as pa
    except ImportError:
        raise MissingExtra(
            f"reading {suffix} needs the package pyarrow, which is not installed",
            install_line("parquet"),
        ) from None
    return pa


@contextmanager
def arrow_breakage(path: Path) -> Iterator[None]:
    """Raises what pyarrow raises for a broken file as `broken`."""
    pa = pyarrow()
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise broken(path, error) from None


def _is_list(kind: Any) -> bool:
    pa = pyarrow()
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in tests)


def _innermost(row: Any, depth: int) -> int:
    """The length of the first innermost list; those of others are checked when they are read."""
    for _ in range(depth - 1):
        row = row[0] if row else None
    return len(row) if row else 0


def _all_of_length(lists: Any, width: int) -> bool:
    import pyarrow.compute as pc

    lengths = pc.list_value_length(lists)
    return not len(lengths) or bool(pc.all(pc.equal(lengths, width)).as_py())


def _check_present(path: Path, column: Any) -> None:
    if column.null_count:
        raise BadActivations(f"{path} has missing values", "Every token needs every dimension.")


def _dtype_name(kind: Any) -> str:
    pa = pyarrow()
    number = pa.types.is_floating(kind) or pa.types.is_integer(kind)
    return np.dtype(kind.to_pandas_dtype()).name if number else str(kind)
