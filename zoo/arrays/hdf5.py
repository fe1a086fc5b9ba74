"""`.h5`, `.hdf5`: named datasets, in groups or not, of which only the rows asked for are read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.arrays.header import Header, broken
from zoo.arrays.npy import dtype_name
from zoo.errors import MissingExtra
from zoo.install import install_line


class Hdf5File:
    """See `zoo.arrays.header.ArrayFile`. A dataset's key is its path in the file.

    Links to other files, and datasets whose numbers lie in other files, are left out.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.headers: list[Header] = []
        h5py = _h5py()
        with _opened(path) as file:
            # Follows no link that is soft or leads out of the file.
            file.visititems(
                lambda name, found: self._add(name, found, isinstance(found, h5py.Dataset))
            )

    def _add(self, name: str, found: Any, is_dataset: bool) -> None:
        if is_dataset and found.shape is not None and not found.external and not found.is_virtual:
            # What was never written takes no place, and is read as one filler.
            packed = max(1, found.id.get_storage_size())
            shape = tuple(map(int, found.shape))
            nbytes = math.prod(shape) * found.dtype.itemsize
            self.headers.append(Header(name, shape, dtype_name(found.dtype), nbytes, packed))

    def array(self, key: str | None) -> Hdf5Array:
        """By rows; with more axes than two, by those slices of the first that hold them."""
        (header,) = (header for header in self.headers if header.key == key)
        return Hdf5Array(self.path, header)


@dataclass(frozen=True)
class Hdf5Array:
    """The rows of a dataset. The file is opened for each reading."""

    path: Path
    header: Header

    def rows(self, start: int, stop: int) -> np.ndarray:
        """See `zoo.arrays.header.RowReader`."""
        *axes, width = self.header.shape
        each = math.prod(axes[1:])  # rows of a slice of the first axis
        first, last = start // each, -(-stop // each)
        with _opened(self.path) as file:
            found: np.ndarray = file[self.header.key][first:last]
        return found.reshape(-1, width)[start - first * each : stop - first * each]


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise MissingExtra(
            "reading .h5 needs the package h5py, which is not installed",
            install_line("hdf5"),
        ) from None
    return h5py


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    h5py = _h5py()
    try:
        with h5py.File(path, "r") as file:
            yield file
    # h5py raises RuntimeError and KeyError too for files whose insides are damaged.
    except (OSError, RuntimeError, KeyError) as error:
        raise broken(path, error) from None
