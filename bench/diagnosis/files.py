"""Activations out of files: what format, how wide, and the tokens a chunk at a time.

`.npy .npz .safetensors .pt .pth .parquet`, AlphaFold 3's `*embeddings.npz`, and folders of such
files. Nothing is unpickled but tensors, nothing is read whole where the format lets it be read in
parts, and what a file declares is compared with what it holds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from torch import Tensor

from bench.diagnosis.formats import (
    Activations,
    open_npy,
    open_npz,
    open_parquet,
    open_safetensors,
    open_torch,
    open_zip,
)
from zoo.errors import BadActivations, UsageError

_ALPHAFOLD_FILES = "*embeddings.npz"


def open_activations(path: Path, key: str | None = None) -> Activations:
    """The activations in a file, or in all files of a folder in the order of their names.

    key: which array, tensor or column, where the file holds several.

    Raises:
        UsageError: there is no such file, or its name says no known format.
        BadActivations: the file is empty, broken, not what its name says, or holds no
            [tokens, width] of real floating point numbers.
        MissingExtra: the format needs a package that is not installed.
    """
    if path.is_dir():
        return _open_folder(path, key)
    if not path.exists():
        raise UsageError(f"no file or folder at {path}")
    try:
        reader = _READERS[path.suffix.lower()]
    except KeyError:
        raise UsageError(
            f"{path}: the format {path.suffix or 'without a suffix'} is not known",
            f"Known are {', '.join(_READERS)} and folders of them.",
        ) from None
    try:
        _check_signature(path)
        return reader(path, key)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror or error})") from None


_READERS: dict[str, Callable[[Path, str | None], Activations]] = {
    ".npy": open_npy,
    ".npz": open_npz,
    ".safetensors": open_safetensors,
    ".pt": open_torch,
    ".pth": open_torch,
    ".parquet": open_parquet,
}


def _open_folder(path: Path, key: str | None) -> Activations:
    files = [f for f in path.iterdir() if f.suffix.lower() in _READERS and f.name[0] != "."]
    # AlphaFold 3 writes one folder per job and seed.
    files = files or list(path.rglob(_ALPHAFOLD_FILES))
    if not files:
        raise UsageError(
            f"{path} holds no activations", f"Known are files that end in {', '.join(_READERS)}."
        )
    shards = [open_activations(f, key) for f in sorted(files, key=_natural_order)]
    widths = {shard.width: shard.name for shard in shards}
    if len(widths) > 1:
        (one, first), (two, second), *_ = widths.items()
        raise BadActivations(f"{path}: {first} is {one} wide, but {second} is {two} wide")

    def chunks() -> Iterator[Tensor]:
        for shard in shards:
            yield from shard.chunks()

    return Activations(
        f"{path} ({len(shards)} files)",
        sum(shard.tokens for shard in shards),
        shards[0].width,
        chunks,
    )


def _natural_order(path: Path) -> list[tuple[int, int, str]]:
    """shard-2 before shard-10."""
    parts = re.split(r"(\d+)", str(path))
    return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in parts]


_SIGNATURES = {
    b"\x93NUMPY": ".npy",
    b"PK": "zip",
    b"PAR1": ".parquet",
    b"\x80": "pickle",
    b"\x89HDF": "HDF5",
    b"\x1f\x8b": "gzip",
}
_ALLOWED = {
    ".npy": (".npy",),
    ".npz": (".npz",),
    ".pt": (".pt", "pickle"),
    ".pth": (".pt", "pickle"),
    ".parquet": (".parquet",),
    ".safetensors": (),
}


def _check_signature(path: Path) -> None:
    suffix = path.suffix.lower()
    with path.open("rb") as file:
        head = file.read(16)
    if not head:
        raise BadActivations(f"{path} is empty")
    # A safetensors file begins with a number, whose bytes may be anybody's signature.
    is_safetensors = head[8:9] == b"{"
    if is_safetensors and suffix == ".safetensors":
        return
    kinds = [kind for magic, kind in _SIGNATURES.items() if head.startswith(magic)]
    found = kinds[0] if kinds else ".safetensors" if is_safetensors else None
    if found == "zip":
        with open_zip(path) as archive:
            pickled = any(name.endswith("data.pkl") for name in archive.namelist())
        found = ".pt" if pickled else ".npz"
    if found not in _ALLOWED[suffix]:
        looks = f"it looks like {found}" if found else "it begins like no format that is known"
        raise BadActivations(f"{path} is not a {suffix} file: {looks}", "Check where it is from.")
