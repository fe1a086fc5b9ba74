"""`.npz`: a zip archive of `.npy` members, stored as they are or deflated."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from zoo.arrays.header import ArrayRows, Header, RowReader, breakage, broken
from zoo.arrays.npy import dtype_name, nbytes, npy_header
from zoo.arrays.zip_arrays import DeflatedArray, MappedArray


class NpzFile:
    """See `zoo.arrays.header.ArrayFile`. Nothing is held open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with zipfile.ZipFile(path) as archive:
            self.headers = [
                _header(path, archive, member)
                for member in archive.infolist()
                if member.filename.endswith(".npy")
            ]

    def array(self, key: str | None) -> RowReader:
        """By rows where that can be; with columns first, or packed otherwise, all at once."""
        name = str(key)
        with breakage(f"{self.path}: {key}"):
            with zipfile.ZipFile(self.path) as archive:
                packing = archive.getinfo(f"{name}.npy").compress_type
            if packing == zipfile.ZIP_STORED:
                return MappedArray(self.path, name)
            if packing == zipfile.ZIP_DEFLATED:
                deflated = DeflatedArray(self.path, name)
                if not deflated.fortran:
                    return deflated
            with np.load(self.path) as arrays:
                return ArrayRows(arrays[name])


def _header(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Header:
    key = member.filename.removesuffix(".npy")
    with breakage(f"{path}: {key}"), archive.open(member) as file:
        shape, _, dtype = npy_header(file)
        declared = file.tell() + nbytes(shape, dtype)
    if declared != member.file_size and not dtype.hasobject:
        raise broken(path, f"{key} says {declared} bytes and has {member.file_size}")
    return Header(key, shape, dtype_name(dtype), member.file_size, member.compress_size)
