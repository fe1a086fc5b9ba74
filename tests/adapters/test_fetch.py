"""`bench fetch` against the hub on the loopback interface."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hub import COMMIT, Hub, Repository

Bench = Callable[..., tuple[int, str, str]]


@pytest.fixture
def repository(hub: Hub, checkpoint: Callable[[str], Path]) -> Repository:
    hub.repositories["some/tiny"] = Repository(checkpoint("gpt2"))
    return hub.repositories["some/tiny"]


def test_sizes_are_said_before_anything_large_is_fetched(
    bench: Bench, hub: Hub, repository: Repository
) -> None:
    code, out, _ = bench("fetch", "--model", "hf-causal:some/tiny", "--sizes", "--json")
    (row,) = json.loads(out)
    weights = (repository.folder / "model.safetensors").stat().st_size
    assert (code, row["revision"], row["missing"]) == (0, COMMIT, weights)
    assert row["bytes"] > weights
    assert hub.fetched("model.safetensors") == 0


def test_what_was_fetched_runs_without_network(
    bench: Bench,
    tiny: list[str],
    hub: Hub,
    repository: Repository,
    client: Callable[[str], None],
) -> None:
    code, out, _ = bench("fetch", "--model", "hf-causal:some/tiny")
    assert (code, "1 fetched" in out) == (0, True)
    assert bench("fetch", "--model", "hf-causal:some/tiny")[1].count("is here") == 1
    assert hub.fetched("model.safetensors") == 1
    client("http://127.0.0.1:1")
    code, _, err = bench("run", "--model", "hf-causal:some/tiny", "--layer", "0", *tiny)
    assert code == 0, err


def test_a_fetch_that_broke_off_is_resumed(bench: Bench, hub: Hub, repository: Repository) -> None:
    repository.breaks["model.safetensors"] = 1000
    code, _, err = bench("fetch", "--model", "hf-causal:some/tiny")
    assert code == 2
    assert "the download of some/tiny broke off. Run again: it resumes." in err
    repository.breaks.clear()
    assert bench("fetch", "--model", "hf-causal:some/tiny")[0] == 0
    ranges = [wanted for _, path, wanted in hub.requests if path.endswith("safetensors")]
    assert any(wanted and wanted.startswith("bytes=") for wanted in ranges)


def test_one_that_cannot_be_had_does_not_keep_the_others(
    bench: Bench, hub: Hub, repository: Repository, tmp_path: Path
) -> None:
    import yaml

    from tests.adapters.tiny import FAMILIES

    card = FAMILIES["gpt2"].card.model_dump(mode="json", exclude_none=True)
    card |= {"corpus": "python-topics"}
    (tmp_path / "mine").mkdir()
    for name, place in (("one", "some/gated"), ("two", "some/tiny")):
        card |= {"id": name, "checkpoint": {"source": "hub", "hub": place, "gated": True}}
        (tmp_path / "mine" / f"{name}.yaml").write_text(yaml.safe_dump(card))
    hub.repositories["some/gated"] = Repository(repository.folder, gated=True)
    code, out, err = bench(
        "fetch", "--model", "one", "--model", "two", "--model", "tiny-esm2", "--cards", "mine"
    )
    assert code == 1
    assert "1 fetched" in out
    assert "Accept it at https://huggingface.co/some/gated, then log in" in err
    assert err.count("\n") == 1
