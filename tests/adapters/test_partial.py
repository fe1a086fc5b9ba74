"""Models loaded up to the deepest layer asked for give the same bits and hold less."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from adapters import open_adapter
from tests.adapters.tiny import FAMILIES
from zoo.errors import BadWeights

PARTIAL = ["gpt2", "gpt-neox", "bert", "modernbert", "esm", "dinov2", "dinov2-registers"]


def _bytes(model: torch.nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters() if not p.is_meta)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", PARTIAL)
def test_blocks_after_the_deepest_layer_are_not_loaded_and_change_nothing(
    family: str, dtype: torch.dtype, checkpoint: Callable[[str], Path]
) -> None:
    card, examples = FAMILIES[family].card, FAMILIES[family].examples()
    whole, part = (
        open_adapter(card, weights=checkpoint(family), dtype=dtype, depth=depth)
        for depth in (None, 2)
    )
    expected = list(whole.activations([0, 1], examples, batch_size=2))
    found = list(part.activations([0, 1], examples, batch_size=2))
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        for layer in (0, 1):
            assert torch.equal(one.by_layer[layer], other.by_layer[layer])
    after = sum(p.numel() * p.element_size() for p in whole.blocks[2].parameters())
    assert _bytes(part.model) == _bytes(whole.model) - after
    assert all(p.is_meta for p in part.blocks[2].parameters())


def test_a_layer_after_the_depth_is_refused(checkpoint: Callable[[str], Path]) -> None:
    adapter = open_adapter(FAMILIES["gpt2"].card, weights=checkpoint("gpt2"), depth=2)
    with pytest.raises(ValueError, match="layer 2 is after the 2 blocks to be read"):
        next(adapter.activations([2], ["some text"], batch_size=1))


def test_a_checkpoint_that_lacks_a_tensor_is_refused_here_too(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(checkpoint("gpt2"), tmp_path / "copy")
    path = tmp_path / "copy" / "model.safetensors"
    weights = load_file(path)
    name = next(key for key in weights if "h.0.mlp.c_fc.weight" in key)
    weights.pop(name)
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(BadWeights, match=r"wrong architecture: .* lacks .*h\.0\.mlp\.c_fc\.weight"):
        _ = open_adapter(FAMILIES["gpt2"].card, weights=tmp_path / "copy", depth=1).model


def test_weights_that_are_not_safetensors_are_loaded_whole(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    import shutil

    from safetensors.torch import load_file

    shutil.copytree(checkpoint("gpt2"), tmp_path / "copy")
    path = tmp_path / "copy" / "model.safetensors"
    torch.save(load_file(path), tmp_path / "copy" / "pytorch_model.bin")
    path.unlink()
    adapter = open_adapter(FAMILIES["gpt2"].card, weights=tmp_path / "copy", depth=1)
    assert not any(p.is_meta for p in adapter.model.parameters())
