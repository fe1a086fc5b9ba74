"""The formats of array files, by suffix: the one place where a format is added. No torch.

What the table names can be diagnosed (`bench diagnose`), dumped from (`--model dump:FOLDER`) and
put into a card (`adapter: array`). A format is a class as `zoo.arrays.header.ArrayFile` says.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from zoo.arrays.arrow import ArrowFile
from zoo.arrays.hdf5 import Hdf5File
from zoo.arrays.header import ArrayFile, Header, breakage, broken
from zoo.arrays.npy import NpyFile
from zoo.arrays.npz import NpzFile
from zoo.arrays.parquet import ParquetFile
from zoo.arrays.pt import PtFile
from zoo.arrays.saev_shards import NAMES, SaevShard
from zoo.arrays.safetensors import SafetensorsFile
from zoo.errors import BadActivations
from zoo.files import check_regular


class ArrayFormat(NamedTuple):
    """How files of a suffix are opened.

    kinds: which `beginnings` they may have; () for any.
    names: a glob of their names, where others of that suffix are something else.
    """

    open: Callable[[Path], ArrayFile]
    kinds: tuple[str, ...] = ()
    names: str = "*"


ARRAY_FORMATS = {
    ".npy": ArrayFormat(NpyFile, (".npy",)),
    ".npz": ArrayFormat(NpzFile, (".npz",)),
    ".safetensors": ArrayFormat(SafetensorsFile, (".safetensors",)),
    ".pt": ArrayFormat(PtFile, (".pt", "pickle")),
    ".pth": ArrayFormat(PtFile, (".pt", "pickle")),
    ".parquet": ArrayFormat(ParquetFile, (".parquet",)),
    ".arrow": ArrayFormat(ArrowFile, ("Arrow",)),
    ".h5": ArrayFormat(Hdf5File, ("HDF5",)),
    ".hdf5": ArrayFormat(Hdf5File, ("HDF5",)),
    ".bin": ArrayFormat(SaevShard, names=NAMES),
}


def is_array_file(path: Path) -> bool:
    """Whether the file's name says a format of the table."""
    form = ARRAY_FORMATS.get(path.suffix.lower())
    return form is not None and fnmatch(path.name, form.names)


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
    b"ARROW1": "Arrow",
    b"\xff\xff\xff\xff": "Arrow",
    b"\x1f\x8b": "gzip",
}
# Of the text that a Git repository holds in place of a large file.
_LFS = b"version https://"


def beginnings(path: Path) -> list[str]:
    """The kinds of file that begin like this one, the most likely first."""
    with path.open("rb") as file:
        head = file.read(16)
    if not head:
        raise BadActivations(f"{path} is empty")
    if head == _LFS:
        raise BadActivations(
            f"{path} is a Git LFS pointer: the data it stands for were not downloaded",
            "Run `git lfs pull` where it was cloned.",
        )
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
