"""A release is built once, from a tag that names its version, and published without a token."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ci.release import refusal

ROOT = Path(__file__).parents[2]
WORKFLOW: dict[str, Any] = yaml.safe_load(
    (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
)
BUILD, PUBLISH = WORKFLOW["jobs"]["build"], WORKFLOW["jobs"]["publish"]


def actions(job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What a job's actions are given, by the action's name."""
    used = [step for step in job["steps"] if "uses" in step]
    return {step["uses"].split("@")[0]: step.get("with", {}) for step in used}


def runs(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def test_a_tag_alone_makes_a_release() -> None:
    assert WORKFLOW[True] == {"push": {"tags": ["v*"]}}  # YAML reads `on` as true


def test_building_and_publishing_are_jobs_of_their_own() -> None:
    assert set(WORKFLOW["jobs"]) == {"build", "publish"}
    assert PUBLISH["needs"] == "build"
    assert runs(PUBLISH) == [], "the job that may publish runs no code of ours"
    assert "actions/checkout" not in actions(PUBLISH)
    assert "actions/setup-python" not in actions(PUBLISH)


def test_only_publishing_has_rights_and_no_job_has_a_secret() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert "permissions" not in BUILD
    assert PUBLISH["permissions"] == {"attestations": "write", "id-token": "write"}
    assert PUBLISH["environment"] == "pypi"
    assert "secrets." not in yaml.safe_dump(WORKFLOW)
    assert "password" not in actions(PUBLISH)["pypa/gh-action-pypi-publish"]


def test_what_was_built_once_is_attested_and_published() -> None:
    assert [run for run in runs(BUILD) if "-m build" in run] == ["python -m build"]
    made = actions(BUILD)["actions/upload-artifact"]
    taken = actions(PUBLISH)["actions/download-artifact"]
    assert (made["name"], made["path"]) == (taken["name"], taken["path"]) == ("dist", "dist")
    order = list(actions(PUBLISH))
    attest, publish = "actions/attest-build-provenance", "pypa/gh-action-pypi-publish"
    assert order == ["actions/download-artifact", attest, publish]
    assert actions(PUBLISH)[attest]["subject-path"] == "dist/*"
    assert actions(PUBLISH)[publish]["packages-dir"] == "dist"


def test_the_tag_and_the_tests_come_before_the_build() -> None:
    assert runs(BUILD) == [
        'python ci/release.py "$TAG"',
        "bash .ci/run",
        "pip install -c constraints.txt build",
        "python -m build",
    ]


# ------------------------------------------------------------------------------------ the version


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "1.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 1.2.0, 2026-01-31 (version 2)\n")
    return tmp_path


def test_the_tag_of_the_version_may_be_released(checkout: Path) -> None:
    assert refusal("v1.2.0", checkout) is None


@pytest.mark.parametrize("tag", ["v1.2.1", "1.2.0", "v1.2", "v1.2.0rc1", "v1.2.0 "])
def test_another_tag_is_refused(checkout: Path, tag: str) -> None:
    reason = f"the tag is {tag}, and pyproject.toml has version 1.2.0: it wants v1.2.0"
    assert refusal(tag, checkout) == reason


@pytest.mark.parametrize("heading", ["## 1.2.0, not released", "## 1.2.01, 2026-01-31", "## 1x2.0"])
def test_a_version_without_a_dated_section_is_refused(checkout: Path, heading: str) -> None:
    (checkout / "CHANGELOG.md").write_text(f"# Changelog\n\n{heading}\n")
    assert refusal("v1.2.0", checkout) == 'CHANGELOG.md has no section "## 1.2.0, YYYY-MM-DD"'


def test_the_command_refuses_with_an_exit_code() -> None:
    # As the workflow runs it: before anything is installed.
    command = [sys.executable, "-S", str(ROOT / "ci" / "release.py"), "v0.0.0"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("not released: the tag is v0.0.0, and pyproject.toml has version")
