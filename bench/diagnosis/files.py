"""Activations out of files: how many tokens, how wide, and the tokens a chunk at a time.

Files of every format in `zoo.arrays`, AlphaFold 3's `*embeddings.npz`, and folders of such files.
Nothing is unpickled but tensors, nothing is read whole where the format lets it be read in parts,
and what a file declares is compared with what it holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from adapters.tensors import as_tensor
from bench.diagnosis.selection import (
    Candidate,
    are_names_of_sequences,
    are_sequences,
    check_shape,
    flattening,
    joined,
    select_arrays,
)
from zoo.arrays import ARRAY_FORMATS, ArrayFile, Header, is_array_file, open_arrays
from zoo.errors import BadActivations, UsageError
from zoo.files import natural_key, natural_order
from zoo.scan import alphafold_files, layer_number, shared_name

_CHUNK_ELEMENTS = 1 << 22

# Activations do not compress well; what inflates more than this is made to fill the memory.
_MOST_INFLATION = 100
_SMALL_BYTES = 1 << 20

# Notes that are told of a folder's files.
_MOST_NOTES = 3


@dataclass(frozen=True)
class Activations:
    """Tokens [tokens, width] of a file or folder. `chunks()` reads them from the start.

    notes: what was done to make them so, for the reader: axes dropped, arrays joined.
    """

    name: str
    tokens: int
    width: int
    chunks: Callable[[], Iterator[Tensor]]
    notes: tuple[str, ...] = ()


class _Nameless(UsageError):
    """A key was given for a file without names."""


def open_activations(path: Path, key: str | None = None) -> Activations:
    """The activations in a file, or in all files of a folder in natural order of their names.

    path: may end in a glob, which says that the files it names are of one stream.
    key: which array, tensor or column, where the file holds several; a glob joins those it names.

    Raises:
        UsageError: there is no such file, its name has no known suffix, or which of several arrays
            is meant cannot be told.
        BadActivations: the file is empty, broken, not what its name says, or holds no
            [tokens, width] of real floating point numbers.
        MissingExtra: the format needs a package that is not installed.
    """
    if path.is_dir():
        return _open_folder(path, key)
    if not path.exists() and any(sign in path.name for sign in "*?["):
        files = [file for file in path.parent.glob(path.name) if is_array_file(file)]
        return _opened_together(str(path), _each_opened(path, files, key))
    if not path.exists():
        raise UsageError(
            f"no file or folder at {path}", "Give activations, in a file or in a folder of them."
        )
    if not is_array_file(path):
        raise UsageError(
            f"{path}: the format {path.suffix or 'without a suffix'} is not known",
            f"Known are {', '.join(ARRAY_FORMATS)} and folders of them.",
        )
    try:
        return _open_file(path, key)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror or error})") from None


def _open_file(path: Path, key: str | None) -> Activations:
    file = open_arrays(path)
    nameless = [header for header in file.headers if header.key is None]
    if nameless:
        if key not in (None, "*"):
            raise _Nameless(f"{path} holds one array without a name", "Leave --key out.")
        return _open_array(path, file, nameless[0])
    by_name = {str(header.key): header for header in file.headers}
    candidates = [
        Candidate(name, header.shape, header.is_float) for name, header in by_name.items()
    ]
    chosen = [by_name[each.name] for each in select_arrays(str(path), candidates, key)]
    parts = [_open_array(path, file, header) for header in chosen]
    if len(parts) == 1:
        return parts[0]
    note = joined([str(header.key) for header in chosen])
    return _opened_together(str(path), parts, f"{len(parts)} arrays", (note,))


def _open_array(path: Path, file: ArrayFile, header: Header) -> Activations:
    name = str(path) if header.key is None else f"{path}: {header.key}"
    _check(name, header)
    tokens, width = math.prod(header.shape[:-1]), header.shape[-1]

    def chunks() -> Iterator[Tensor]:
        # Opened anew, so that a folder of many files holds what one of them takes.
        array = file.array(header.key)
        rows = max(1, _CHUNK_ELEMENTS // width)
        for start in range(0, tokens, rows):
            yield as_tensor(array.rows(start, min(start + rows, tokens)))

    return Activations(name, tokens, width, chunks, flattening(header.shape))


def _open_folder(path: Path, key: str | None) -> Activations:
    files = [file for file in path.rglob("*") if is_array_file(file) and not _is_hidden(file, path)]
    jobs = alphafold_files(path)  # one folder per job and seed
    if jobs:
        return _opened_together(str(path), _each_opened(path, jobs, key))
    names = sorted((file.relative_to(path).as_posix() for file in files), key=natural_key)
    streams = {(shared_name(name), layer_number(name)): name for name in reversed(names)}
    shards = _each_opened(path, files, key)
    if len(streams) < 2:
        return _opened_together(str(path), shards)
    candidates = [
        Candidate(name, (shard.tokens, shard.width), True)
        for name, shard in zip(names, shards, strict=True)
    ]
    if not are_sequences(candidates) and not are_names_of_sequences(names):
        one, other, *_ = sorted(streams.values(), key=natural_key)
        raise UsageError(
            f"{path}: {one} and {other} may be two streams or layers, by their names",
            f"Give those of one as a glob, '{path}/*.npy' where all are.",
        )
    return _opened_together(str(path), shards, notes=(joined(names),))


def _is_hidden(file: Path, folder: Path) -> bool:
    """Whether it is hidden, or holds the order of a shuffled dataset instead of its rows."""
    parts = file.relative_to(folder).parts
    cached = file.suffix == ".arrow" and file.name.startswith("cache-")
    return cached or any(part.startswith(".") for part in parts)


def _each_opened(path: Path, files: Sequence[Path], key: str | None) -> list[Activations]:
    """The files in natural order."""
    if not files:
        raise UsageError(
            f"{path} holds no activations",
            f"Known are files that end in {', '.join(ARRAY_FORMATS)}.",
        )
    found: list[Activations] = []
    nameless: list[_Nameless] = []
    for file in sorted(files, key=natural_order):
        try:
            found.append(open_activations(file, key))
        except _Nameless as error:
            # Beside files that have the name it is what else there is to read.
            nameless.append(error)
            found.append(open_activations(file))
    if len(nameless) == len(found):
        raise nameless[0]
    return found


def _opened_together(
    name: str, parts: list[Activations], what: str = "", notes: tuple[str, ...] = ()
) -> Activations:
    widths = {part.width: part.name for part in parts}
    if len(widths) > 1:
        (one, first), (two, second), *_ = widths.items()
        raise BadActivations(f"{name}: {first} is {one} wide, but {second} is {two} wide")

    def chunks() -> Iterator[Tensor]:
        for part in parts:
            yield from part.chunks()

    own = dict.fromkeys(note for part in parts for note in part.notes)
    return Activations(
        f"{name} ({what or f'{len(parts)} files'})",
        sum(part.tokens for part in parts),
        parts[0].width,
        chunks,
        (*notes, *list(own)[:_MOST_NOTES]),
    )


def _check(name: str, header: Header) -> None:
    """Raises `BadActivations` where the array is no activations."""
    if header.dtype == "objects":
        raise BadActivations(
            f"{name} holds pickled Python objects; reading them could run code",
            "Save it as float32.",
        )
    check_shape(name, header.shape)
    if not header.is_float:
        raise BadActivations(
            f"{name} has dtype {header.dtype}; activations are real floating point numbers of 16 "
            "bits or more",
            "Choose the right array with --key, or save it as float32.",
        )
    if header.inflation > _MOST_INFLATION and header.nbytes > _SMALL_BYTES:
        raise BadActivations(
            f"{name} inflates {header.inflation:.0f} times, to {header.nbytes / 1e9:.1f} GB, which "
            "no activations do",
            "Save it again as .npy if it is yours and meant to be so.",
        )
