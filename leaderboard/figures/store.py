"""The figures as files: drawn where they are out of date, and checked without drawing.

`figures/index.json` says of every picture which data it was drawn from and what its files hold. So
a figure is drawn again only when its data changed, and a check needs no drawing library; another
version of it, which would draw other bytes, makes no difference.
"""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Self

from leaderboard.figures.drawing import available, draw
from leaderboard.figures.pictures import Picture
from zoo.files import read_json, remove, sha256_of, write_atomically

FIGURES_FOLDER = "figures"
INDEX = "index.json"
_SUFFIXES = ("svg", "png")

# A process of its own takes as long to start as this many pictures take to draw.
_WORTH_A_PROCESS = 5


def update_figures(
    boards: Path, pictures: Sequence[Picture], *, draw_new: bool = True, processes: int = 1
) -> list[Picture]:
    """Brings the figures below the boards' folder up to date; returns those that are there.

    Without matplotlib, or with `draw_new=False`, nothing is drawn: the figures stay if all are
    current, and go otherwise. Files that the index does not name are left alone. Many figures are
    drawn by up to `processes` processes, to the same bytes.

    Raises:
        OutputError: the folder cannot be written to.
    """
    with FigureUpdate(boards, pictures, draw_new=draw_new, processes=processes) as update:
        update.finish()
    return update.shown


class FigureUpdate:
    """An update of the figures (see `update_figures`) whose processes, where it has some, draw
    while this one does other work.

    shown: the pictures that will be there when it is finished.
    """

    def __init__(
        self, boards: Path, pictures: Sequence[Picture], *, draw_new: bool, processes: int
    ) -> None:
        self._folder = boards / FIGURES_FOLDER
        self._old = _index(self._folder)
        self._index = {
            each.name: self._old[each.name]
            for each in pictures
            if _current(self._folder, each, self._old)
        }
        missing = [each for each in pictures if each.name not in self._index]
        drawing = draw_new and available()
        self._fresh = missing if drawing else []
        if missing and not drawing:
            self._index = {}
        self.shown = list(pictures) if drawing or not missing else []
        self._pool = _pool(min(processes, len(self._fresh) // _WORTH_A_PROCESS))
        self._drawn = (self._pool.map if self._pool else map)(draw, self._fresh)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def finish(self) -> None:
        """Writes what was drawn, and removes what is not shown any more."""
        for picture, files in zip(self._fresh, self._drawn, strict=True):
            entry = {"data": picture.hash}
            for suffix, content in files.items():
                write_atomically(self._folder / f"{picture.name}.{suffix}", content)
                entry[suffix] = hashlib.sha256(content).hexdigest()
            self._index[picture.name] = entry
        for name in self._old.keys() - self._index.keys():
            for suffix in _SUFFIXES:
                remove(self._folder / f"{name}.{suffix}")
        if self._index != self._old:
            if self._index:
                write_atomically(self._folder / INDEX, index_text(self._index))
            else:
                remove(self._folder / INDEX)


def index_text(index: dict[str, Any]) -> str:
    """What the file of the index holds."""
    return json.dumps(index, indent=1, sort_keys=True) + "\n"


def listed_figures(boards: Path, pictures: Sequence[Picture]) -> list[Picture]:
    """The pictures that the folder's index names, drawn from whatever data."""
    index = _index(boards / FIGURES_FOLDER)
    return [picture for picture in pictures if picture.name in index]


def figure_problems(boards: Path, pictures: Sequence[Picture]) -> list[str]:
    """What differs between the figures in the folder and the pictures; nothing without figures."""
    folder = boards / FIGURES_FOLDER
    index = _index(folder)
    if not index:
        return []
    problems = []
    by_name = {picture.name: picture for picture in pictures}
    for name in sorted(index.keys() | by_name.keys()):
        picture = by_name.get(name)
        if picture is None:
            problems.append(f"figure {name} belongs to no record")
        elif name not in index:
            problems.append(f"figure {name} is missing")
        elif index[name].get("data") != picture.hash:
            problems.append(f"figure {name} differs from what the records give")
        else:
            problems += [
                f"figure {name}.{suffix} is missing or was edited"
                for suffix in picture.suffixes
                if _digest(folder / f"{name}.{suffix}") != index[name].get(suffix)
            ]
    return problems


def paths(boards: Path, pictures: Sequence[Picture]) -> list[Path]:
    """The files of drawn pictures."""
    names = [f"{picture.name}.{suffix}" for picture in pictures for suffix in picture.suffixes]
    return [boards / FIGURES_FOLDER / name for name in names]


def _pool(workers: int) -> ProcessPoolExecutor | None:
    """Processes that draw; none where one would do."""
    if workers < 2:
        return None
    # Not forked: a run has the threads of torch beside this one. An interrupt is this process' to
    # tell of.
    ignore = (signal.SIGINT, signal.SIG_IGN)
    return ProcessPoolExecutor(workers, get_context("spawn"), signal.signal, ignore)


def _current(folder: Path, picture: Picture, index: dict[str, Any]) -> bool:
    entry = index.get(picture.name, {})
    return entry.get("data") == picture.hash and all(
        entry.get(suffix) == _digest(folder / f"{picture.name}.{suffix}")
        for suffix in picture.suffixes
    )


def _digest(path: Path) -> str | None:
    try:
        return sha256_of(path)
    except OSError:
        return None


def _index(folder: Path) -> dict[str, Any]:
    """The index; empty where there is none, or none that can be read: all is drawn again then."""
    try:
        found = read_json(folder / INDEX)
    except (OSError, ValueError):
        return {}
    entries = found.items() if isinstance(found, dict) else ()
    # A name leads to files that may be removed: it must not lead out of the folder.
    return {
        name: entry
        for name, entry in entries
        if isinstance(entry, dict) and Path(name).name == name and not name.startswith(".")
    }
