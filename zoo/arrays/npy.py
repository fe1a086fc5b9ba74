"""`.npy`: one array, mapped where it lies."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np

from zoo.arrays.header import ArrayRows, Header, breakage, broken

_VERSIONS = ((1, 0), (2, 0), (3, 0))


class NpyFile:
    """See `zoo.arrays.header.ArrayFile`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            shape, _, dtype = npy_header(file)
            expected = file.tell() + nbytes(shape, dtype)
        found = path.stat().st_size
        if found < expected and not dtype.hasobject:
            raise broken(path, f"{found} bytes where its header says {expected}")
        self.headers = [Header(None, shape, dtype_name(dtype))]

    def array(self, key: str | None) -> ArrayRows:
        """Mapped: only the rows that are used are read."""
        with breakage(self.path):
            return ArrayRows(np.load(self.path, mmap_mode="r"))


def npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether columns come first, and dtype; leaves `file` at the first number.

    Raises:
        ValueError: the header is none, or no array has such a shape.
    """
    version = np.lib.format.read_magic(file)
    if version not in _VERSIONS:
        raise ValueError(f"version {version} of the format is not known")
    # Version 3 is version 2 with names in UTF-8, which only fields of a record have.
    first = version == (1, 0)
    read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if any(type(size) is not int or size < 0 for size in shape):
        raise ValueError(f"no array has the shape {str(shape)[:100]}")
    return shape, fortran, dtype


def nbytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """Bytes of the numbers of an array, which a header may say are more than any machine has."""
    count = dtype.itemsize
    for size in shape:
        count *= size
    return count


def dtype_name(dtype: np.dtype) -> str:
    """The dtype's name whatever its byte order; `objects` for what would be unpickled."""
    return "objects" if dtype.hasobject else dtype.newbyteorder("=").name
