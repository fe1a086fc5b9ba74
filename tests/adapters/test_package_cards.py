"""What the package's own cards say is true of their checkpoints, and each passes the checks."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import zoo
from adapters import check, open_adapter
from zoo.cards import Card
from zoo.corpora import open_corpus
from zoo.errors import MissingExtra, ModelUnavailable
from zoo.registry import load_registry
from zoo.weights import weights_folder

REGISTRY = load_registry()
HERE = [c for c in REGISTRY.cards.values() if c.checkpoint.source not in ("hub", "user")]
EMBEDDED = [card for card in REGISTRY.cards.values() if card.checkpoint.source == "package"]


def _present(card: Card) -> Card:
    try:
        weights_folder(card)
    except (MissingExtra, ModelUnavailable) as missing:
        pytest.skip(str(missing))
    return card


@pytest.mark.parametrize("card", HERE, ids=lambda card: card.id)
def test_a_card_counts_its_parameters_right(card: Card) -> None:
    model = open_adapter(_present(card)).model
    names = dict(model.named_parameters())
    if card.adapter == "esm2" and not any("position_embeddings" in name for name in names):
        pytest.skip("newer versions of transformers leave out a table that ESM-2 does not use")
    assert sum(parameter.numel() for parameter in model.parameters()) == card.parameters


def _narrowed(card: Card) -> Card:
    """A card whose windows of 25,000 bases would take minutes, with shorter ones."""
    if card.adapter != "spliceai":
        return card
    tokens = {"skip_first": 40, "skip_last": 40}
    return Card.model_validate(card.model_dump() | {"context": 200, "tokens": tokens})


@pytest.mark.parametrize("card", HERE, ids=lambda card: card.id)
def test_a_card_passes_the_conformance_checks(card: Card) -> None:
    corpus = open_corpus(REGISTRY.corpus(_present(card).corpus))
    results = check(_narrowed(card), corpus.examples(seed=0), count=2)
    assert len(results) == 12
    assert [result for result in results if not result.ok] == []


@pytest.mark.parametrize("card", EMBEDDED, ids=lambda card: card.id)
def test_an_embedded_card_states_its_loss_and_its_baseline(card: Card) -> None:
    path = Path(zoo.__file__).parent / str(card.checkpoint.path) / "training.json"
    training = json.loads(path.read_text(encoding="utf-8"))
    stated = re.search(r"loss ([\d.]+) against ([\d.]+)", card.sources["training"])
    assert stated, card.sources["training"]
    assert stated.group(1) == f"{training['loss']:.3f}"
    assert stated.group(2) == f"{training['baseline']:.3f}"
    assert training["baseline_name"] in card.sources["training"]
    assert training["loss"] < 0.75 * training["baseline"]
