"""Every card of the zoo on a tiny checkpoint of its architecture, by the real path from the hub."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters import Adapter, check, compat, open_adapter
from tests.adapters.architectures import ARCHITECTURES, OF_CARD
from tests.hub import COMMIT, Hub, Repository
from zoo.cards import Card
from zoo.install import install_line
from zoo.registry import load_registry

CARDS = load_registry().cards
# The package's own checkpoints, and those of pip packages, are checked as they are.
ELSEWHERE = {c.id for c in CARDS.values() if c.checkpoint.source in ("package", "pip", "none")}
# Their package cannot be imported without CUDA; tested with a stand-in for it.
PACKAGE_FOR_CUDA = {"evo2-7b"}


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Card], Path]:
    """The tiny repository of a card's architecture; read it, do not write."""
    made: dict[str, Path] = {}

    def get(card: Card) -> Path:
        name = OF_CARD[card.id]
        entry = ARCHITECTURES[name]
        absent = [package for package in entry.packages if not importlib.util.find_spec(package)]
        if absent:
            pytest.skip(f"{absent[0]} is not installed: {install_line(card.extra)}")
        if entry.needs and not hasattr(compat.transformers(), entry.needs):
            pytest.skip(f"this version of transformers has no {entry.needs}")
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            entry.save(made[name])
        return made[name]

    return get


@pytest.fixture
def tiny_of(
    repository: Callable[[Card], Path], hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Card], Callable[[], Adapter]]:
    """Makes adapters for a card's tiny twin, whose repository is on the loopback hub."""

    def serve(card: Card) -> Callable[[], Adapter]:
        folder, place = repository(card), card.checkpoint
        make = functools.partial(
            open_adapter, ARCHITECTURES[OF_CARD[card.id]].card(card), trust_remote_code=True
        )
        if place.source == "user" or (place.remote_code and place.revision is None):
            return functools.partial(make, weights=folder)
        hub.repositories[str(place.hub)] = Repository(
            folder, commit=place.revision or COMMIT, gated=place.gated
        )
        if place.gated:
            monkeypatch.setenv("HF_TOKEN", "hf_made_up")
        return make

    return serve


def test_every_card_has_a_tiny_twin() -> None:
    assert set(OF_CARD) | ELSEWHERE | PACKAGE_FOR_CUDA == set(CARDS)
    assert not set(OF_CARD) & ELSEWHERE


@pytest.mark.parametrize("card", [CARDS[name] for name in OF_CARD], ids=lambda card: card.id)
def test_card_on_a_tiny_checkpoint_of_its_architecture(
    card: Card, tiny_of: Callable[[Card], Callable[[], Adapter]]
) -> None:
    make = tiny_of(card)
    results = {r.name: r for r in check(make, ARCHITECTURES[OF_CARD[card.id]].examples())}
    assert [result for result in results.values() if not result.ok] == []
    assert len(results) == 12
    if card.tap.layers > 1:
        assert "take the tapped stream, bit for bit" in results["residual stream"].detail
    pinned = card.checkpoint.source == "hub" and make().weights is None
    assert make().revision == ((card.checkpoint.revision or COMMIT) if pinned else None)
