"""The formats of array files, by suffix: the one place where a format is added. No torch.

What the table names can be diagnosed (`bench diagnose`), dumped from (`--model dump:FOLDER`) and
put into a card (`adapter: array`). A format is a class as `zoo.arrays.header.ArrayFile` says.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from zoo.arrays.header import ArrayFile, Header, breakage, broken
from zoo.arrays.npy import NpyFile
from zoo.arrays.npz import NpzFile
from zoo.arrays.parquet import ParquetFile
from zoo.arrays.pt import PtFile
from zoo.arrays.safetensors import SafetensorsFile
from zoo.errors import BadActivations
from zoo.files import check_regular


class ArrayFormat(NamedTuple):
    """How files of a suffix are opened, and which `beginnings` they may have; () for any."""

    open: Callable[[Path], ArrayFile]
    kinds: tuple[str, ...] = ()


ARRAY_FORMATS = {
    ".npy": ArrayFormat(NpyFile, (".npy",)),
    ".npz": ArrayFormat(NpzFile, (".npz",)),
    ".safetensors": ArrayFormat(SafetensorsFile, (".safetensors",)),
    ".pt": ArrayFormat(PtFile, (".pt", "pickle")),
    ".pth": ArrayFormat(PtFile, (".pt", "pickle")),
    ".parquet": ArrayFormat(ParquetFile, (".parquet",)),
}


def is_array_file(path: Path) -> bool:
    """Whether the file's name says a format of the table."""
    return path.suffix.lower() in ARRAY_FORMATS


def open_arrays(path: Path) -> ArrayFile:
    """The arrays of a file; no array is read.

    Raises:
        BadActivations: the file is empty, broken, not what its name says, or of no known format.
        MissingExtra: the format needs a package that is not installed.
        OSError: it cannot be read.
    """
    if not is_array_file(path):
        raise BadActivations(
            f"{path}: no arrays are read from files of that kind",
            f"Known are {', '.join(ARRAY_FORMATS)}.",
        )
    form = ARRAY_FORMATS[path.suffix.lower()]
    check_regular(path)
    _check_beginning(path, form.kinds)
    with breakage(path):
        return form.open(path)


def read_headers(path: Path) -> list[Header]:
    """The arrays of a file, in its order; no array is read.

    Raises:
        BadActivations: the file is unreadable, broken, or of no known format.
        MissingExtra: the format needs a package that is not installed.
    """
    try:
        return list(open_arrays(path).headers)
    except OSError as error:
        raise broken(path, error.strerror or error) from None


# ------------------------------------------------------------------------------- beginnings

_SIGNATURES = {
    b"\x93NUMPY": ".npy",
    b"PK": "zip",
    b"PAR1": ".parquet",
    b"\x80": "pickle",
    b"\x89HDF": "HDF5",
    b"\x1f\x8b": "gzip",
}


def beginnings(path: Path) -> list[str]:
    """The kinds of file that begin like this one, the most likely first."""
    with path.open("rb") as file:
        head = file.read(16)
    if not head:
        raise BadActivations(f"{path} is empty")
    kinds = [kind for magic, kind in _SIGNATURES.items() if head.startswith(magic)]
    if head[8:9] == b"{":
        # A header's length comes first, eight bytes that may happen to be a signature.
        return [*kinds, ".safetensors"]
    if kinds == ["zip"]:
        with breakage(path), zipfile.ZipFile(path) as archive:
            pickled = any(name.endswith("data.pkl") for name in archive.namelist())
        return [".pt" if pickled else ".npz"]
    return kinds


def _check_beginning(path: Path, allowed: tuple[str, ...]) -> None:
    if not allowed:
        return
    found = beginnings(path)
    if not set(found) & set(allowed):
        looks = f"it looks like {found[0]}" if found else "it begins like no format that is known"
        raise BadActivations(
            f"{path} is not a {path.suffix.lower()} file: {looks}", "Check where it is from."
        )
