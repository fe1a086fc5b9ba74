"""Checkpoints that no model has: an error that names the model and its folder, and soon."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from adapters import open_adapter
from tests.adapters.tiny import FAMILIES, SENTENCES
from zoo.errors import BadWeights

CONFIGURATIONS: dict[str, Any] = {
    "no heads": {"n_head": 0},
    "words for eps": {"layer_norm_epsilon": "x"},
    "a thousand million blocks": {"n_layer": 10**9},
    "negative width": {"n_embd": -1},
    "words for positions": {"n_positions": "a"},
    "unknown activation": {"activation_function": "nope"},
}


@pytest.fixture
def folder(tmp_path: Path, checkpoint: Callable[[str], Path]) -> Path:
    return Path(shutil.copytree(checkpoint("gpt2"), tmp_path / "weights"))


def message_of(folder: Path, depth: int | None = None) -> str:
    adapter = open_adapter(FAMILIES["gpt2"].card, weights=folder, depth=depth)
    with pytest.raises(BadWeights) as caught:
        list(adapter.activations([0], SENTENCES, batch_size=2))
    message = str(caught.value)
    assert message.startswith("model 'tiny'")
    assert str(folder) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("wrong", CONFIGURATIONS)
def test_configuration_that_no_model_has(wrong: str, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | CONFIGURATIONS[wrong]))
    message_of(folder)


@pytest.mark.parametrize("size", [0, 1, 300])
def test_truncated_tokenizer(size: int, folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:size])
    assert "tokenizer.json cannot be read" in message_of(folder)


@pytest.mark.parametrize("content", ["", "\n", "hello\n", "[UNK]\n"])
@pytest.mark.parametrize("family", ["bert", "esm"])
def test_vocabulary_that_is_none(
    family: str, content: str, tmp_path: Path, checkpoint: Callable[[str], Path]
) -> None:
    folder = Path(shutil.copytree(checkpoint(family), tmp_path / "weights"))
    (folder / "tokenizer.json").unlink(missing_ok=True)
    (folder / "vocab.txt").write_text(content)
    adapter = open_adapter(FAMILIES[family].card, weights=folder)
    with pytest.raises(BadWeights, match=r"vocab|tokenizer") as caught:
        list(adapter.activations([0], FAMILIES[family].examples(), batch_size=2))
    assert "protobuf" not in str(caught.value)


@pytest.mark.parametrize("block", [0, 2])
def test_tensor_that_is_missing_within_and_after_the_blocks_read(block: int, folder: Path) -> None:
    (path,) = folder.glob("*.safetensors")
    tensors = load_file(path)
    rest = {k: v for k, v in tensors.items() if f"h.{block}.ln_1.bias" not in k}
    assert len(rest) == len(tensors) - 1
    save_file(rest, path, {"format": "pt"})
    message_of(folder, depth=1)
