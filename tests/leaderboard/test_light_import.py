from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "pandas", "tabulate", "matplotlib", "scipy", "transformers")


def _imported(statement: str) -> set[str]:
    """Which heavy modules a fresh interpreter holds after a statement."""
    code = f"{statement}\nimport sys\nprint(*({HEAVY!r} & sys.modules.keys()))".replace(
        repr(HEAVY), repr(set(HEAVY))
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_room_stays_light() -> None:
    assert _imported("import leaderboard") == set()


def test_rendering_stays_light() -> None:
    code = "from leaderboard import render, summary; from tests.records import make_grid as g\n"
    assert _imported(code + "render(g()); summary(g())") <= {"numpy", "tabulate"}


@pytest.mark.parametrize("module", ["numpy", "tabulate"])
def test_this_test_can_fail(module: str) -> None:
    assert module in _imported(f"import {module}")
