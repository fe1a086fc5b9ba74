"""The sets of versions that are tried are what they are called, and a failure of one is told."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ci import dependency_matrix as matrix
from tests.test_packaging import PROJECT

DIRECT = [Requirement(text) for text in PROJECT["project"]["dependencies"]]

Main = Callable[..., int]


def test_the_oldest_versions_are_the_highest_lower_bounds() -> None:
    bounds = ["numpy>=1.26", "packaging>=23", "packaging>=23.2", "A_b>=4.48,<6", "c==2.0"]
    assert matrix.bounds_of(bounds) == ["a-b==4.48", "c==2.0", "numpy==1.26", "packaging==23.2"]
    with pytest.raises(ValueError, match="torch<3 has no lower bound"):
        matrix.bounds_of(["torch<3"])


@pytest.mark.parametrize("name", ["oldest", "pinned"])
def test_the_project_allows_every_version_that_is_tried(name: str) -> None:
    lines = matrix.SETS[name].constraints()
    pins = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    pins = {canonicalize_name(package): version for package, version in pins.items()}
    for requirement in DIRECT:
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)])


def test_what_pip_resolves_is_held_by_nothing() -> None:
    assert matrix.SETS["resolved"] == matrix.VersionSet(list)
    assert matrix.SETS["resolved"].constraints() == []


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that are run, none of them really; installing `oldest` fails."""
    commands: list[list[str]] = []

    def run(command: list[object], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append([str(part) for part in command])
        if "venv" in commands[-1]:
            Path(commands[-1][-1]).mkdir(parents=True, exist_ok=True)
        failed = any("constraints-oldest" in part for part in commands[-1])
        return subprocess.CompletedProcess(command, int(failed))

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_an_environment_is_made_once(pip: list[list[str]], tmp_path: Path) -> None:
    python = tmp_path / "newest" / "bin" / "python"
    assert matrix.environment(tmp_path, "newest") == python
    install = pip[-1]
    assert install[:4] == [str(python), "-m", "pip", "install"]
    assert {"transformers>=5", f"{matrix.ROOT}[hdf5,parquet,plot]"} <= set(install)
    made = len(pip)
    assert matrix.environment(tmp_path, "newest") == python
    assert len(pip) == made


def test_what_was_only_resolved_is_not_taken_for_made(pip: list[list[str]], tmp_path: Path) -> None:
    matrix.environment(tmp_path, "pinned", only_resolve=True)
    assert "--dry-run" in pip[-1]
    matrix.environment(tmp_path, "pinned")
    assert "--dry-run" not in pip[-1]


def test_versions_that_do_not_go_together_are_told(
    pip: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):  # an environment that was half made is not taken for made
        assert matrix.environment(tmp_path, "oldest") is None
        assert capsys.readouterr().err == "oldest: pip cannot install these versions together\n"


def test_an_environment_without_activations_is_a_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    assert matrix.compared({"pinned": broken}, tmp_path / "made") == float("inf")
    assert capsys.readouterr().err == "pinned: its activations cannot be measured\n"
    assert matrix.compared({}, tmp_path / "made") == 0.0


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> Main:
    """`main` with environments that are there, and what is found in them."""

    def call(
        *arguments: str, absent: str = "", problems: tuple[str, ...] = (), worst: float = 0.0
    ) -> int:
        monkeypatch.setattr(sys, "argv", ["dependency_matrix.py", *arguments])
        monkeypatch.setattr(
            matrix,
            "environment",
            lambda work, name, **_: None if name == absent else Path("python"),
        )
        monkeypatch.setattr(matrix, "problems_of", lambda python, output: iter(problems))
        monkeypatch.setattr(matrix, "compared", lambda pythons, made: worst)
        return matrix.main()

    return call


def test_the_exit_code_says_whether_every_set_works(
    main: Main, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main() == 0
    assert main("pinned", "newest", worst=1e-5) == 0
    assert main("pinned", "newest", worst=1e-3) == 1
    assert main(absent="oldest") == 1
    assert main("--resolve", absent="oldest") == 1
    assert main("--resolve") == 0
    capsys.readouterr()
    assert main("resolved", problems=("cells fail",)) == 1
    assert capsys.readouterr().err == "resolved: cells fail\n"


def test_an_unknown_set_is_named(main: Main, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main("latest")
    assert stop.value.code == 2
    assert (
        "unknown set 'latest'; known: pinned, oldest, resolved, newest" in capsys.readouterr().err
    )
