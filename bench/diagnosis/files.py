"""Activations out of files: how many tokens, how wide, and the tokens a chunk at a time.

Files of every format in `zoo.arrays`, AlphaFold 3's `*embeddings.npz`, and folders of such files.
Nothing is unpickled but tensors, nothing is read whole where the format lets it be read in parts,
and what a file declares is compared with what it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from adapters.tensors import as_tensor
from zoo.arrays import ARRAY_FORMATS, Header, is_array_file, open_arrays
from zoo.errors import BadActivations, UsageError
from zoo.files import natural_order
from zoo.scan import ALPHAFOLD_FILES, ALPHAFOLD_STREAMS, layer_number, shared_name

_CHUNK_ELEMENTS = 1 << 22

# Activations do not compress well; what inflates more than this is made to fill the memory.
_MOST_INFLATION = 100
_SMALL_BYTES = 1 << 20

_ALPHAFOLD_KEY = next(iter(ALPHAFOLD_STREAMS))


@dataclass(frozen=True)
class Activations:
    """Tokens [tokens, width] of a file or folder. `chunks()` reads them from the start."""

    name: str
    tokens: int
    width: int
    chunks: Callable[[], Iterator[Tensor]]


def open_activations(path: Path, key: str | None = None) -> Activations:
    """The activations in a file, or in all files of a folder in the order of their names.

    path: may end in a glob, which says that the files it names are of one stream.
    key: which array, tensor or column, where the file holds several.

    Raises:
        UsageError: there is no such file, or its name has no known suffix.
        BadActivations: the file is empty, broken, not what its name says, or holds no
            [tokens, width] of real floating point numbers.
        MissingExtra: the format needs a package that is not installed.
    """
    if path.is_dir():
        return _open_folder(path, key)
    if not path.exists() and any(sign in path.name for sign in "*?["):
        files = [file for file in path.parent.glob(path.name) if is_array_file(file)]
        return _opened_together(path, files, key)
    if not path.exists():
        raise UsageError(f"no file or folder at {path}")
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
    header = _chosen(path, file.headers, key)
    name = str(path) if header.key is None else f"{path}: {header.key}"
    tokens, width = _checked(name, header)

    def chunks() -> Iterator[Tensor]:
        # Opened anew, so that a folder of many files holds what one of them takes.
        array = file.array(header.key)
        rows = max(1, _CHUNK_ELEMENTS // width)
        for start in range(0, tokens, rows):
            yield as_tensor(array.rows(start, min(start + rows, tokens)))

    return Activations(name, tokens, width, chunks)


def _open_folder(path: Path, key: str | None) -> Activations:
    files = [f for f in path.iterdir() if is_array_file(f) and f.name[0] != "."]
    # AlphaFold 3 writes one folder per job and seed.
    files = files or list(path.rglob(ALPHAFOLD_FILES))
    jobs = all(file.match(ALPHAFOLD_FILES) for file in files)
    streams = sorted({(shared_name(f.name), layer_number(f.name), f.name) for f in files}, key=str)
    if not jobs and len({stream[:2] for stream in streams}) > 1:
        one, other = streams[0], next(s for s in streams if s[:2] != streams[0][:2])
        raise UsageError(
            f"{path}: {one[2]} and {other[2]} may be two streams or layers, by their names",
            f"Give those of one as a glob, '{path}/*.npy' where all are.",
        )
    return _opened_together(path, files, key)


def _opened_together(path: Path, files: Sequence[Path], key: str | None) -> Activations:
    if not files:
        raise UsageError(
            f"{path} holds no activations",
            f"Known are files that end in {', '.join(ARRAY_FORMATS)}.",
        )
    shards = [open_activations(f, key) for f in sorted(files, key=natural_order)]
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


def _chosen(path: Path, headers: Sequence[Header], key: str | None) -> Header:
    """The array without a name, the one asked for, AlphaFold 3's single one, or the only one."""
    by_key = {header.key: header for header in headers}
    if None in by_key:
        return by_key[None]
    names = sorted(str(name) for name in by_key)
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    if key is not None:
        if key not in by_key:
            raise UsageError(f"{path} holds no {key!r}", f"It holds {shown or 'nothing'}.")
        return by_key[key]
    if _ALPHAFOLD_KEY in by_key:
        return by_key[_ALPHAFOLD_KEY]
    if not names:
        raise BadActivations(f"{path} holds no arrays")
    if len(names) > 1:
        raise UsageError(f"{path} holds several arrays: {shown}", "Choose one with --key NAME.")
    return headers[0]


def _checked(name: str, header: Header) -> tuple[int, int]:
    """tokens and width, if the shape is those and the type a real floating point one."""
    if header.dtype == "objects":
        raise BadActivations(
            f"{name} holds pickled Python objects; reading them could run code",
            "Save it as float32.",
        )
    if len(header.shape) != 2:
        raise BadActivations(
            f"{name} has shape {header.shape}, not [tokens, width]",
            "Reshape it to one row per token; leave padding out.",
        )
    if 0 in header.shape:
        raise BadActivations(f"{name} holds no activations: its shape is {header.shape}")
    if not header.is_float:
        raise BadActivations(
            f"{name} has dtype {header.dtype}; activations are real floating point numbers",
            "Choose the right array with --key, or save it as float32.",
        )
    if header.inflation > _MOST_INFLATION and header.nbytes > _SMALL_BYTES:
        raise BadActivations(
            f"{name} inflates {header.inflation:.0f} times, to {header.nbytes / 1e9:.1f} GB, which "
            "no activations do",
            "Save it again as .npy if it is yours and meant to be so.",
        )
    return header.shape[0], header.shape[1]
