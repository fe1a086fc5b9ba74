"""Results as data: what may enter `results/`, and how it gets there.

    python ci/results.py check --base origin/main     the change since BASE is one that may enter
    python ci/results.py take FOLDER                  copy a run's records in, rebuild the boards

Records are read, never run. One may enter if it validates, its name is the hash of its Spec, it
was neither limited nor made from a checkout with uncommitted changes, and no record that was there
before is lost: a cell may get a new record, not none. Beside them stands only what the boards make
of them, and what was there before and is the same.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

from bench.records.store import RecordStore, read_record
from leaderboard import board_files, check_boards, write_boards
from zoo.errors import BenchError

FOLDER = "results"


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
    if not found:
        found += check_boards(results)
        made = known | board_files(results)
        may_stand = made | _unchanged(root, base)
        foreign = [path for path in _files(results) if path not in may_stand]
        found += [f"{path}: is made from no record" for path in foreign]
        drawings = [path for path in made if path.suffix == ".svg" and path.is_file()]
        found += [f"{path}: is not just a drawing" for path in sorted(drawings) if _acts(path)]
    return found


def _unchanged(root: Path, base: str) -> set[Path]:
    """The files of `root/results` that are what they were at the commit `base`."""
    before = _git(root, "ls-tree", "-r", "-z", "--name-only", base, "--", FOLDER).split("\0")
    changed = _git(root, "diff", "-z", "--name-only", "--no-renames", base, "--", FOLDER)
    return {root / name for name in set(before) - set(changed.split("\0"))}


def _files(folder: Path) -> list[Path]:
    """All files below a folder, and links, which are not followed."""
    return sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())


# The index of the figures comes with them, so it cannot vouch for them.
_ACTIVE = re.compile(
    r"<\s*(script|foreignobject|iframe|a|animate|set)\b|\son\w+\s*=|<!entity|@import"
    r"|(href|src)\s*=\s*[\"'](?!#|data:image/png;base64,)",
    re.IGNORECASE,
)


def _acts(drawing: Path) -> bool:
    """Whether an SVG holds more than shapes: scripts, links, or what is fetched from elsewhere."""
    return bool(_ACTIVE.search(drawing.read_text(encoding="utf-8", errors="replace")))


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
    print(f"{len(RecordStore(chosen.root / FOLDER).paths())} records may stand")


if __name__ == "__main__":
    main()
