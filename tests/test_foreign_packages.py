"""Another distribution's package in the place of one of ours is found and named."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("zoo", "adapters", "bench", "leaderboard")
BENCH = (
    "import sys; sys.argv = ['/somewhere/bin/bench', 'list']; from gammabench import main; main()"
)


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """A copy of this distribution, as in site-packages."""
    site = tmp_path / "ours"
    site.mkdir()
    for room in ROOMS:
        shutil.copytree(ROOT / room, site / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "gammabench.py", site)
    _metadata(site, "gammabench", [f"{room}/__init__.py" for room in ROOMS])
    return site


def _metadata(site: Path, name: str, files: list[str]) -> None:
    info = site / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))


def _foreign(site: Path) -> None:
    """A tiny distribution that ships a package `adapters`."""
    (site / "adapters").mkdir(parents=True, exist_ok=True)
    (site / "adapters" / "__init__.py").write_text("__version__ = '1.0'\n")
    _metadata(site, "other-adapters", ["adapters/__init__.py"])


def _run(arguments: list[str], *sites: Path) -> subprocess.CompletedProcess[str]:
    """Python in an empty folder, with these folders first among its packages."""
    path = os.pathsep.join(map(str, sites))
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=sites[-1].parent,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("where", ["first", "overwritten"])
def test_a_foreign_package_is_named_with_the_remedy(ours: Path, tmp_path: Path, where: str) -> None:
    sites = [ours]
    if where == "first":
        sites.insert(0, tmp_path / "theirs")
    _foreign(sites[0])
    taken = sites[0] / "adapters" / "__init__.py"
    says = (
        f"{taken} is not gammabench's package 'adapters', and stands in its way. "
        "pip uninstall other-adapters, or give gammabench an environment of its own; "
        "then install it again"
    )
    for arguments in (["-c", BENCH], ["-m", "bench", "list"], ["-m", "bench.cli", "list"]):
        done = _run(arguments, *sites)
        assert (done.returncode, done.stdout, done.stderr) == (2, "", f"bench: {says}\n")
    done = _run(["-c", "import gammabench"], *sites)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"gammabench.ForeignPackage: {says}"


def test_a_file_of_the_users_own_is_named_too(ours: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "zoo.py").write_text("")
    done = _run(["-c", "import gammabench"], tmp_path / "mine", ours)
    assert f"Rename {tmp_path / 'mine' / 'zoo.py'}, or give gammabench" in done.stderr


def test_a_missing_room_says_so(ours: Path) -> None:
    (ours / "leaderboard").rename(ours / "elsewhere")
    done = _run(["-S", "-c", "import gammabench"], ours)
    assert "gammabench's package 'leaderboard' is missing; install it again" in done.stderr


def test_where_all_is_well_nothing_is_said_and_little_imported(ours: Path) -> None:
    code = (
        "import gammabench, sys; print('torch' in sys.modules, 'importlib.metadata' in sys.modules)"
    )
    done = _run(["-c", code], ours)
    assert (done.returncode, done.stdout, done.stderr) == (0, "False False\n", "")
    for arguments in (["-c", BENCH], ["-m", "bench", "list"], ["-m", "bench.cli", "list"]):
        done = _run(arguments, ours)
        assert (done.returncode, done.stderr) == (0, "")
        assert "tiny-gpt2" in done.stdout


def test_the_face_offers_what_bench_does() -> None:
    import bench
    import gammabench

    assert gammabench.diagnose is bench.diagnose
    assert gammabench.load_sae is bench.load_sae
    assert set(gammabench.__all__) <= set(dir(gammabench))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = gammabench.nothing
