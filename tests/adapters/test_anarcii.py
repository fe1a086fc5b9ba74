"""ANARCII's encoders by their authors' own class, against a restatement in float64."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from adapters import open_adapter
from zoo.cards import Card
from zoo.errors import BadCorpus, BadWeights
from zoo.registry import load_registry
from zoo.weights import weights_folder

pytest.importorskip("anarcii", reason="the pip package anarcii is not installed")
CARDS = [card for card in load_registry().cards.values() if card.adapter == "anarcii"]
# The variable domain of a heavy chain, made up after the consensus of human germlines.
HEAVY = (
    "EVQLVESGGGLVQPGGSLRLSCAASGFTFSSYAMSWVRQAPGKGLEWVSAISGSGGSTYYADSVKGRFTISRDNSKNTLYLQMNSLRAED"
    "TAVYYCAKDYWGQGTLVTVSS"
)

Float = NDArray[np.float64]


def _normed(x: Float, weights: dict[str, Float], name: str) -> Float:
    centered = x - x.mean(axis=1, keepdims=True)
    scale = np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
    return centered / scale * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _attended(x: Float, weights: dict[str, Float], name: str, heads: int) -> Float:
    projected = x @ weights[f"{name}.in_proj_weight"].T + weights[f"{name}.in_proj_bias"]
    parts = [np.split(part, heads, axis=1) for part in np.split(projected, 3, axis=1)]
    given = []
    for q, k, v in zip(*parts, strict=True):
        scores = np.exp(q @ k.T / np.sqrt(q.shape[1]))
        given.append(scores / scores.sum(axis=1, keepdims=True) @ v)
    return (
        np.hstack(given) @ weights[f"{name}.out_proj.weight"].T + weights[f"{name}.out_proj.bias"]
    )


def _streams(path: Path, ids: list[int]) -> list[Float]:
    """The output of each layer for one sequence of ids, without padding."""
    saved = torch.load(path, map_location="cpu", weights_only=True)
    weights = {
        name.removeprefix("encoder."): tensor.double().numpy()
        for name, tensor in saved.items()
        if name.startswith("encoder.")
    }
    config = json.loads(path.with_suffix(".json").read_text())
    embedded = weights["tok_embedding.weight"][ids] * np.sqrt(config["HID_DIM"])
    x = embedded + weights["pos_embedding.weight"][: len(ids)]
    found = []
    for number in range(config["LAYERS"]):
        at = f"layers.{number}"
        attended = _attended(x, weights, f"{at}.self_attention.multihead_attn", config["HEADS"])
        x = _normed(x + attended, weights, f"{at}.self_attn_layer_norm")
        first, second = (f"{at}.positionwise_feedforward.fc_{half}" for half in (1, 2))
        hidden = np.maximum(x @ weights[f"{first}.weight"].T + weights[f"{first}.bias"], 0)
        fed = hidden @ weights[f"{second}.weight"].T + weights[f"{second}.bias"]
        x = _normed(x + fed, weights, f"{at}.ff_layer_norm")
        found.append(x)
    return found


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.id)
def test_an_encoder_is_its_restatement_in_float64(card: Card) -> None:
    adapter = open_adapter(card)
    layers = list(card.layers)
    examples = [HEAVY, "QVQLXUZBO"]  # of two lengths, so that one is padded
    [batch] = adapter.activations(layers, examples, batch_size=2)
    folder = weights_folder(card)
    assert folder is not None
    for number, example in enumerate(examples):
        [window] = adapter.windows(example)
        expected = _streams(folder / str(card.checkpoint.file), window)
        mine = batch.example == number
        assert batch.position[mine].tolist() == list(range(1, len(example) + 1))
        for layer in layers:
            found = batch.by_layer[layer][mine].double().numpy()
            np.testing.assert_allclose(found, expected[layer][1:-1], rtol=1e-4, atol=1e-4)


def test_rare_residues_are_read_as_unknown_and_long_sequences_are_cut() -> None:
    adapter = open_adapter(CARDS[0])
    assert adapter.windows("BOJUZ".replace("J", "")) == adapter.windows("XXXX")
    assert [len(window) for window in adapter.windows("A" * 450)] == [202, 202, 52]
    assert adapter.windows("") == []
    with pytest.raises(BadCorpus, match="'J' at position 2 is not a letter of proteins"):
        adapter.windows("AJ")


def test_a_file_without_its_configuration_is_refused(tmp_path: Path) -> None:
    card = CARDS[0]
    torch.save({}, tmp_path / str(card.checkpoint.file))
    with pytest.raises(BadWeights, match=r"antibody_4_1_128_512\.json"):
        _ = open_adapter(card, weights=tmp_path).model
