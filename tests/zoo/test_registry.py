"""The registry finds what there is and helps with what there is not."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import pytest

from tests.made import HUB_CARD, write_card
from zoo.cards import Card
from zoo.errors import BadCard, UnknownName, UsageError
from zoo.registry import DEFAULT_SUITE, Registry, load_registry


def _folder(folder: Path, **changes: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_card(folder, HUB_CARD | changes)
    return folder


def test_the_default_suite_has_a_model_of_every_domain(registry: Registry) -> None:
    domains = {card.domain for card in registry.select()}
    assert domains == {"language", "vision", "protein", "genomic", "synthetic"}
    assert {card.id for card in registry.select()} == set(registry.suite(DEFAULT_SUITE).models)


def test_a_domain_narrows_the_default_suite(registry: Registry) -> None:
    assert [card.id for card in registry.select(domains=["protein"])] == ["tiny-esm2"]


def test_model_globs_range_over_the_whole_registry(registry: Registry) -> None:
    assert [card.id for card in registry.select(models=["all-mini*"])] == ["all-minilm-l6-v2"]
    assert len(registry.select(models=["*"])) == len(registry.cards)


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ({"models": ["tiny-gtp2"]}, "unknown model 'tiny-gtp2'. Did you mean tiny-gpt2"),
        ({"models": ["zzz*"]}, "unknown model 'zzz*'. `bench list` names them all."),
        (
            {"models": ["human-chr22"]},
            "'human-chr22' is a corpus, not a model. Say --corpus human-chr22; `bench list corpora",
        ),
        ({"domains": ["protien"]}, "unknown domain 'protien'. Did you mean protein?"),
        ({"domains": ["x"]}, "unknown domain 'x'. There are: language, vision"),
        ({"suite": "ofline"}, "unknown suite 'ofline'. Did you mean offline?"),
        (
            {"models": ["tiny-gpt2"], "domains": ["vision"]},
            "no model of domain vision in the models named",
        ),
    ],
)
def test_a_wrong_name_is_answered_with_near_ones(
    registry: Registry, choice: dict, says: str
) -> None:
    with pytest.raises(UsageError) as caught:
        registry.select(**choice)
    assert says in str(caught.value)


def test_cards_from_a_users_folder_are_found(tmp_path: Path) -> None:
    registry = load_registry([_folder(tmp_path / "cards")])
    assert registry.card("mine").folder == tmp_path / "cards"
    assert registry.origin["model mine"] == str(tmp_path / "cards")


def test_an_id_defined_twice_is_refused_naming_both_places(tmp_path: Path) -> None:
    folder = _folder(tmp_path, id="tiny-gpt2")
    with pytest.raises(BadCard, match=rf"'tiny-gpt2' of {tmp_path} is already .* gammabench"):
        load_registry([folder])


def test_a_reference_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadCard, match="card 'mine' names the unknown corpus 'nothing'"):
        load_registry([_folder(tmp_path, corpus="nothing")])


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder of cards at"):
        load_registry([tmp_path / "absent"])


def test_other_distributions_offer_cards_without_being_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = _folder(tmp_path / "their_cards")
    (package / "__init__.py").write_text("raise RuntimeError('imported')", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    point = importlib.metadata.EntryPoint("theirs", "their_cards", "gammabench.cards")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point])
    registry = load_registry()
    assert isinstance(registry.card("mine"), Card)
    assert registry.origin["model mine"] == "entry point 'theirs'"
    assert "their_cards" not in sys.modules


def test_unknown_name_is_a_usage_error() -> None:
    assert issubclass(UnknownName, UsageError)
