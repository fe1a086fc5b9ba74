"""The committed table of training facts is what its records give."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from scipy import stats

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "results" / "synthetic"


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    script = ROOT / "ci" / "synthetic_truth.py"
    command = [sys.executable, str(script), "--check", "--folder", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_the_committed_table_is_current_and_its_facts_hold() -> None:
    done = check(COMMITTED)
    assert done.returncode == 0, done.stderr


def test_a_table_that_was_changed_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "synthetic"
    shutil.copytree(COMMITTED, folder)
    readme = folder / "README.md"
    readme.write_text(readme.read_text(encoding="utf-8").replace("0.99", "0.98"), encoding="utf-8")
    done = check(folder)
    assert done.returncode == 1
    assert "README.md is not current" in done.stderr


def test_a_missing_arm_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "synthetic"
    shutil.copytree(COMMITTED, folder)
    for path in (folder / "records" / "synthetic-gamma4").iterdir():
        if '"arm": "centered"' in path.read_text(encoding="utf-8"):
            path.unlink()
    done = check(folder)
    assert done.returncode == 1
    assert "does not hold every arm with the same seeds" in done.stderr


def test_intervals_are_students(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "ci"))
    from synthetic_truth import Mean  # type: ignore[import-not-found]

    values = [0.2, 0.35, 0.4]
    mean = Mean.of(values)
    expected = stats.t.interval(0.95, 2, loc=sum(values) / 3, scale=stats.sem(values))
    assert (mean.low, mean.high) == pytest.approx(expected)
    assert Mean.of([0.2, None]).percent() == "-"
    assert Mean.of([0.0, 0.5]).percent() == "25.0 [0.0, 100.0]"
