"""What CI publishes: the workflow files are sound, and results enter only as checked data."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from bench.records.store import RecordStore
from leaderboard import write_boards
from tests.records import make_grid, write_records

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.fixture(scope="module")
def results() -> ModuleType:
    return importlib.import_module("ci.results")


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with committed results of two models."""
    root = tmp_path / "repository"
    root.mkdir()
    git(root, "init", "-q", "-b", "main")
    write_records(root / "results", make_grid(models=["tiny-a", "tiny-b"], layers=[0]))
    write_boards(root / "results", figures=False)
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "results")
    return root


# ------------------------------------------------------------------------------------- workflows


def test_the_workflow_files_follow_the_schema() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema"),
            *("--builtin-schema", "vendor.github-workflows"),
            *WORKFLOWS,
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def steps(path: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values()
    return [step for job in jobs for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_by_commit_and_runs_are_one_line(path: Path) -> None:
    for step in steps(path):
        if "uses" in step:
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"]), step["uses"]
        else:
            assert "\n" not in step["run"].strip(), "longer work belongs in a script of ci/"
            assert "${{" not in step["run"], "expressions reach a shell through env only"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_only_the_jobs_that_commit_and_publish_may_write(path: Path) -> None:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert document["permissions"] == {"contents": "read"}
    jobs = document["jobs"].items()
    writing = [name for name, job in jobs if "write" in job.get("permissions", {}).values()]
    allowed = {"publish": ["propose"], "release": ["publish"], "pages": ["deploy"]}
    assert writing == allowed.get(path.stem, [])
    for name in writing:
        for step in document["jobs"][name]["steps"]:
            run = step.get("run", "bash ci/propose.sh")
            assert run.startswith("bash ci/propose.sh"), f"{run}: {name} only commits"
            assert "setup" not in step.get("uses", ""), f"{name} installs nothing"


def test_the_published_site_leads_to_the_page(tmp_path: Path) -> None:
    if not (ROOT / "results" / "leaderboards").is_dir():
        pytest.skip("no committed results in this checkout")
    subprocess.run(["bash", ROOT / "ci" / "site.sh", tmp_path / "site"], check=True)
    first = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    (target,) = set(re.findall(r"(?:url|href)=\"?([^\">]+)", first))
    assert (tmp_path / "site" / target).is_file()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_the_scripts_that_workflows_call_exist(path: Path) -> None:
    for step in steps(path):
        for name in re.findall(r"(?:ci/\S+\.(?:py|sh)|\.ci/run)", step.get("run", "")):
            assert (ROOT / name).is_file()


@pytest.mark.parametrize("path", sorted((ROOT / "ci").glob("*.sh")), ids=lambda path: path.name)
def test_shell_scripts_parse_and_stop_at_errors(path: Path) -> None:
    subprocess.run(["bash", "-n", path], check=True)
    assert "set -euo pipefail" in path.read_text(encoding="utf-8")


# --------------------------------------------------------------------------------------- results


def test_committed_results_may_stand(results: ModuleType, repository: Path) -> None:
    assert results.check(repository, "HEAD") == []


def test_new_results_may_enter(
    results: ModuleType, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Drawing takes long; what of it may enter has tests of its own.
    monkeypatch.setattr(results, "write_boards", lambda at, **_: write_boards(at, figures=False))
    write_records(tmp_path / "run", make_grid(models=["tiny-c"], layers=[0]))
    taken = results.take(repository, tmp_path / "run")
    assert len(taken) == len(RecordStore(tmp_path / "run").paths())
    git(repository, "add", "-A")
    assert results.check(repository, "HEAD") == []
    board = repository / "results" / "leaderboards" / "README.md"
    assert "tiny-c" in board.read_text(encoding="utf-8")


def test_nothing_may_be_removed(results: ModuleType, repository: Path) -> None:
    path = RecordStore(repository / "results").paths()[0]
    path.unlink()
    write_boards(repository / "results", figures=False)
    (problem,) = results.check(repository, "HEAD")
    assert "was removed" in problem
    assert path.name in problem


def test_an_edited_record_is_refused(results: ModuleType, repository: Path) -> None:
    path = RecordStore(repository / "results").paths()[0]
    data = json.loads(path.read_text(encoding="utf-8"))
    data["provenance"]["seconds"] = 0
    path.write_text(json.dumps(data), encoding="utf-8")
    assert any("was edited" in problem for problem in results.check(repository, "HEAD"))


def test_a_record_under_another_name_or_folder_is_refused(
    results: ModuleType, repository: Path
) -> None:
    path = RecordStore(repository / "results").paths()[0]
    other = path.parent.parent / "tiny-z" / path.name
    other.parent.mkdir()
    other.write_bytes(path.read_bytes())
    found = results.check(repository, "HEAD")
    assert any("not of its folder's" in problem for problem in found)
    other.rename(other.with_name("note.txt"))
    assert any("is not a record" in problem for problem in results.check(repository, "HEAD"))


def test_limited_and_dirty_runs_are_refused(
    results: ModuleType, repository: Path, tmp_path: Path
) -> None:
    from bench.records.schema import make_record

    (good, *_) = make_grid(models=["tiny-d"])
    limited = type(good.spec)(**good.spec.model_dump() | {"limit": 256})
    dirty = good.provenance.model_copy(update={"git_dirty": True})
    write_records(tmp_path / "limited", [make_record(limited, good.result, good.provenance)])
    write_records(tmp_path / "dirty", [make_record(good.spec, good.result, dirty)])
    for name, says in (("limited", "limited to 256"), ("dirty", "uncommitted changes")):
        with pytest.raises(SystemExit, match=says):
            results.take(repository, tmp_path / name)
    assert git(repository, "status", "--porcelain") == "", "nothing was taken"


def test_boards_that_are_not_current_are_refused(results: ModuleType, repository: Path) -> None:
    board = repository / "results" / "leaderboards" / "README.md"
    board.write_text(board.read_text(encoding="utf-8").replace("tiny-a", "tiny-x"))
    assert any("differs" in problem for problem in results.check(repository, "HEAD"))


@pytest.mark.parametrize("name", ["x.py", "leaderboards/page/x.js", "leaderboards/models/x.html"])
def test_a_file_that_no_record_makes_is_refused(
    results: ModuleType, repository: Path, name: str
) -> None:
    (repository / "results" / name).write_text("x", encoding="utf-8")
    (problem,) = results.check(repository, "HEAD")
    assert problem.endswith(f"{name}: is made from no record")


def test_what_was_there_before_may_stand_as_it_was(results: ModuleType, repository: Path) -> None:
    table = repository / "results" / "by hand" / "größe.md"
    table.parent.mkdir()
    table.write_text("measured otherwise\n", encoding="utf-8")
    git(repository, "add", ".")
    git(repository, "commit", "-q", "-m", "a table")
    assert results.check(repository, "HEAD") == []
    table.write_text("edited\n", encoding="utf-8")
    (problem,) = results.check(repository, "HEAD")
    assert "is made from no record" in problem
    table.unlink()
    assert results.check(repository, "HEAD") == []


@pytest.mark.parametrize("name", ["records/linked", "leaderboards/linked", "records/tiny-a/x.json"])
def test_links_are_refused(results: ModuleType, repository: Path, name: str) -> None:
    (repository / "results" / name).symlink_to("/")
    assert any("is a link" in problem for problem in results.check(repository, "HEAD"))


@pytest.fixture(scope="module")
def drawn_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose results have figures."""
    pytest.importorskip("matplotlib")
    root = tmp_path_factory.mktemp("drawn") / "repository"
    root.mkdir()
    git(root, "init", "-q", "-b", "main")
    write_records(root / "results", make_grid(layers=[0]))
    write_boards(root / "results")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "figures")
    return root


@pytest.fixture
def drawn(drawn_once: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(drawn_once, tmp_path / "drawn"))


def figures_of(root: Path) -> Path:
    return root / "results" / "leaderboards" / "figures"


def replace(drawing: Path, content: bytes) -> None:
    """Edits a figure, and the index so that it vouches for it."""
    drawing.write_bytes(content)
    index = json.loads((drawing.parent / "index.json").read_text(encoding="utf-8"))
    index[drawing.stem][drawing.suffix[1:]] = hashlib.sha256(content).hexdigest()
    text = json.dumps(index, indent=1, sort_keys=True) + "\n"
    (drawing.parent / "index.json").write_text(text, encoding="utf-8")


ADDITIONS = [
    *("<script>x</script>", '<g onload="x"/>', '<image href="//h/x"/>', "<a/>", "<!-- x -->", " "),
    '<x:script xmlns:x="http://www.w3.org/2000/svg">x</x:script>',
    '<h:iframe xmlns:h="http://www.w3.org/1999/xhtml" src="http://h/"/>',
    '<rect style="fill:url(http://h/x)"/>',
]


def test_a_figure_is_what_the_records_draw_or_refused(
    results: ModuleType, drawn: Path, tmp_path: Path
) -> None:
    """Though its index, which comes with it, says that it is current."""
    made = results._made_again(drawn / "results", tmp_path / "made")
    drawing = min(figures_of(drawn).glob("*.svg"))
    boards, before = drawing.parents[1], drawing.read_bytes()
    assert results._differences(boards, made) == []
    for addition in ADDITIONS:
        replace(drawing, before.replace(b"</svg>", f"{addition}</svg>".encode()))
        found = results._differences(boards, made)
        named = {Path(line.partition(":")[0]) for line in found}
        assert named == {drawing, drawing.with_name("index.json")}, addition


def test_a_png_may_be_packed_otherwise_but_hold_nothing_else(
    results: ModuleType, drawn: Path, tmp_path: Path
) -> None:
    from matplotlib.image import imread, imsave

    picture = min(figures_of(drawn).glob("*.png"))
    made, before = tmp_path / picture.name, picture.read_bytes()
    made.write_bytes(before)
    imsave(picture, imread(made), pil_kwargs={"compress_level": 1}, metadata={"Software": None})
    assert picture.read_bytes() != before
    assert results._other_picture(picture, made) is None
    other = imread(made)
    other[0, 0] = 0
    imsave(picture, other, metadata={"Software": None})
    assert "differs" in results._other_picture(picture, made)
    imsave(picture, imread(made), metadata={"Software": None, "Comment": "<script>"})
    assert "not just a picture" in results._other_picture(picture, made)
    for content in (b"<html>", before + b"<html>", before[:200], before[:-12], b""):
        picture.write_bytes(content)
        assert results._other_picture(picture, made) is not None, content[:20]


def test_another_packing_of_a_png_may_stand_with_its_index(
    results: ModuleType, drawn: Path
) -> None:
    from matplotlib.image import imread, imsave

    picture = min(figures_of(drawn).glob("*.png"))
    imsave(picture, imread(picture), pil_kwargs={"compress_level": 1}, metadata={"Software": None})
    replace(picture, picture.read_bytes())
    assert results.check(drawn, "HEAD") == []


def test_what_stands_beside_the_markers_is_refused(results: ModuleType, repository: Path) -> None:
    board = repository / "results" / "leaderboards" / "README.md"
    board.write_text(board.read_text(encoding="utf-8") + "[click](javascript:x)\n")
    (problem,) = results.check(repository, "HEAD")
    assert problem.endswith("README.md: differs from what the records give; run `bench report`")


def test_more_than_a_check_can_read_is_refused(
    results: ModuleType, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "LARGEST", 10_000)
    assert any("more than 10,000" in problem for problem in results.check(repository, "HEAD"))


def test_new_records_that_are_odd_are_named_for_a_person(
    results: ModuleType, repository: Path
) -> None:
    assert results.oddities(repository, "HEAD") == []
    (good, *_) = make_grid(models=["tiny-o"])
    assert good.result is not None
    statistics = good.result.statistics.model_copy(update={"gamma_raw": 1e6})
    odd = good.result.model_copy(update={"statistics": statistics})
    store = RecordStore(repository / "results")
    path = store.save(good.model_copy(update={"result": odd}))
    (line, *_) = results.oddities(repository, "HEAD")
    assert line.startswith(f"{path}: gamma_raw is 1e+06")


def test_the_proposing_script_commits_pushes_and_asks_for_a_pull_request(tmp_path: Path) -> None:
    """On a local repository, with `gh` replaced by a script that notes what it was asked."""
    pytest.importorskip("matplotlib", reason="the README's picture needs matplotlib")
    root = tmp_path / "clone"
    git(tmp_path, "init", "-q", "--bare", "-b", "main", "origin.git")
    subprocess.run(["git", "clone", "-q", "origin.git", root], cwd=tmp_path, check=True)
    (root / "ci").mkdir()
    for name in ("build_boards.sh", "propose.sh", "results.py", "readme.py"):
        (root / "ci" / name).write_bytes((ROOT / "ci" / name).read_bytes())
    markers = "# x\n<!-- results:begin -->\n<!-- results:end -->\n"
    (root / "README.md").write_text(markers, encoding="utf-8")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "start")
    git(root, "push", "-q", "origin", "HEAD:main")
    write_records(tmp_path / "run", make_grid(models=["tiny-a"], layers=[0]))
    tools = tmp_path / "tools"
    tools.mkdir()
    replaced = {"gh": 'echo "$@" > "$ASKED"', "python": f'exec "{sys.executable}" "$@"'}
    for name, line in replaced.items():
        (tools / name).write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
        (tools / name).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "ASKED": str(tmp_path / "asked"),
        "PYTHONPATH": str(ROOT),
    }
    built = tmp_path / "built"
    build = ["bash", "ci/build_boards.sh", str(tmp_path / "run"), str(built)]
    done = subprocess.run(build, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    git(root, "reset", "-q", "--hard")
    git(root, "clean", "-qfd")
    # The job that commits has no Python, and takes nothing but the two things it proposes.
    (tools / "python").write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    script = ["bash", "ci/propose.sh", str(built), "results-1"]
    for strange in (built / "x.sh", built / "results" / "linked", built / "README.md"):
        before = strange.read_bytes() if strange.exists() else None
        if strange.name == "linked":
            strange.symlink_to("/")
        else:
            strange.write_text("# y\n", encoding="utf-8")
        done = subprocess.run(script, cwd=root, env=environment, capture_output=True, text=True)
        assert done.returncode == 1
        assert done.stderr.startswith("propose.sh: "), done.stderr
        strange.unlink()
        if before is not None:
            strange.write_bytes(before)
    done = subprocess.run(script, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pr create --head results-1" in (tmp_path / "asked").read_text(encoding="utf-8")
    pushed = git(tmp_path / "origin.git", "ls-tree", "-r", "--name-only", "results-1")
    assert "results/leaderboards/README.md" in pushed
    assert "tiny-a" in git(tmp_path / "origin.git", "show", "results-1:README.md")
