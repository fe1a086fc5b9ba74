"""An output folder at a URL (`s3://bucket/prefix`, whatever fsspec opens), worked in from here.

The URL holds the truth, in the same files as a folder of this machine. A command works in a
temporary folder of its own, made like what is there when the command begins (`pull`), and sends
each file as it is finished (`push`). Nothing is shared between processes but the URL.

An object store shows an object once it is sent whole, so that a record is complete or absent.
No torch.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.records.prices import PRICES_FILE
from bench.records.published_saes import PUBLISHED_FOLDER
from bench.records.store import RECORDS_FOLDER
from zoo.errors import BenchError, OutputError, UsageError
from zoo.streams.storage import file_system, is_url, said_by, shown

STATES_FOLDER, SAES_FOLDER = "state", "saes"

# How the kinds of stores call the time of a file, by their own clock.
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "created")

_NOT_WRITTEN = ("http", "https", "hf")

# Files that are sent or fetched at once, times that each is tried, and seconds between two tries.
_AT_ONCE, _TRIES, _PAUSE = 16, 3, 1.0


@dataclass(frozen=True)
class StoredObject:
    """A file of the store: bytes, and when it was written, in seconds of the store's clock."""

    size: int
    modified: float


@dataclass(frozen=True)
class Mirror:
    """An output folder at a URL, and the folder of this machine that is worked in.

    known: when the records of cells were written that are to be measured again, by their hashes:
        one that was written since is another run's, and is not measured again.
    """

    url: str
    folder: Path
    known: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return shown(self.url)

    def list(self, part: str) -> dict[str, StoredObject]:
        """The files below a part of it (`records`), by their paths in it. Raises `OutputError`."""
        with self._errors("read"):
            system, root = self._system()
            system.invalidate_cache()
            try:
                found = system.find(f"{root}/{part}", detail=True, on_error="raise")
                # Of one file itself some stores say nothing.
                found = {path: info or system.info(path) for path, info in found.items()}
            except FileNotFoundError:
                return {}
            start = len(root) + 1
            return {
                path.lstrip("/")[start:]: StoredObject(info["size"], _time(info))
                for path, info in found.items()
                if info["type"] == "file" and ".." not in path.split("/")
            }

    def pull(self, *parts: str) -> None:
        """Makes the working folder hold what is there; what is not there any more is removed.

        Without `parts` that is records, what checkpoints say of themselves, and which trained SAEs
        there are (as empty folders). Raises `OutputError`.
        """
        found: dict[str, StoredObject] = {}
        for part in parts or (RECORDS_FOLDER, PUBLISHED_FOLDER, PRICES_FILE, STATES_FOLDER):
            listed = self.list(part)
            found |= {
                name: file for name, file in listed.items() if part != STATES_FOLDER or _small(name)
            }
            for path in (self.folder / part).rglob("*"):
                if path.is_file() and path.relative_to(self.folder).as_posix() not in found:
                    path.unlink()
        self._fetch({name: file for name, file in found.items() if not self._has(name, file)})
        if not parts:
            for name in self.list(SAES_FOLDER):
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)

    def fetch(self, path: Path) -> bool:
        """Fetches the file that has this path in the working folder; False where there is none.

        Raises `OutputError`.
        """
        with self._errors("read"):
            system, remote = self._at(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with system.open(remote, "rb") as source, path.open("wb") as target:
                    shutil.copyfileobj(source, target, 1 << 24)
            except FileNotFoundError:
                path.unlink(missing_ok=True)
                return False
            return True

    def push(self, *paths: Path) -> None:
        """Sends files of the working folder, and those in its folders. Raises `OutputError`."""
        files = [each for path in paths for each in _files(path)]
        # In threads: an interruption does not reach them, and would leave half an object.
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(self._send, files))

    def replace(self, part: str) -> None:
        """Makes a part there hold what the working folder does. Raises `OutputError`."""
        there = self.list(part)
        folder = self.folder / part
        here = {path.relative_to(self.folder).as_posix(): path for path in _files(folder)}
        same = {name for name, file in there.items() if self._has(name, file)}
        self.push(*(path for name, path in here.items() if name not in same))
        self.remove(*(self.folder / name for name in there if name not in here))

    def remove(self, *paths: Path) -> None:
        """Removes files that have these paths, where they are there. Raises `OutputError`."""
        with self._errors("written to"):
            for path in paths:
                system, remote = self._at(path)
                try:
                    system.rm_file(remote)
                except FileNotFoundError:
                    continue

    def check_writable(self) -> None:
        """Raises `OutputError` where nothing can be written there."""
        probe = self.folder / ".writable"
        self.folder.mkdir(exist_ok=True)
        probe.write_bytes(b"x")
        self.push(probe)
        self.remove(probe)

    def _system(self) -> tuple[Any, str]:
        system, root = file_system(self.url)
        return system, root.strip("/")

    def _at(self, path: Path) -> tuple[Any, str]:
        system, root = self._system()
        return system, f"{root}/{path.relative_to(self.folder).as_posix()}"

    def _has(self, name: str, file: StoredObject) -> bool:
        """Whether the file is here as it was fetched: its time is then the store's."""
        path = self.folder / name
        if not path.is_file():
            return False
        found = path.stat()
        return found.st_size == file.size and abs(found.st_mtime - file.modified) < 1e-3

    def _fetch(self, files: Mapping[str, StoredObject]) -> None:
        def one(name: str) -> None:
            path, seconds = self.folder / name, files[name].modified
            if self.fetch(path):
                os.utime(path, (seconds, seconds))

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(one, files))

    def _send(self, path: Path) -> None:
        with self._errors("written to"):
            for left in reversed(range(_TRIES)):
                try:
                    system, remote = self._at(path)
                    if not self.url.startswith("s3://"):  # which has no folders
                        system.makedirs(remote.rpartition("/")[0], exist_ok=True)
                    with path.open("rb") as source, system.open(remote, "wb") as target:
                        shutil.copyfileobj(source, target, 1 << 24)
                    return
                except Exception:
                    if not left:
                        raise
                    time.sleep(_PAUSE)

    @contextmanager
    def _errors(self, done: str) -> Iterator[None]:
        """Whatever a store raises as an `OutputError`."""
        try:
            yield
        except (OutputError, MemoryError):
            raise
        except BenchError as error:
            raise OutputError(f"--output: {error.message}", error.remedy) from error
        except Exception as error:
            said, remedy = said_by(error, self.url)
            raise OutputError(f"{self} cannot be {done} ({said})", remedy) from error


_open: dict[Path, Mirror] = {}


def open_output(place: str | Path) -> Path:
    """The folder to work in: the one named, or a temporary one that mirrors what is at a URL.

    Raises:
        OutputError: the URL cannot be read. UsageError: it is none that can be an output folder.
    """
    if isinstance(place, Path):
        return place
    protocol, mark, rest = place.partition("://")
    if not mark:
        return Path(place)
    if protocol == "file" and rest.startswith("/"):
        return Path(rest)
    for refused, why in (
        (not is_url(place), "is no URL: they begin in small letters"),
        (protocol == "file", "is no whole path: file:///FOLDER"),
        (protocol in _NOT_WRITTEN, "cannot be written to"),
        (not rest.strip("/"), "names nothing: is a variable empty?"),
    ):
        if refused:
            raise UsageError(f"--output {shown(place)} {why}", "Give s3://BUCKET/PREFIX.")
    folder = Path(tempfile.mkdtemp(prefix="gammabench-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    mirror = Mirror(place.rstrip("/"), folder)
    mirror.pull()
    _open[folder] = mirror
    return folder


def mirror_of(folder: Path) -> Mirror | None:
    """The mirror whose working folder this is; None where it is a folder as any other."""
    return _open.get(folder)


def as_shown(text: object) -> str:
    """Text with URLs where it names files of working folders."""
    return functools.reduce(
        lambda found, mirror: found.replace(str(mirror.folder), str(mirror)),
        _open.values(),
        str(text),
    )


def _time(info: Mapping[str, Any]) -> float:
    found = next(info[name] for name in _TIMES if info.get(name))
    return found.timestamp() if isinstance(found, datetime) else float(found)


def _small(name: str) -> bool:
    """Whether a file of a checkpoint says what it is, and is not the state itself."""
    return name.endswith(".json")


def _files(path: Path) -> Iterable[Path]:
    return [each for each in sorted(path.rglob("*")) if each.is_file()] if path.is_dir() else [path]
