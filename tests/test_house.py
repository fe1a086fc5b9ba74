"""The order of the rooms: which room may import which, and how large a file may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Lowest first. Rooms of one floor may know each other, but not in a circle.
FLOORS = [
    {"zoo"},
    {"adapters"},
    {"bench.compute", "bench.intervals", "bench.statistics", "bench.records"},
    {"bench.death"},
    {"bench.sae"},
    {"bench.plan", "bench.diagnosis"},
    {"bench.activations"},
    {"bench.runner"},
    {"bench.cli"},
    {"leaderboard"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# `bench/__init__.py` is the face of all rooms: it names them lazily, for others to use.
# `bench/__main__.py` starts the command.
FACES = {"bench", "bench.__main__"}
LONGEST_FILE = 450


def modules(root: Path) -> dict[str, ast.Module]:
    """Every module of the rooms below `root`, parsed."""
    found = {}
    for top in ("zoo", "adapters", "bench", "leaderboard"):
        for path in sorted((root / top).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imports(tree: ast.Module, known: dict[str, ast.Module]) -> Iterator[str]:
    """The modules of the rooms that a module imports, anywhere in its text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from bench.sae import arms` imports a module, `from bench.sae.arms import Arm` too.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else node.module for name in names]
        else:
            continue
        yield from (name for name in names if name in known)


def room(module: str) -> str:
    """The room of a module: `bench.sae` of `bench.sae.arms`, `zoo` of `zoo.cards`."""
    top, *rest = module.split(".")
    return f"{top}.{rest[0]}" if top == "bench" and rest else top


def faults(root: Path) -> list[str]:
    """What is against the order, a line each."""
    known = modules(root)
    files = {name: set(imports(tree, known)) - {name} for name, tree in known.items()}
    found = []
    rooms: dict[str, set[str]] = {}
    for name, used in files.items():
        for other in used:
            here, there = room(name), room(other)
            if here in FACES or here == there:
                continue
            rooms.setdefault(here, set()).add(there)
            if there in FACES or FLOOR[there] > FLOOR[here]:
                found.append(f"{name} imports {other}, which is above it")
    for what, graph in (("files", files), ("rooms", rooms)):
        # A package's face imports its files, and a file may import its package.
        graph = {a: {b for b in used if not a.startswith(f"{b}.")} for a, used in graph.items()}
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            found.append(f"a circle of {what}: {' -> '.join(error.args[1])}")
    return found


def test_no_import_runs_up_or_in_a_circle() -> None:
    assert faults(ROOT) == []


@pytest.mark.parametrize(
    ("file", "line", "fault"),
    [
        ("bench/death/census.py", "def f():\n    from bench.sae import arms", "which is above it"),
        ("zoo/cards.py", "import adapters.base", "which is above it"),
        ("bench/cli/run.py", "from leaderboard import boards", "which is above it"),
        ("bench/plan/memory.py", "from bench.plan.blocks import Block", "a circle of files"),
        ("bench/statistics/layer.py", "import bench.records.schema", "a circle of rooms"),
    ],
)
def test_this_test_can_fail(tmp_path: Path, file: str, line: str, fault: str) -> None:
    house = {
        "zoo/cards.py": "",
        "adapters/base.py": "from zoo import cards",
        "bench/__init__.py": "",
        "bench/cli/run.py": "import bench.sae.arms",
        "bench/death/census.py": "",
        "bench/plan/blocks.py": "from bench.plan import memory",
        "bench/plan/memory.py": "",
        "bench/records/schema.py": "from bench.statistics import layer",
        "bench/sae/arms.py": "from bench.death.census import Census",
        "bench/statistics/layer.py": "",
        "leaderboard/boards.py": "",
    }
    for path, text in house.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert faults(tmp_path) == []
    (tmp_path / file).write_text(line)
    assert any(fault in each for each in faults(tmp_path))


def test_every_room_has_a_floor_and_bench_holds_rooms_only() -> None:
    rooms = {room(name) for name in modules(ROOT)} - FACES
    assert rooms == set(FLOOR)
    beside = {path.name for path in (ROOT / "bench").glob("*.py")}
    assert beside <= {"__init__.py", "__main__.py", "intervals.py"}


def test_files_stay_short() -> None:
    tops = ("zoo", "adapters", "bench", "leaderboard", "ci")
    paths = [path for top in tops for path in (ROOT / top).rglob("*.py")]
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in paths
    }
    assert {name: n for name, n in lengths.items() if n > LONGEST_FILE} == {}
