"""Cards that tests share, and a model made of stored activations with known gammas."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

# A card that validates; no test fetches its checkpoint.
HUB_CARD: dict[str, Any] = {
    "id": "mine",
    "summary": "a model",
    "domain": "language",
    "adapter": "hf-causal",
    "checkpoint": {"source": "hub", "hub": "me/mine"},
    "tap": {"blocks": "h.{i}", "layers": 2, "width": 8},
    "corpus": "python-topics",
    "context": 16,
    "parameters": 100,
}

# gamma_raw of the layers of the made model.
GAMMAS = (1, 5, 20)
WIDTH = 16

# What `write_made` writes the activations of.
MADE_CARD: dict[str, Any] = {
    "id": "made",
    "summary": "made activations",
    "domain": "synthetic",
    "adapter": "array",
    "checkpoint": {"source": "folder", "path": "activations", "licence": "MIT"},
    "tap": {"blocks": "layer.{i}", "layers": len(GAMMAS), "width": WIDTH},
    "corpus": "draws",
    "context": 64,
    "parameters": 0,
    "options": {"file": "layer{i}.npy"},
}


def write_made(folder: Path, ids: Sequence[str] = ("made",), *, tokens: int = 8192) -> Path:
    """Writes Gaussian activations of three layers into `folder`, and a card per id.

    The models differ: the i-th skips the first i tokens of each chunk.
    """
    (folder / "activations").mkdir(parents=True)
    random = np.random.default_rng(0)
    for layer, gamma in enumerate(GAMMAS):
        x = random.standard_normal((tokens, WIDTH)) + gamma * np.sqrt(WIDTH) * np.eye(WIDTH)[layer]
        np.save(folder / "activations" / f"layer{layer}.npy", x.astype(np.float32))
    for number, name in enumerate(ids):
        write_card(folder, MADE_CARD | {"id": name, "tokens": {"skip_first": number}})
    return folder


def write_card(folder: Path, card: dict[str, Any]) -> Path:
    """Writes a card as `<id>.yaml`."""
    path = folder / f"{card['id']}.yaml"
    path.write_text(yaml.safe_dump(card), encoding="utf-8")
    return path
