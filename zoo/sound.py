"""Which pictures can be read, found out once: each is decoded, and what was found is remembered.

    <cache>/pictures/<digest of the place>.json    sizes and times of those that can be read;
                                                    digests of those in a tar or a table

The cache is that of `zoo.downloads`. A picture that has changed is decoded again, as all are by
another version of these rules or of Pillow. What is known is written every few seconds, so that an
interrupted run goes on from there; where the cache cannot be written to, nothing is remembered.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from zoo.ahead import mapped
from zoo.downloads import cache_folder
from zoo.errors import BadCorpus, OutputError
from zoo.files import content_hash, read_json, write_atomically
from zoo.pictures import PackedPicture
from zoo.tally import Tally, problem_of

if TYPE_CHECKING:
    from zoo.streams.storage import StoredFile

_log = logging.getLogger(__name__)

# Raised where pictures that were read before are refused, or the other way round.
_VERSION = 1

# Pictures that are decoded at once, and that are under way or lie ready.
_READERS, _ROOM = 4, 64

# Seconds until the work is spoken of, between two lines about it, and between two savings.
_SPEAK_AFTER, _SPEAK_EVERY, _SAVE_EVERY = 2.0, 0.5, 10.0

_LARGEST = 1 << 30

_Item = TypeVar("_Item", Path, "StoredFile", PackedPicture)


def sound_pictures(
    items: Sequence[_Item], read: Callable[[_Item], object], did: Tally, place: str
) -> list[_Item]:
    """The pictures at `place` that can be read, decoded by `read` unless that is known already.

    Nothing is decoded where none may be left out.

    Raises:
        BadCorpus: as `Tally.leave_out`.
    """
    if not did.skip_bad:
        return list(items)
    known = _Known(place)

    def problem(item: _Item) -> tuple[_Item, BadCorpus | None]:
        return item, None if known.has(item) else problem_of(item, read)

    found = []
    looked_at = mapped(problem, items, workers=_READERS, room=_ROOM, size=lambda each: 1)
    with known.kept(), _told(len(items), place) as tell:
        for number, (item, error) in enumerate(looked_at, 1):
            if error is None:
                found.append(item)
                known.add(item)
            else:
                did.leave_out(error)
            tell(number)
    return found


class _Known:
    """The pictures of a place that could be read. Those that could not are few, and read again:
    what was wrong may have been the disk or the right to read."""

    def __init__(self, place: str) -> None:
        self._by = {"version": _VERSION, "pillow": importlib.metadata.version("pillow")}
        self._path = cache_folder() / "pictures" / f"{content_hash(place)}.json"
        self._files: dict[str, list[Any]] = {}
        self._new = False
        self._saved = time.monotonic()
        try:
            kept = read_json(self._path, _LARGEST)
        except (OSError, ValueError):
            return
        if isinstance(kept, dict) and kept.get("by") == self._by:
            self._files = dict(kept.get("files", {}))

    def has(self, item: Path | StoredFile | PackedPicture) -> bool:
        """Whether the picture was read as it is now."""
        name, state = _state(item)
        return state is not None and self._files.get(name) == state

    def add(self, item: Path | StoredFile | PackedPicture) -> None:
        """Notes that the picture was read."""
        name, state = _state(item)
        if state is None or self._files.get(name) == state:
            return
        self._files[name], self._new = state, True
        if time.monotonic() - self._saved > _SAVE_EVERY:
            self._save()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Saves what was found when the context ends, however it ends."""
        try:
            yield
        finally:
            self._save()

    def _save(self) -> None:
        if not self._new:
            return
        try:
            write_atomically(self._path, json.dumps({"by": self._by, "files": self._files}))
        except OutputError as error:
            _log.info("which pictures can be read is not remembered: %s", error)
        self._new, self._saved = False, time.monotonic()


def _state(item: Path | StoredFile | PackedPicture) -> tuple[str, list[Any] | None]:
    """The picture's name, and what changes with its content; None where nothing does."""
    if isinstance(item, PackedPicture):
        return item.where, [hashlib.sha256(item.data).hexdigest()]
    if not isinstance(item, Path) and item.checksum:
        return item.url, [item.size, item.checksum]
    name = os.path.abspath(item) if isinstance(item, Path) else item.url
    try:
        stat = os.stat(name)
    except OSError:  # far away, or gone
        return name, None
    return name, [stat.st_size, stat.st_mtime_ns]


@contextmanager
def _told(pictures: int, place: str) -> Iterator[Callable[[int], None]]:
    """Is called with the number of pictures that were looked at; tells of it on stderr where it
    takes long: again and again on a terminal, else once."""
    begun = time.monotonic()
    due, spoken = begun + _SPEAK_AFTER, False
    terminal = sys.stderr.isatty()
    what = f"pictures of {place} decoded once, to leave out what is broken (--skip-bad)"

    def tell(number: int) -> None:
        nonlocal due, spoken
        if time.monotonic() < due or (spoken and not terminal):
            return
        text = f"{number:,} of {pictures:,} {what}"
        print(f"\r{text}" if terminal else text, end="" if terminal else "\n", file=sys.stderr)
        sys.stderr.flush()
        due, spoken = time.monotonic() + _SPEAK_EVERY, True

    try:
        yield tell
    finally:
        if spoken and terminal:
            print(file=sys.stderr)
        _log.info("%d %s in %.1f s", pictures, what, time.monotonic() - begun)
