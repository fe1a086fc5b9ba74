"""The rooms: which may import which, how large a file may be, and that a name means one thing."""

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
LONGEST_FUNCTION = 60
# Names that each file of a room offers, as the file is chosen by name when the program runs.
INTERFACES = {
    "bench/cli": {"command"},
    "leaderboard/commands": {"command"},
    "bench/diagnosis/trainers": {"attach"},
    "bench/sae/interop": {"build", "matches", "read", "write"},  # `Library`, and what reads live
    "zoo/generators": {"VERSION"},
}


def production_files(root: Path) -> list[Path]:
    """The Python files of the rooms below `root`."""
    tops = ("zoo", "adapters", "bench", "leaderboard")
    return [path for top in tops for path in sorted((root / top).rglob("*.py"))]


def modules(root: Path) -> dict[str, ast.Module]:
    """Every module of the rooms below `root`, parsed."""
    found = {}
    for path in production_files(root):
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
    tops = ("zoo", "adapters", "bench", "leaderboard", "ci", "tests")
    paths = [path for top in tops for path in (ROOT / top).rglob("*.py")]
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in paths
    }
    assert {name: n for name, n in lengths.items() if n > LONGEST_FILE} == {}


def long_functions(tree: ast.Module) -> dict[str, int]:
    """Functions of more lines than a screen shows, without their decorators."""
    return {
        node.name: lines
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > LONGEST_FUNCTION
    }


def test_functions_fit_a_screen() -> None:
    assert {
        name: long for name, tree in modules(ROOT).items() if (long := long_functions(tree))
    } == {}


def test_a_long_function_is_found() -> None:
    text = "class A:\n    async def f():\n" + "        x = 1\n" * LONGEST_FUNCTION
    assert long_functions(ast.parse(text)) == {"f": LONGEST_FUNCTION + 1}
    assert long_functions(ast.parse(text.removesuffix("        x = 1\n"))) == {}


def public_names(tree: ast.Module) -> Iterator[str]:
    """Classes, functions and constants that a module defines for others to import."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names = [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            inner = (each for target in targets for each in ast.walk(target))
            names = [each.id for each in inner if isinstance(each, ast.Name)]
        else:
            continue
        yield from (name for name in names if not name.startswith("_"))


def defined_twice(root: Path) -> dict[str, list[str]]:
    """Public names that two files or more define, with the files."""
    files: dict[str, set[str]] = {}
    for path in production_files(root):
        folder = path.parent.relative_to(root).as_posix()
        for name in public_names(ast.parse(path.read_text(encoding="utf-8"))):
            if name not in INTERFACES.get(folder, ()):
                files.setdefault(name, set()).add(path.relative_to(root).as_posix())
    return {name: sorted(found) for name, found in files.items() if len(found) > 1}


def test_a_public_name_is_defined_in_one_file() -> None:
    assert defined_twice(ROOT) == {}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("class Place: ...", "Place"),
        ("def place() -> None: ...", "place"),
        ("PLACE, OTHER = 1, 2", "PLACE"),
        ("Place: type = int", "Place"),
    ],
)
def test_a_name_defined_twice_is_found(tmp_path: Path, text: str, name: str) -> None:
    for file in ("zoo/hub.py", "bench/activations/shuffle.py"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text(f"{text}\n_PLACE = 1\nfrom zoo.cards import Card\n")
    assert defined_twice(tmp_path)[name] == ["bench/activations/shuffle.py", "zoo/hub.py"]
    assert not {"_PLACE", "Card"} & set(defined_twice(tmp_path))
