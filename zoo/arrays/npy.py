"""`.npy`: one array, mapped where it lies."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np

from zoo.arrays.header import ArrayRows, Header, broken


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
        return ArrayRows(np.load(self.path, mmap_mode="r"))


def npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether columns come first, and dtype; leaves `file` at the first number."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


def nbytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """Bytes of the numbers of an array, which a header may say are more than any machine has."""
    count = dtype.itemsize
    for size in shape:
        count *= size
    return count


def dtype_name(dtype: np.dtype) -> str:
    """The dtype's name whatever its byte order; `objects` for what would be unpickled."""
    return "objects" if dtype.hasobject else dtype.newbyteorder("=").name
