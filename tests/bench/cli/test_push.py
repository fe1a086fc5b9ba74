"""`bench convert --push-to-hub`: files and a model card in a repository, or why not in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from bench.records.store import RecordStore
from bench.sae.model import SAE
from bench.sae.origin import Origin
from tests.hub import Hub

Bench = Callable[..., tuple[int, str, str]]


@pytest.fixture
def mine(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A hub on which the token's owner may write."""
    monkeypatch.setenv("HF_TOKEN", "hf_made_up")
    hub.owned = tmp_path / "hub"
    return hub


def facts_of(card: str) -> dict:
    """The part of a model card that the hub reads."""
    _, facts, _ = card.split("---\n", 2)
    return yaml.safe_load(facts)


def test_a_runs_sae_is_pushed_with_what_its_record_says(
    bench: Bench, mine: Hub, arguments: list[str]
) -> None:
    assert bench("run", *arguments, "--layer", "1", "--arm", "raw", "--save-saes")[0] == 0
    (folder,) = Path("runs/saes").iterdir()
    push = ["--to", "saelens", "--push-to-hub", "me/sae", "--licence", "mit"]
    code, out, err = bench("convert", str(folder), "out", *push)
    assert (code, err) == (0, "")
    assert f"pushed: {mine.endpoint}/me/sae/commit/" in out
    repository = mine.repositories["me/sae"].folder
    files = {"README.md", "cfg.json", "sae_weights.safetensors"}
    assert {path.name for path in repository.iterdir()} == files
    card = (repository / "README.md").read_text()
    (record,) = RecordStore(Path("runs"))
    result = record.result
    assert result is not None
    assert result.training is not None
    assert facts_of(card)["license"] == "mit"
    assert f"| gamma | {result.statistics.gamma:.4g} |" in card
    assert f"| FVU | {result.training.fvu:.4g} |" in card
    assert f"({result.death_end.dead:,} of {record.spec.protocol['n']:,}) |" in card
    assert f"record `{record.hash}`: made, layer 1" in card
    assert "| arm | raw |" in card
    # What was pushed is read again from there.
    code, out, _ = bench("convert", "hub:me/sae", "back", "--to", "gammabench")
    assert code == 0
    assert "codes are equal bit for bit" in out


def test_without_a_record_the_card_says_so_and_has_no_licence(bench: Bench, mine: Hub) -> None:
    SAE.init(16, 64, 4, seed=0).save(Path("sae"), Origin(model="some | one/else"))
    assert bench("convert", "sae", "out", "--to", "sparsify", "--push-to-hub", "me/a")[0] == 0
    card = (mine.repositories["me/a"].folder / "README.md").read_text()
    assert "No record of a measurement came with it." in card
    assert "license" not in facts_of(card)
    assert "| model | some \\| one/else |" in card


@pytest.mark.parametrize(
    ("repository", "more", "says"),
    [
        ("me/there", [], "the repository me/there exists already. Take another name, or add a"),
        ("me/refused", [], "the token may not write to me/refused"),
        ("no owner", [], "'no owner' names no repository"),
        ("alone", [], "'alone' names no owner"),
        ("me/new", ["--record", "nowhere.json"], "--record: no file at nowhere.json"),
        (None, ["--licence", "mit"], "--licence is about a repository"),
    ],
)
def test_what_the_hub_refuses_is_one_line(
    bench: Bench, mine: Hub, repository: str | None, more: list[str], says: str
) -> None:
    SAE.init(16, 64, 4, seed=0).save(Path("sae"))
    to = ["--to", "saelens"]
    if repository == "me/there":
        assert bench("convert", "sae", "first", *to, "--push-to-hub", "me/there")[0] == 0
    mine.refuses_writes = repository == "me/refused"
    push = [] if repository is None else ["--push-to-hub", repository]
    code, _, err = bench("convert", "sae", "out", *to, *push, *more)
    assert (code, err.count("\n")) == (2, 1)
    assert says in err
    if repository == "me/there":
        assert bench("convert", "sae", "third", *to, *push, "--existing")[0] == 0


def test_without_a_token_nothing_is_written(
    bench: Bench, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    SAE.init(16, 64, 4, seed=0).save(Path("sae"))
    code, out, err = bench("convert", "sae", "out", "--to", "saelens", "--push-to-hub", "me/a")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "without a token. Log in with" in err
    assert not Path("out").exists()
    assert not hub.requests
