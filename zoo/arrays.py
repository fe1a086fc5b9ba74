"""What array files hold, from their headers alone: .npy, .npz and .safetensors. No torch."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from zoo.errors import BadActivations

ARRAY_SUFFIXES = (".npy", ".npz", ".safetensors")

_SAFETENSORS_DTYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}


@dataclass(frozen=True)
class Header:
    """One array of a file. `key` is its name in the file; None in a .npy, which holds one."""

    key: str | None
    shape: tuple[int, ...]
    dtype: str

    @property
    def is_float(self) -> bool:
        """Whether its numbers are real floating point ones."""
        return self.dtype in _SAFETENSORS_DTYPES.values()


def read_headers(path: Path) -> list[Header]:
    """The arrays of a file, in its order; no array is read.

    Raises:
        BadActivations: the file is broken, cut off, or of no known kind.
    """
    readers = {".npy": _npy, ".npz": _npz, ".safetensors": _safetensors}
    if path.suffix not in readers:
        raise BadActivations(
            f"{path}: no arrays are read from files of that kind",
            f"Known are {', '.join(ARRAY_SUFFIXES)}.",
        )
    try:
        return readers[path.suffix](path)
    except (OSError, EOFError, ValueError, SyntaxError, zipfile.BadZipFile) as error:
        raise BadActivations(
            f"{path} is broken or cut off ({' '.join(str(error).split())[:200]})", "Write it again."
        ) from None


def npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether columns come first, and dtype; leaves `file` at the first number."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


def _npy(path: Path) -> list[Header]:
    with path.open("rb") as file:
        shape, _, dtype = npy_header(file)
        expected = file.tell() + dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    if path.stat().st_size < expected:
        raise ValueError(f"{path.stat().st_size} bytes where its header says {expected}")
    return [Header(None, shape, _name(dtype))]


def _npz(path: Path) -> list[Header]:
    found = []
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.filename.endswith(".npy"):
                with archive.open(member) as file:
                    shape, _, dtype = npy_header(file)
                found.append(Header(member.filename.removesuffix(".npy"), shape, _name(dtype)))
    return found


def _safetensors(path: Path) -> list[Header]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            parts = [(key, file.get_slice(key)) for key in file.keys()]  # noqa: SIM118 (no mapping)
            return [
                Header(
                    key,
                    tuple(part.get_shape()),
                    _SAFETENSORS_DTYPES.get(part.get_dtype(), part.get_dtype()),
                )
                for key, part in parts
            ]
    except SafetensorError as error:
        raise ValueError(str(error)) from None


def _name(dtype: np.dtype) -> str:
    """The dtype's name whatever its byte order; `objects` for what would be unpickled."""
    return "objects" if dtype.hasobject else dtype.newbyteorder("=").name
