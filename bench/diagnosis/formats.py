"""One reader per file format: `open_*(path, key)` says how many tokens there are and how wide, and
reads them a chunk at a time. See `bench.diagnosis.files` for the formats and the promises.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from zoo.errors import BadActivations, MissingExtra, UsageError

_CHUNK_ELEMENTS = 1 << 22

# Activations do not compress well; what inflates more than this is made to fill the memory.
_MOST_INFLATION = 100
_SMALL = 1 << 20

_ALPHAFOLD_KEY = "single_embeddings"


@dataclass(frozen=True)
class Activations:
    """Tokens [tokens, width] of a file or folder. `chunks()` reads them from the start."""

    name: str
    tokens: int
    width: int
    chunks: Callable[[], Iterator[Tensor]]


def open_npy(path: Path, key: str | None) -> Activations:
    with path.open("rb") as file:
        tokens, width, _, _ = _npy_header(str(path), file)
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except ValueError as error:
        raise _broken(path, error) from None

    def chunks() -> Iterator[Tensor]:
        for rows in _row_slices(tokens, width):
            yield _tensor(array[rows])

    return Activations(str(path), tokens, width, chunks)


def open_npz(path: Path, key: str | None) -> Activations:
    """Read as a stream: an archive's array is never inflated whole."""
    with open_zip(path) as archive:
        arrays = [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")]
        name = _choose(path, arrays, key, preferred=_ALPHAFOLD_KEY)
        member = archive.getinfo(f"{name}.npy")
        inflated = member.file_size > _SMALL
        if inflated and member.file_size > _MOST_INFLATION * member.compress_size:
            raise BadActivations(
                f"{path}: {name} inflates {member.file_size / member.compress_size:.0f} times, to "
                f"{member.file_size / 1e9:.1f} GB, which no activations do",
                "Save it again as .npy if it is yours and meant to be so.",
            )
        with archive.open(member) as file:
            tokens, width, dtype, fortran = _npy_header(f"{path}: {name}", file)
            declared = file.tell() + tokens * width * dtype.itemsize
    if declared != member.file_size:
        raise _broken(path, f"{name} says {declared} bytes and has {member.file_size}")

    def chunks() -> Iterator[Tensor]:
        with open_zip(path) as archive, archive.open(member) as file:
            _npy_header(str(path), file)
            for rows in [slice(0, tokens)] if fortran else _row_slices(tokens, width):
                count = (rows.stop - rows.start) * width
                data = file.read(count * dtype.itemsize)
                if len(data) < count * dtype.itemsize:
                    raise _broken(path, f"{name} ends early")
                flat = np.frombuffer(data, dtype)
                rows_first = flat.reshape(width, -1).T if fortran else flat.reshape(-1, width)
                yield _tensor(rows_first)

    return Activations(f"{path}: {name}", tokens, width, chunks)


def open_safetensors(path: Path, key: str | None) -> Activations:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            name = _choose(path, list(file.keys()), key)
            shape = tuple(file.get_slice(name).get_shape())
            # One element tells the type as torch knows it.
            dtype = file.get_slice(name)[:1].dtype if shape and shape[0] else torch.float32
    except SafetensorError as error:
        raise _broken(path, error) from None
    tokens, width = _checked(f"{path}: {name}", shape, dtype)

    def chunks() -> Iterator[Tensor]:
        with safe_open(path, framework="pt") as file:
            part = file.get_slice(name)
            for rows in _row_slices(tokens, width):
                yield part[rows]

    return Activations(f"{path}: {name}", tokens, width, chunks)


def open_torch(path: Path, key: str | None) -> Activations:
    try:
        # Only the zip format, which torch has written since 1.6, can be memory-mapped.
        mapped = zipfile.is_zipfile(path)
        with warnings.catch_warnings():
            # About pickles that torch did not write; what they hold is checked below.
            warnings.simplefilter("ignore", UserWarning)
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError:
        raise BadActivations(
            f"{path} is a pickle of more than tensors; reading it could run code",
            "Save the tensor alone, torch.save(tensor, path), or use .safetensors.",
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError) as error:
        raise _broken(path, error) from None
    name = str(path)
    if isinstance(content, dict):
        tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
        chosen = _choose(path, list(tensors), key)
        content, name = tensors[chosen], f"{path}: {chosen}"
    if not isinstance(content, Tensor) or content.layout != torch.strided:
        raise BadActivations(
            f"{path} holds {_described(content)}, not a dense tensor or a dict of tensors",
            "Save the activations as one tensor [tokens, width].",
        )
    tensor = content.detach()
    tokens, width = _checked(name, tuple(tensor.shape), tensor.dtype)

    def chunks() -> Iterator[Tensor]:
        for rows in _row_slices(tokens, width):
            yield tensor[rows]

    return Activations(name, tokens, width, chunks)


def open_parquet(path: Path, key: str | None) -> Activations:
    """One column of lists of floats, or one float column per dimension."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtra(
            "reading .parquet needs the package pyarrow, which is not installed",
            'pip install "gammabench[parquet]"',
        ) from None
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise _broken(path, error) from None
    schema = file.schema_arrow
    lists = [f.name for f in schema if hasattr(f.type, "value_type")]
    floats = [f.name for f in schema if pa.types.is_floating(f.type)]
    if key is None and floats and len(floats) == len(schema):
        chosen, width = floats, len(floats)
    else:
        chosen = [_choose(path, lists, key)]
        width = _list_width(path, file, chosen[0])

    def chunks() -> Iterator[Tensor]:
        rows = max(1, _CHUNK_ELEMENTS // max(width, 1))
        try:
            for batch in file.iter_batches(batch_size=rows, columns=chosen):
                yield _tensor(_parquet_array(path, batch, width))
        except pa.ArrowException as error:
            raise _broken(path, error) from None

    first = next(chunks(), None)
    shape = (file.metadata.num_rows, width)
    _checked(str(path), shape, torch.float32 if first is None else first.dtype)
    return Activations(str(path), *shape, chunks)


def _list_width(path: Path, file: Any, column: str) -> int:
    for batch in file.iter_batches(batch_size=1, columns=[column]):
        row = batch.column(0)[0].as_py()
        return len(row) if row else 0
    return 0


def _parquet_array(path: Path, batch: Any, width: int) -> np.ndarray:
    if any(column.null_count for column in batch.columns):
        raise BadActivations(f"{path} has missing values", "Every token needs every dimension.")
    if batch.num_columns > 1 or not hasattr(batch.column(0).type, "value_type"):
        return np.stack([c.to_numpy(zero_copy_only=False) for c in batch.columns], axis=1)
    values = batch.column(0).flatten().to_numpy(zero_copy_only=False)
    if values.size != batch.num_rows * width:
        raise BadActivations(f"{path}: its rows are not all {width} wide")
    return values.reshape(batch.num_rows, width)


def _checked(name: str, shape: tuple[int, ...], dtype: torch.dtype | np.dtype) -> tuple[int, int]:
    """tokens and width, if the shape is those and the type a real floating point one."""
    if len(shape) != 2:
        raise BadActivations(
            f"{name} has shape {tuple(shape)}, not [tokens, width]",
            "Reshape it to one row per token; leave padding out.",
        )
    if 0 in shape:
        raise BadActivations(f"{name} holds no activations: its shape is {tuple(shape)}")
    real = dtype.is_floating_point if isinstance(dtype, torch.dtype) else dtype.kind == "f"
    if not real:
        raise BadActivations(
            f"{name} has dtype {str(dtype).removeprefix('torch.')}; "
            "activations are real floating point numbers",
            "Choose the right array with --key, or save it as float32.",
        )
    return shape[0], shape[1]


def _choose(path: Path, names: list[str], key: str | None, preferred: str = "") -> str:
    """The array asked for, the preferred one, or the only one there is."""
    shown = ", ".join(sorted(names)[:8]) + (", ..." if len(names) > 8 else "")
    if key is not None:
        if key not in names:
            raise UsageError(f"{path} holds no {key!r}", f"It holds {shown or 'nothing'}.")
        return key
    if preferred in names:
        return preferred
    if not names:
        raise BadActivations(f"{path} holds no arrays")
    if len(names) > 1:
        raise UsageError(f"{path} holds several arrays: {shown}", "Choose one with --key NAME.")
    return names[0]


def _broken(path: Path | str, error: object) -> BadActivations:
    reason = str(error).strip().splitlines()
    return BadActivations(
        f"{path} is broken or truncated ({reason[0][:200] if reason else 'no reason given'})",
        "Write it again.",
    )


def _described(content: object) -> str:
    if isinstance(content, Tensor):
        return f"a {str(content.layout).removeprefix('torch.')} tensor"
    return f"a {type(content).__name__}"


def _row_slices(tokens: int, width: int) -> list[slice]:
    rows = max(1, _CHUNK_ELEMENTS // width)
    return [slice(i, min(i + rows, tokens)) for i in range(0, tokens, rows)]


def _tensor(array: np.ndarray) -> Tensor:
    """A copy in native byte order, in a type that torch has."""
    wanted = array.dtype.newbyteorder("=") if array.dtype.itemsize <= 8 else np.dtype(np.float64)
    return torch.from_numpy(np.array(array, dtype=wanted, order="C"))


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """The open archive; whatever says that it is broken is raised as one kind of error."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise _broken(path, error) from None
    except RuntimeError as error:
        if "encrypted" not in str(error):
            raise
        raise _broken(path, error) from None


def _npy_header(name: str, file: IO[bytes]) -> tuple[int, int, np.dtype, bool]:
    """tokens, width, type and whether columns come first, of the array that follows."""
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        else:
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    except (ValueError, SyntaxError) as error:
        raise _broken(name, error) from None
    if dtype.hasobject:
        raise BadActivations(
            f"{name} holds pickled Python objects; reading them could run code",
            "Save it as float32.",
        )
    return *_checked(name, shape, dtype), dtype, fortran
