"""An install line is the one that works for the copy that prints it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zoo import install
from zoo.install import install_line

CHECKOUT = Path(__file__).parents[2]
COMMIT = "c" * 40


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[object], None]:
    """Makes this copy one that was installed with such a direct_url.json; None for no such file."""
    site = tmp_path / "site"
    info = site / "gammabench-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gammabench\nVersion: 0.1.0\n")
    monkeypatch.setattr(install, "ROOT", site)

    def became(origin: object) -> None:
        if origin is not None:
            (info / "direct_url.json").write_text(json.dumps(origin))

    return became


def test_a_checkout_is_installed_itself_from_wherever_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(CHECKOUT)
    assert install_line("plot") == 'pip install -e ".[plot]"'
    assert install_line() == "pip install -e ."
    monkeypatch.chdir(tmp_path)
    assert install_line("plot") == f'pip install -e "{CHECKOUT}[plot]"'
    assert install_line() == f"pip install -e {CHECKOUT}"


def test_another_projects_checkout_is_not_taken_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "ROOT", tmp_path)
    for text in ('[project]\nname = "theirs"\n', "[tool.ruff]\n", "not toml"):
        install._is_checkout.cache_clear()
        (tmp_path / "pyproject.toml").write_text(text)
        assert install_line("plot") == 'pip install "gammabench[plot]"'


@pytest.mark.parametrize(
    ("origin", "url"),
    [
        (
            {
                "url": "https://example.org/gammabench.git",
                "vcs_info": {"vcs": "git", "requested_revision": "main", "commit_id": COMMIT},
            },
            f"git+https://example.org/gammabench.git@{COMMIT}",
        ),
        (
            {
                "url": "ssh://git@example.org/tools.git",
                "vcs_info": {"vcs": "git", "commit_id": COMMIT},
                "subdirectory": "gammabench",
            },
            f"git+ssh://git@example.org/tools.git@{COMMIT}#subdirectory=gammabench",
        ),
        (
            {"url": "https://example.org/gammabench-0.1.0-py3-none-any.whl", "archive_info": {}},
            "https://example.org/gammabench-0.1.0-py3-none-any.whl",
        ),
        ({"url": CHECKOUT.as_uri(), "dir_info": {}}, CHECKOUT.as_uri()),
    ],
    ids=["commit", "subdirectory", "archive", "folder"],
)
def test_a_copy_from_a_url_is_installed_from_there_again(
    installed: Callable[[object], None], origin: dict[str, Any], url: str
) -> None:
    installed(origin)
    assert install_line("plot") == f'pip install "gammabench[plot] @ {url}"'
    assert install_line() == f'pip install "gammabench @ {url}"'


def test_a_copy_from_an_index_needs_its_name_alone(installed: Callable[[object], None]) -> None:
    installed(None)
    assert install_line("plot") == 'pip install "gammabench[plot]"'
    assert install_line() == "pip install gammabench"


def test_a_file_that_is_gone_is_not_advised(
    installed: Callable[[object], None], tmp_path: Path
) -> None:
    installed({"url": (tmp_path / "gone.whl").as_uri(), "archive_info": {}})
    assert install_line("plot") == 'pip install "gammabench[plot]"'


def test_odd_characters_of_a_folder_reach_pip_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("with space", "it's", 'a "quoted" $HOME`'):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "pyproject.toml").write_text('[project]\nname = "gammabench"\n')
        monkeypatch.setattr(install, "ROOT", folder)
        done = subprocess.run(
            ["sh", "-c", install_line("plot").replace("pip install -e", "printf %s")],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == f"{folder}[plot]"
