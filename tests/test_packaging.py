"""The wheel holds the four rooms and their data, and runs where torch is not installed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from tests.records import make_grid, write_records

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as for a release: out of the sdist of what git tracks or would track."""
    source = tmp_path_factory.mktemp("source")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source],
        check=True,
        capture_output=True,
    )
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_holds_the_rooms_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {
        "adapters",
        "bench",
        "gammabench.py",
        "leaderboard",
        "zoo",
    }
    tracked = [
        path.relative_to(ROOT).as_posix()
        for room in ("adapters", "bench", "leaderboard", "zoo")
        for path in (ROOT / room).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    assert set(tracked) <= set(names), "a file of a room is not in the wheel"


def test_in_a_bare_environment_light_commands_work_without_torch(
    wheel: Path, tmp_path: Path
) -> None:
    environment = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (site,) = environment.glob("lib/python*/site-packages")
    offline = ["--no-deps", "--no-index", "--disable-pip-version-check", "--quiet"]
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", environment, "install", *offline, wheel],
        check=True,
    )
    # The light dependencies only, lent by this environment; torch is not among them.
    for name in ("click", "numpy", "packaging", "pydantic", "PyYAML", "tabulate", "psutil"):
        _lend(name, site)
    write_records(tmp_path / "runs", make_grid())

    def run(*arguments: str, program: str = "bench") -> str:
        done = subprocess.run(
            [environment / "bin" / program, *arguments],
            cwd=tmp_path,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "tiny-gpt2" in run("list")
    assert "leaderboards" in run("report")
    assert run("report", "--check") == ""
    # What an error would advise here is what pip takes.
    line = run("-c", "from zoo import install_line; print(install_line('plot'))", program="python")
    assert line == f'pip install "gammabench[plot] @ {wheel.as_uri()}"\n'
    pip = [sys.executable, "-m", "pip", "--python", environment]
    subprocess.run([*pip, *shlex.split(line)[1:], "--dry-run", *offline], check=True)


def _lend(distribution: str, site: Path) -> None:
    """Links an installed distribution, and what it requires, into another environment."""
    try:
        found = metadata.distribution(distribution)
    except metadata.PackageNotFoundError:  # required on another platform only
        return
    for top in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
        if (site / top).exists():
            return
        (site / top).symlink_to(Path(str(found.locate_file(top))))
    for requirement in found.requires or ():
        if "extra ==" not in requirement:
            _lend(re.split(r"[^A-Za-z0-9._-]", requirement)[0], site)


def test_constraints_pin_every_direct_dependency_of_every_extra() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [*PROJECT["project"]["dependencies"], *(r for e in extras.values() for r in e)]
    names = {
        re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower().replace("_", "-")
        for requirement in wanted
        if not requirement.startswith("gammabench")
    }
    assert names <= pinned


def test_the_extras_are_those_promised() -> None:
    extras = set(PROJECT["project"]["optional-dependencies"])
    assert {"language", "vision", "protein", "genomic", "offline", "test", "all"} <= extras
