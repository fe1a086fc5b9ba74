"""Buffers that loading loses are computed again, or the model is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.version import Version
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from adapters import buffers, compat, open_adapter
from tests.adapters.architectures import ARCHITECTURES
from tests.adapters.tiny import make_card
from tests.adapters.tiny_remote import REMOTE
from zoo.errors import BadWeights
from zoo.registry import load_registry


class Config:
    width = 8


class Model(nn.Module):
    """Two buffers that its state does not hold, one that it does, and a parameter."""

    known: Tensor
    halved: Tensor
    saved: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.randn(config.width))
        self.register_buffer("known", torch.arange(config.width) / 7, persistent=False)
        self.register_buffer("halved", torch.arange(3.0) / 3, persistent=False)
        self.register_buffer("saved", torch.zeros(2))


def _broken() -> Model:
    model = Model(Config())
    model.known.fill_(float("nan"))
    model.halved = torch.full((3,), 1e30, dtype=torch.bfloat16)
    model.saved.fill_(5.0)
    return model


def test_lost_buffers_are_computed_again() -> None:
    model = _broken()
    assert buffers.recompute(make_card(), model) == ["known", "halved"]
    assert torch.equal(model.known, torch.arange(8) / 7)
    assert torch.equal(model.halved, (torch.arange(3.0) / 3).bfloat16())
    assert model.saved.tolist() == [5.0, 5.0]
    assert buffers.recompute(make_card(), model) == []


def test_a_class_that_cannot_be_built_again_is_refused() -> None:
    class Stubborn(Model):
        def __init__(self, config: Config, key: str) -> None:
            super().__init__(config)

    model = Stubborn(Config(), "key")
    with pytest.raises(BadWeights, match=r"'tiny': transformers .* cannot be built again \(TypeE"):
        buffers.recompute(make_card(), model)


def test_a_buffer_that_depends_on_parameters_is_refused() -> None:
    class Derived(Model):
        def __init__(self, config: Config) -> None:
            super().__init__(config)
            self.register_buffer("norm", self.weight.detach() ** 2, persistent=False)

    with pytest.raises(BadWeights, match=r"its buffer norm cannot be computed again\. Use"):
        buffers.recompute(make_card(), Derived(Config()))


def test_under_version_5_foreign_classes_are_put_right_and_own_ones_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compat, "major", lambda module: 4)
    assert buffers.restore(make_card(), _broken()) == []
    monkeypatch.setattr(compat, "major", lambda module: 5)
    assert buffers.restore(make_card(), _broken()) == ["known", "halved"]
    monkeypatch.setattr(Model, "__module__", "transformers.models.some")
    assert buffers.restore(make_card(), _broken()) == []


def _glm2(folder: Path) -> Any:
    card = ARCHITECTURES["glm2"].card(load_registry().card("glm2-650m"))
    return open_adapter(card, weights=folder, trust_remote_code=True)


def test_remote_code_keeps_its_frequencies_whatever_the_version(tmp_path: Path) -> None:
    ARCHITECTURES["glm2"].save(tmp_path)
    expected = 1 / 100 ** (torch.arange(0, 48, 2).float() / 48)
    model = _glm2(tmp_path).model
    found = [b for name, b in model.named_buffers() if name.endswith("inv_freq")]
    assert len(found) == 3
    assert all(torch.equal(buffer, expected) for buffer in found)


def test_remote_code_whose_buffers_cannot_be_computed_again_is_never_measured(
    tmp_path: Path,
) -> None:
    ARCHITECTURES["glm2"].save(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights |= {f"encoder.layers.{i}.attention.rotary.scale": torch.ones(24) for i in range(3)}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    code = REMOTE.read_text(encoding="utf-8")
    # Frequencies that depend on a parameter.
    line = "        self.register_buffer("
    changed = code.replace(
        line,
        "        self.scale = nn.Parameter(torch.ones(24))\n"
        f"        frequencies = frequencies * self.scale.detach()\n{line}",
    )
    assert changed != code
    (tmp_path / REMOTE.name).write_text(changed, encoding="utf-8")
    if Version(compat.transformers().__version__) < Version("4.56"):  # builds models with values
        assert _glm2(tmp_path).blocks
        return
    with pytest.raises(BadWeights, match=r"cannot be (computed|built) again|on device meta"):
        _ = _glm2(tmp_path).model
