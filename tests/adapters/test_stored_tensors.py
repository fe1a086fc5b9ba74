"""Tensors that are not the model's are refused, whatever the depth that is read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from adapters import open_adapter
from adapters.sequence import _VOCABULARIES
from adapters.stored_tensors import check_tensors
from tests.adapters.tiny import SENTENCES, make_card
from zoo.errors import BadWeights
from zoo.hub import WEIGHTS
from zoo.weights import weights_identity

Change = Callable[[Tensor], Tensor]


def _changed(folder: Path, copy: Path, name: str, change: Change, *, pickled: bool = False) -> Path:
    """A copy of a checkpoint with one tensor changed."""
    shutil.copytree(folder, copy)
    path = copy / "model.safetensors"
    tensors = load_file(path)
    tensors[name] = change(tensors[name]).contiguous()
    if pickled:
        path.unlink()
        torch.save(tensors, copy / "pytorch_model.bin")
    else:
        save_file(tensors, path, metadata={"format": "pt"})
    return copy


def _int8(tensor: Tensor) -> Tensor:
    return (tensor / (tensor.abs().max() / 127)).round().to(torch.int8)


def _with(value: float) -> Change:
    def change(tensor: Tensor) -> Tensor:
        tensor = tensor.clone()
        tensor.view(-1)[-1] = value
        return tensor

    return change


CHANGES: dict[str, tuple[Change, str]] = {
    "int8": (_int8, r"is I8, where the model has floating point numbers"),
    "uint8": (lambda t: _int8(t).view(torch.uint8), r"is U8, where the model"),
    "int64": (lambda t: _int8(t).long(), r"is I64|is int64"),
    "float8": (lambda t: t.to(torch.float8_e4m3fn), r"is F8_E4M3, where the model"),
    "boolean": (lambda t: t > 0, r"is BOOL|is bool"),
    "nan": (_with(float("nan")), r"has 1 values that are not finite"),
    "infinite": (_with(float("inf")), r"has 1 values that are not finite"),
    "shape": (lambda t: torch.cat([t, t]), r"shape"),
}


@pytest.mark.parametrize("depth", [1, None])
@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("change", CHANGES)
def test_a_tensor_that_is_not_the_model_s_is_refused(
    change: str, layer: int, depth: int | None, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    function, says = CHANGES[change]
    name = f"transformer.h.{layer}.mlp.c_fc.weight"
    folder = _changed(checkpoint("gpt2"), tmp_path / "copy", name, function)
    with pytest.raises(BadWeights, match=says) as caught:
        _ = open_adapter(make_card(), weights=folder, depth=depth).model
    # Of a shape that a part of the model is loaded in, the library names the two shapes alone.
    assert f"h.{layer}.mlp.c_fc.weight" in str(caught.value) or change == "shape"


@pytest.mark.parametrize("change", ["int8", "nan", "int64"])
def test_pickled_weights_are_looked_at_too(
    change: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    function, says = CHANGES[change]
    name = "transformer.h.1.mlp.c_fc.weight"
    folder = _changed(checkpoint("gpt2"), tmp_path / "copy", name, function, pickled=True)
    with pytest.raises(BadWeights, match=says):
        _ = open_adapter(make_card(), weights=folder).model


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("depth", [1, None])
def test_numbers_of_other_precision_are_weights(
    dtype: torch.dtype, depth: int | None, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    name = "transformer.h.2.mlp.c_fc.weight"
    folder = _changed(checkpoint("gpt2"), tmp_path / "copy", name, lambda t: t.to(dtype))
    adapter = open_adapter(make_card(), weights=folder, depth=depth)
    assert len(next(adapter.activations([0], SENTENCES, batch_size=3)))


@given(values=st.lists(st.floats(width=32), min_size=1, max_size=9))
def test_finite_is_every_value(values: list[float]) -> None:
    module = torch.nn.Linear(len(values), 1, bias=False)
    module.weight.data[0] = torch.tensor(values)
    finite = bool(module.weight.isfinite().all())
    try:
        check_tensors(make_card(), Path("nowhere"), module)
        refused = False
    except BadWeights:
        refused = True
    assert refused != finite


def test_float16_that_overflows_in_a_conversion_is_refused(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    name = "transformer.h.1.mlp.c_fc.weight"
    folder = _changed(checkpoint("gpt2"), tmp_path / "copy", name, _with(1e6))
    _ = open_adapter(make_card(), weights=folder).model
    with pytest.raises(BadWeights, match="Fetch it again, or load it in float32"):
        _ = open_adapter(make_card(), weights=folder, dtype=torch.float16).model


@pytest.mark.parametrize("pattern", [*_VOCABULARIES, *WEIGHTS, "merges.bpe", "a.pkl", "code.py"])
def test_what_is_read_is_part_of_the_identity(pattern: str, tmp_path: Path) -> None:
    card: Any = make_card()
    path = tmp_path / pattern.replace("*", "a")
    path.write_text("one")
    before = weights_identity(card, tmp_path)
    path.write_text("another")
    assert weights_identity(card, tmp_path) != before
