"""Light commands answer at once: they import no torch, and this test can fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.records import make_grid, write_records

HEAVY = ("torch", "transformers", "numpy", "pandas", "scipy")

# Runs a command in a fresh interpreter and prints which heavy modules it imported.
PROBE = """
import sys
from bench.cli.main import run_cli
code = run_cli({arguments!r})
print("\\nIMPORTED", code, *[name for name in {heavy!r} if name in sys.modules])
"""


def imported(*arguments: str, cwd: Path, program: str = PROBE) -> tuple[int, set[str]]:
    """(exit code, heavy modules) of a command in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", program.format(arguments=list(arguments), heavy=HEAVY)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=True,
    )
    words = done.stdout.rsplit("IMPORTED", 1)[1].split()
    return int(words[0]), set(words[1:])


@pytest.mark.parametrize(
    "arguments", [["--help"], ["list"], ["list", "--json"], ["run", "--help"], ["--version"]]
)
def test_help_and_list_import_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    assert imported(*arguments, cwd=tmp_path) == (0, set())


@pytest.mark.parametrize("arguments", [["report"], ["status"], ["validate", "runs"]])
def test_commands_on_records_import_no_torch(tmp_path: Path, arguments: list[str]) -> None:
    write_records(tmp_path / "runs", make_grid())
    code, modules = imported(*arguments, cwd=tmp_path)
    assert code in (0, 1)
    assert "torch" not in modules
    assert "transformers" not in modules


def test_planning_imports_no_torch(tmp_path: Path) -> None:
    code, modules = imported("plan", cwd=tmp_path)
    assert code == 0
    assert not modules & {"torch", "transformers"}


def test_this_test_can_fail(tmp_path: Path) -> None:
    program = "import numpy\n" + PROBE
    assert imported("list", cwd=tmp_path, program=program) == (0, {"numpy"})
