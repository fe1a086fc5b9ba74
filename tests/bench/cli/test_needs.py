"""What `bench list` and `bench plan` say of models that this environment cannot open."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable
from typing import Any

import pytest

Bench = Callable[..., tuple[int, str, str]]


def _listed(bench: Bench, model: str) -> dict[str, Any]:
    [row] = json.loads(bench("list", "--model", model, "--json")[1])["models"]
    return row


@pytest.mark.parametrize(
    ("model", "tried"),
    [
        ("tiny-gpt2", "published weights"),
        ("progen2-large", "authors' code"),
        ("evo2-7b", "stand-in"),
        ("synthetic-gamma4", None),
    ],
)
def test_the_list_says_what_a_model_was_tried_on(
    bench: Bench, model: str, tried: str | None
) -> None:
    assert _listed(bench, model)["tried"] == tried
    _, table, _ = bench("list", "--model", model)
    assert "tried on" in table
    assert (tried or "") in table


def test_a_version_that_is_needed_is_listed_and_planned(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda n: "4.57.6" if n == "transformers" else real(n)
    )
    row = _listed(bench, "nt-v2-500m")
    assert row["state"] == "needs version"
    assert "transformers<4.56" in row["needs"]
    assert row["remedy"] == 'Make an environment for it: pip install "transformers<4.56"'
    _, out, _ = bench("plan", "--model", "nt-v2-500m", "--json")
    assert json.loads(out)["blocks"][0]["missing"].startswith(
        "model 'nt-v2-500m' needs transformers<4.56 (4.57.6 is installed)"
    )


def test_code_that_is_not_pinned_is_planned_as_lacking(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda n: "4.48.1" if n == "transformers" else real(n)
    )
    _, out, _ = bench("plan", "--model", "progen2-base", "--json")
    for block in json.loads(out)["blocks"]:
        assert block["missing"].startswith(
            "model 'progen2-base' runs Python code that comes with hugohrban/progen2-base, and its "
            "card pins no commit of it. Download the repository, read its code, and give the "
            "folder as --weights DIR."
        )
