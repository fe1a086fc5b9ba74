"""The figures as files: drawn where they are out of date, and checked without drawing.

`figures/index.json` says of every picture which data it was drawn from and what its files hold. So
a figure is drawn again only when its data changed, and a check needs no drawing library; another
version of it, which would draw other bytes, makes no difference.
"""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

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
    folder = boards / FIGURES_FOLDER
    old = _index(folder)
    current = {each.name: old[each.name] for each in pictures if _current(folder, each, old)}
    if len(current) == len(pictures):
        index = current
    elif draw_new and available():
        fresh = [each for each in pictures if each.name not in current]
        index = current | dict(_draw(folder, fresh, processes))
    else:
        index = {}
    for name in old.keys() - index.keys():
        for suffix in _SUFFIXES:
            remove(folder / f"{name}.{suffix}")
    if index != old:
        if index:
            write_atomically(folder / INDEX, index_text(index))
        else:
            remove(folder / INDEX)
    return [picture for picture in pictures if picture.name in index]


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


def _draw(
    folder: Path, pictures: Sequence[Picture], processes: int
) -> Iterator[tuple[str, dict[str, str]]]:
    """Draws pictures; the names and entries that the index gets."""
    for picture, files in zip(pictures, _drawn(pictures, processes), strict=True):
        entry = {"data": picture.hash}
        for suffix, content in files.items():
            write_atomically(folder / f"{picture.name}.{suffix}", content)
            entry[suffix] = hashlib.sha256(content).hexdigest()
        yield picture.name, entry


def _drawn(pictures: Sequence[Picture], processes: int) -> Iterator[dict[str, bytes]]:
    """The files of each picture, in their order."""
    workers = min(processes, len(pictures) // _WORTH_A_PROCESS)
    if workers < 2:
        yield from map(draw, pictures)
        return
    # Not forked: a run has the threads of torch beside this one. An interrupt is this process' to
    # tell of.
    ignore = (signal.SIGINT, signal.SIG_IGN)
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, context, signal.signal, ignore) as pool:
        yield from pool.map(draw, pictures)


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
