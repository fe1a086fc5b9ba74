"""Fixtures of the tests that run small models."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.made import write_made


@pytest.fixture(scope="session", autouse=True)
def _predictions(predictions_computed_once: None) -> None:
    """Hundreds of tests run the made model below."""


@pytest.fixture
def cards(tmp_path: Path) -> Path:
    """A folder with the card `made`, whose activations lie beside it."""
    return write_made(tmp_path / "cards")


@pytest.fixture
def arguments(cards: Path, tiny: list[str]) -> list[str]:
    """Options for a run of it that takes a second: three layers, two arms."""
    return ["--cards", str(cards), "--model", "made", *tiny]
