"""Files: written whole or not at all, unpacked, their digests, and their natural order."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from zoo.errors import MissingExtra, OutputError, UsageError
from zoo.install import install_line

# Suffixes of files that are packed: gzip and Zstandard.
PACKED = (".gz", ".zst")

# How a command is told where most files go.
OUTPUT = "as --output DIR"

# Text compresses some 4 times and repeats of DNA 20 times; gzip can do 1,000.
_MOST_INFLATION = 100
_SMALL_BYTES = 1 << 26

# Of what Linux takes as a path; other systems take less.
_LONGEST_PATH = 4096

# Of configurations, indexes and manifests.
_LARGEST_JSON = 1 << 24


def write_atomically(path: Path, content: str | bytes, *, place: str = OUTPUT) -> None:
    """Writes `content` to `path` whole or not at all.

    Text is written as UTF-8 with its line breaks as they are.

    Args:
        place: how the command is told where it goes.

    Raises:
        OutputError: the folder cannot be made or written to, or the disk is full.
    """
    write_together({path: content}, place=place)


def write_together(files: Mapping[Path, str | bytes], *, place: str = OUTPUT) -> None:
    """Writes files that belong together: as `write_atomically`, and where one cannot be written
    none is."""
    with ExitStack() as stack:
        written = {}
        for path, content in files.items():
            with _writing(path, place):
                handle = stack.enter_context(_temporary(path))
                handle.write(content.encode() if isinstance(content, str) else content)
                _complete(handle)
                written[path] = handle
        for path, handle in written.items():
            with _writing(path, place):
                _rename(handle, path)


@contextmanager
def open_atomically(path: Path, *, place: str = OUTPUT) -> Iterator[IO[bytes]]:
    """A file to write that becomes `path` at the end: temporary file beside it, fsync and rename.

    No temporary file is left where writing it fails.

    Raises:
        OutputError: the folder cannot be made or written to, or the disk is full.
    """
    with _writing(path, place), _temporary(path) as handle:
        yield handle
        _complete(handle)
        _rename(handle, path)


@contextmanager
def _writing(path: Path, place: str) -> Iterator[None]:
    """Says of an error of the system that `path` cannot be written, and what helps."""
    try:
        yield
    except OSError as error:
        remedy = f"Give a folder that can be written to {place}."
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = f"Make room there, or give a folder on another disk {place}."
        raise OutputError(f"cannot write {path} ({error.strerror or error})", remedy) from None


@contextmanager
def _temporary(path: Path) -> Iterator[IO[bytes]]:
    """A file beside `path` to write, which is gone at the end unless it was renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as handle:
        try:
            yield handle
        finally:
            Path(handle.name).unlink(missing_ok=True)


def _complete(handle: IO[bytes]) -> None:
    handle.flush()
    os.fsync(handle.fileno())
    handle.close()


def _rename(handle: IO[bytes], path: Path) -> None:
    # The temporary file is private; a record is for everybody who may read the folder.
    os.chmod(handle.name, 0o666 & ~_umask())
    os.replace(handle.name, path)
    _sync_folder(path.parent)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Makes the rename itself durable, where the system lets folders be opened."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove(path: Path) -> None:
    """Removes a file, or nothing where there is none.

    Raises:
        OutputError: it cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot remove {path} ({error.strerror or error})") from None


def user_path(text: str) -> Path:
    """A path that a user wrote, with `~` and `~name` read as home folders.

    Raises:
        UsageError: there is no user of that name, or the path is impossible.
    """
    if any(ord(letter) < 32 for letter in text) or len(text) > _LONGEST_PATH:
        raise UsageError(f"{text[:60]!r} is no path", "Give the path of a file or folder.")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UsageError(f"{text!r}: there is no such user", "Write the path in full.") from None


def check_regular(path: Path) -> None:
    """Raises `OSError` where the path is no regular file, or no link to one.

    To be called before opening what somebody else named: a FIFO would wait for its writer, and a
    device may never end.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        kind = "is a folder" if path.is_dir() else "is not a regular file"
        raise OSError(errno.EINVAL, kind, str(path))


def read_bounded(path: Path, limit: int) -> bytes:
    """The contents of a regular file of at most `limit` bytes.

    Raises:
        OSError: there is none, it is no regular file, cannot be read, or is larger.
    """
    check_regular(path)
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"is larger than {limit:,} bytes", str(path))
    return content


def read_json(path: Path, limit: int = _LARGEST_JSON) -> Any:
    """What a JSON file holds that somebody else wrote: of bounded size, and of any type.

    Raises:
        OSError: there is no regular file, or it is larger than `limit` bytes.
        ValueError: it is not JSON in UTF-8, or nested too deep.
    """
    try:
        return json.loads(read_bounded(path, limit).decode("utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def check_no_special_files(folder: Path) -> None:
    """Raises `OSError` where a folder holds something but folders and regular files.

    For folders that libraries read by themselves: they would wait for a FIFO's writer.
    """
    for path in sorted(folder.iterdir()):
        if path.exists() and not path.is_dir():
            check_regular(path)


def content_hash(data: Any) -> str:
    """20 hexadecimal digits that identify JSON-able data, whatever the order of its keys."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def unpacked(file: IO[bytes], name: str) -> IO[bytes]:
    """What an open file of that name holds: unpacked if its suffix says that it is packed.

    Raises:
        OSError: on reading, where it is made to fill the memory, or broken.
        MissingExtra: a package for it is absent.
    """
    if name.endswith(".gz"):
        return io.BufferedReader(_Inflated(file), 1 << 16)
    if name.endswith(".zst"):
        try:
            import pyarrow as pa
        except ImportError:
            raise MissingExtra(
                "reading .zst needs the package pyarrow, which is not installed",
                install_line("parquet"),
            ) from None
        # Buffered, as pyarrow's stream gives no lines.
        stream = pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")
        return io.BufferedReader(stream, 1 << 16)
    return file


class _Inflated(io.RawIOBase):
    """What a gzipped file holds, as long as it is not made to fill the memory."""

    def __init__(self, packed: IO[bytes]) -> None:
        self._packed = packed
        self._file = gzip.GzipFile(fileobj=packed)
        self._done = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self._done += len(data)
        if self._done > max(_SMALL_BYTES, _MOST_INFLATION * self._packed.tell()):
            raise OSError(f"it inflates more than {_MOST_INFLATION} times")
        return len(data)

    def close(self) -> None:
        self._file.close()
        self._packed.close()
        super().close()


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's contents, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def natural_order(path: Path) -> list[tuple[int, int, str]]:
    """shard-2 before shard-10."""
    return natural_key(path.as_posix())


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """`natural_order` of a name."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]
