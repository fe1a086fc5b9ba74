"""Tiny checkpoints of models of single cells, and cells for them."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from adapters import compat
from tests.adapters.tiny import WIDTH


def geneformer(*names: str) -> Callable[[Path], None]:
    """As it is published: in folders of a repository that holds other models and pickles too."""

    def save(folder: Path) -> None:
        transformers = compat.transformers()
        torch.manual_seed(0)
        config = transformers.BertConfig(
            vocab_size=40, hidden_size=WIDTH, num_hidden_layers=3, num_attention_heads=4,
            intermediate_size=64, max_position_embeddings=64, hidden_act="relu", pad_token_id=0,
        )  # fmt: skip
        for name in names:
            transformers.BertForMaskedLM(config).save_pretrained(folder / name)
            (folder / name / "training_args.bin").write_bytes(b"a pickle")
        (folder / "geneformer").mkdir()
        (folder / "geneformer" / "token_dictionary_gc104M.pkl").write_bytes(b"a pickle")
        (folder / "model.safetensors").write_bytes(b"large")

    return save


def cells() -> list[Any]:
    """More genes than fit, and fewer; with <cls> and <eos>, and without."""
    return [array("i", range(39, 9, -1)), [2, 7, 30, 5, 3], array("i", range(4, 20))]
