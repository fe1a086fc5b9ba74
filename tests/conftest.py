"""Fixtures that several rooms share."""

from __future__ import annotations

import functools
import gc
import os
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import hypothesis
import pytest

import zoo.cards
from zoo.registry import Registry, load_registry

# Property tests draw the same cases on each run in CI, and new ones elsewhere; a second each.
hypothesis.settings.register_profile(
    "quick", max_examples=40, deadline=None, database=None, derandomize="CI" in os.environ
)
hypothesis.settings.load_profile("quick")

# The fixtures `hub` and `client`, `s3` and `without_credentials`, `predictions_computed_once`.
pytest_plugins = ["tests.hub", "tests.s3", "tests.predictions"]

# As the command line does: tests that share a machine must not spin for one another's cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# A protocol that takes well under a second per cell.
TINY = ("n=64", "k=4", "N=512", "steps=12", "batch=64", "buffer=256", "forward_tokens=512")


def pytest_collection_finish() -> None:
    """What was imported and collected stays: to look for garbage in it, as transformers does at
    each load of a model, takes a tenth of a second."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _own_cards_are_parsed_once() -> Iterator[None]:
    """Every command reads all cards of the package, most of whose time is their YAML's."""
    own, read = Path(zoo.cards.__file__).parent / "cards", zoo.cards.read_yaml
    read_once = functools.cache(read)

    def read_own_once(path: Path) -> dict[str, Any]:
        return deepcopy(read_once(path)) if path.is_relative_to(own) else read(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zoo.cards, "read_yaml", read_own_once)
        yield


@pytest.fixture
def bench(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Runs `bench` with arguments in an empty folder: (exit code, stdout, stderr).

    In this process, where a test can look inside; `--workers` still starts others. It draws
    no figures, which would take five times as long as a small run; those have tests of their own.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("leaderboard.figures.store.available", lambda: False)
    monkeypatch.setattr("bench.runner.engines.auto_workers", lambda blocks, device: 1)

    def run(*arguments: str) -> tuple[int, str, str]:
        from bench.cli.main import run_cli

        code = run_cli(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def tiny() -> list[str]:
    """Options for a run that takes a second."""
    return [part for setting in TINY for part in ("--set", setting)]


@pytest.fixture
def registry() -> Registry:
    """The cards of the package, fresh for each test."""
    return load_registry()
