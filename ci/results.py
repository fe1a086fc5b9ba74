"""Results as data: what may enter `results/`, and how it gets there.

    python ci/results.py check --base origin/main     the change since BASE is one that may enter
    python ci/results.py take FOLDER                  copy a run's records in, rebuild the boards

Records are read, never run. One may enter if it validates, its name is the hash of its Spec, it
was neither limited nor made from a checkout with uncommitted changes, and no record that was there
before is lost: a cell may get a new record, not none. Beside them stands only what the boards make
of them, and what was there before and is the same.

Nothing that is made from records is trusted: boards and figures are made again from the records,
and compared whole. What is odd about a record that may enter is said for a person to look at.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.death.plausible import doubts
from bench.records.store import RecordStore, read_record
from leaderboard import figures_available, write_boards
from leaderboard.boards import BOARDS_FOLDER
from leaderboard.figures.store import FIGURES_FOLDER, INDEX, index_text
from zoo.errors import BenchError
from zoo.files import sha256_of

FOLDER = "results"

# Bytes of all results together: what a check of them may have to read and draw.
LARGEST = 1 << 28


def problems_of(path: Path) -> list[str]:
    """Why the record in a file may not enter; nothing if it may."""
    try:
        record = read_record(path)
    except BenchError as error:
        return [str(error)]
    found = []
    if path.parent.name != record.spec.model:
        found.append(f"{path}: is of model {record.spec.model!r}, not of its folder's")
    if record.spec.limit is not None:
        found.append(f"{path}: is of a run limited to {record.spec.limit} tokens")
    if record.provenance.git_dirty:
        found.append(f"{path}: was made from a checkout with uncommitted changes")
    return found


def check(root: Path, base: str) -> list[str]:
    """All problems of `root/results` and of what changed in it since the commit `base`."""
    results = root / FOLDER
    store = RecordStore(results)
    found = [problem for path in store.paths() for problem in problems_of(path)]
    known = set(store.paths())
    strangers = [path for path in _files(store.folder) if path not in known]
    found += [f"{path}: is not a record" for path in strangers]
    found += [f"{path}: is a link" for path in _files(results) if path.is_symlink()]
    changed = _git(root, "diff", "--name-status", "--no-renames", base, "--", f"{FOLDER}/records")
    for line in changed.splitlines():
        status, name = line.split("\t", 1)
        if status == "D":
            found.append(f"{name}: was removed; records are only added or made again")
    size = sum(path.stat().st_size for path in _files(results) if not path.is_symlink())
    if size > LARGEST:
        found.append(f"{results}: holds {size:,} bytes, more than {LARGEST:,}")
    if found:
        return found
    with tempfile.TemporaryDirectory() as folder:
        made = _made_again(results, Path(folder))
        found += _differences(results / BOARDS_FOLDER, made)
        may_stand = known | {results / path.relative_to(folder) for path in _files(made)}
    may_stand |= _unchanged(root, base)
    foreign = [path for path in _files(results) if path not in may_stand]
    return found + [f"{path}: is made from no record" for path in foreign]


_OTHER = "differs from what the records give; run `bench report`"


def _made_again(results: Path, folder: Path) -> Path:
    """The boards that the records give, below `folder`; with figures if the results have any."""
    shutil.copytree(RecordStore(results).folder, RecordStore(folder).folder)
    figures = (results / BOARDS_FOLDER / FIGURES_FOLDER).exists()
    if figures and not figures_available():
        sys.exit("results.py: figures are compared by drawing them: install matplotlib")
    write_boards(folder, figures=figures)
    return folder / BOARDS_FOLDER


def _differences(boards: Path, made: Path) -> list[str]:
    """What is missing from the boards, or is not to the byte what was made again, a line each.

    A PNG may be compressed otherwise, if it shows the same and holds nothing else; the index of the
    figures then has its digest.
    """
    found = []
    for path in _files(made):
        name = path.relative_to(made)
        here, wanted = boards / name, path.read_bytes()
        if name == Path(FIGURES_FOLDER, INDEX):
            wanted = _with_digests(wanted, here.parent)
        if not here.is_file():
            found.append(f"{here}: is missing")
        elif here.read_bytes() != wanted:
            if path.suffix != ".png":
                found.append(f"{here}: {_OTHER}")
            elif (reason := _other_picture(here, path)) is not None:
                found.append(f"{here}: {reason}")
    return found


def _with_digests(index: bytes, folder: Path) -> bytes:
    """The index of the figures with the digests of the PNG files there are."""
    entries = json.loads(index)
    for name, entry in entries.items():
        picture = folder / f"{name}.png"
        if "png" in entry and picture.is_file():
            entry["png"] = sha256_of(picture)
    return index_text(entries).encode()


# The parts of a PNG that a drawing is made of; text, profiles and what follows its end are not.
_PNG_PARTS = (b"IHDR", b"pHYs", b"PLTE", b"tRNS", b"IDAT", b"IEND")


def _other_picture(path: Path, made: Path) -> str | None:
    """Why a PNG is not the one that was made; None where it shows the same and holds no more."""
    from matplotlib.image import imread

    content, at = path.read_bytes(), 8
    parts: list[bytes] = []
    while at + 8 <= len(content) and (not parts or parts[-1] != b"IEND"):
        parts.append(content[at + 4 : at + 8])
        at += 12 + int.from_bytes(content[at : at + 4], "big")
    # Signature, size and kind of pixels come first, so that no other size is ever decoded.
    if content[:29] != made.read_bytes()[:29]:
        return _OTHER
    if at != len(content) or parts[-1:] != [b"IEND"] or not set(parts) <= set(_PNG_PARTS):
        return "is not just a picture"
    try:
        shown, wanted = imread(path), imread(made)
    except (OSError, SyntaxError, ValueError) as error:
        return f"is no picture ({error})"
    return None if bool((shown == wanted).all()) else _OTHER


def oddities(root: Path, base: str) -> list[str]:
    """What a person should look at in the records that came since the commit `base`, a line each.

    They may enter all the same: `bench.death.plausible` says how far from what is usual they are.
    """
    before = _unchanged(root, base)
    new = [path for path in RecordStore(root / FOLDER).paths() if path not in before]
    return [f"{path}: {doubt}" for path in new for doubt in doubts(read_record(path))]


def _unchanged(root: Path, base: str) -> set[Path]:
    """The files of `root/results` that are what they were at the commit `base`."""
    before = _git(root, "ls-tree", "-r", "-z", "--name-only", base, "--", FOLDER).split("\0")
    changed = _git(root, "diff", "-z", "--name-only", "--no-renames", base, "--", FOLDER)
    return {root / name for name in set(before) - set(changed.split("\0"))}


def _files(folder: Path) -> list[Path]:
    """All files below a folder, and links, which are not followed."""
    return sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())


def take(root: Path, run: Path) -> list[Path]:
    """Copies a run's records into `root/results` and writes the boards; the records taken.

    Raises:
        SystemExit: one of them may not enter; then none is taken.
    """
    paths = RecordStore(run).paths()
    found = [problem for path in paths for problem in problems_of(path)]
    if found or not paths:
        sys.exit("\n".join(found) or f"results.py: no records in {run}")
    results = RecordStore(root / FOLDER)
    taken = []
    for path in paths:
        target = results.path(read_record(path).spec)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        taken.append(target)
    write_boards(root / FOLDER)
    return taken


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"results.py: git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="What may enter results/, and how.")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1])
    commands = parser.add_subparsers(dest="command", required=True)
    checking = commands.add_parser("check", help="fail if results/ holds what may not enter")
    checking.add_argument("--base", required=True, help="the commit to compare with")
    taking = commands.add_parser("take", help="copy a run's records in")
    taking.add_argument("run", type=Path, help="an output folder of `bench run`")
    chosen = parser.parse_args(arguments)
    if chosen.command == "take":
        print(f"{len(take(chosen.root, chosen.run))} records taken")
        return
    found = check(chosen.root, chosen.base)
    for problem in found:
        print(problem, file=sys.stderr)
    if found:
        sys.exit(1)
    for line in oddities(chosen.root, chosen.base):
        # A workflow shows such a line beside the change.
        print(f"::warning::{line}" if os.environ.get("GITHUB_ACTIONS") else f"look at {line}")
    print(f"{len(RecordStore(chosen.root / FOLDER).paths())} records may stand")


if __name__ == "__main__":
    main()
