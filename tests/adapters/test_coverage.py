"""Every parameter comes out of the files: by name, tied to one that does, or under another name."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from adapters import Adapter, coverage, open_adapter
from tests.adapters.architectures import ARCHITECTURES
from tests.adapters.tiny import FAMILIES, make_card, random_dna
from zoo.errors import BadWeights
from zoo.registry import load_registry

CARDS = load_registry().cards


class Pair(nn.Module):
    """Two layers that may be tied, and one of its own."""

    base_model_prefix = "base"

    def __init__(self, config: object = None, tied: bool = True) -> None:
        super().__init__()
        self.config = config
        self.one, self.two = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        self.own = nn.Linear(2, 2, bias=False)
        if tied:
            self.two.weight = self.one.weight


def _saved(folder: Path, model: Pair, **names: str) -> dict[str, Path]:
    """Files that hold the parameters under those names."""
    own = dict(model.named_parameters(remove_duplicate=False))
    held = {name: own[parameter].detach().clone() for name, parameter in names.items()}
    save_file({key.replace("__", "."): t for key, t in held.items()}, folder / "model.safetensors")
    return coverage.keys_of([folder / "model.safetensors"])


def test_a_tied_parameter_needs_to_be_there_once(tmp_path: Path) -> None:
    model = Pair()
    keys = _saved(tmp_path, model, one__weight="one.weight", own__weight="own.weight")
    assert coverage.lost(model, keys) == []
    coverage.check_coverage(make_card(), tmp_path, model, keys)


def test_a_parameter_whose_tie_was_broken_is_refused(tmp_path: Path) -> None:
    model = Pair(tied=False)
    keys = _saved(tmp_path, model, one__weight="one.weight", own__weight="own.weight")
    assert coverage.lost(model, keys) == ["two.weight"]
    with pytest.raises(BadWeights) as failure:
        coverage.check_coverage(make_card(), tmp_path, model, keys)
    assert "leaves the parameter two.weight without its values" in str(failure.value)


def test_what_the_class_ties_is_tied_again(tmp_path: Path) -> None:
    model = Pair()
    model.two.weight = nn.Parameter(torch.full((3, 3), float("nan")))
    keys = _saved(tmp_path, model, one__weight="one.weight", own__weight="own.weight")
    assert coverage.tie_again(model, keys) == {"one.weight", "two.weight"}
    assert model.two.weight is model.one.weight
    assert coverage.lost(model, keys) == []


def test_the_one_in_the_file_is_the_one_that_is_kept(tmp_path: Path) -> None:
    model = Pair()
    second = nn.Parameter(torch.ones(3, 3))
    model.two.weight = second
    keys = _saved(tmp_path, model, two__weight="two.weight", own__weight="own.weight")
    coverage.tie_again(model, keys)
    assert model.one.weight is second


@pytest.mark.parametrize("form", ["base__own__weight", "renamed"])
def test_a_prefix_and_another_name_are_seen_through(form: str, tmp_path: Path) -> None:
    model = Pair()
    keys = _saved(tmp_path, model, one__weight="one.weight", **{form: "own.weight"})
    assert coverage.lost(model, keys) == []


def test_another_content_under_another_name_is_not_enough(tmp_path: Path) -> None:
    model = Pair()
    keys = _saved(tmp_path, model, one__weight="one.weight", renamed="own.weight")
    with torch.no_grad():
        model.own.weight[0, 0] += 1
    assert coverage.lost(model, keys) == ["own.weight"]


def test_tensors_of_one_mapped_file_are_not_taken_for_tied(tmp_path: Path) -> None:
    """They lie in one storage, at different places of it."""
    storage = torch.randn(22)
    model = Pair(tied=False)
    for layer, start, shape in ((model.one, 0, (3, 3)), (model.two, 9, (3, 3))):
        layer.weight = nn.Parameter(storage[start : start + 9].view(shape))
    keys = _saved(tmp_path, model, one__weight="one.weight", own__weight="own.weight")
    assert coverage.lost(model, keys) == ["two.weight"]


def test_a_pickled_file_is_read_too(tmp_path: Path) -> None:
    model = Pair(tied=False)
    torch.save({"one.weight": model.one.weight, "other": model.own.weight}, tmp_path / "a.bin")
    assert coverage.lost(model, coverage.keys_of([tmp_path / "a.bin"])) == ["two.weight"]


# --------------------------------------------------------------------------- through the adapters


@pytest.fixture
def caduceus(tmp_path: Path) -> Callable[[], Adapter]:
    """The tiny twin of Caduceus, whose projections of both directions are stored once."""
    entry = ARCHITECTURES["caduceus"]
    entry.save(tmp_path)
    card = entry.card(CARDS["caduceus-ps"])
    return lambda: open_adapter(card, weights=tmp_path, trust_remote_code=True)


def test_tied_projections_keep_their_values(
    caduceus: Callable[[], Adapter], tmp_path: Path
) -> None:
    adapter = caduceus()
    saved = load_file(tmp_path / "model.safetensors")
    assert not any("both.qkv.weight" in key for key in saved)
    code = importlib.import_module(type(adapter.model).__module__)
    expected = code.CaduceusForMaskedLM(adapter.model.config)
    expected.load_state_dict(saved, strict=False)
    sequences = random_dna(2, 30)
    found = next(adapter.activations([0, 1, 2], sequences, batch_size=1))
    inputs = adapter.inputs([adapter.windows(sequences[0])[0]])
    streams: list[torch.Tensor] = []
    for block in expected.get_submodule(expected.path):
        block.register_forward_hook(lambda module, taken, given: streams.append(sum(given)[0]))
    with torch.no_grad():
        expected.eval()(**inputs.arguments)
    for layer in range(3):
        kept = streams[layer][found.position[found.example == 0][: len(found)]]
        torch.testing.assert_close(found.by_layer[layer], kept)


def test_a_projection_that_is_nowhere_in_the_files_is_refused(
    caduceus: Callable[[], Adapter], tmp_path: Path
) -> None:
    saved = load_file(tmp_path / "model.safetensors")
    name = next(key for key in saved if key.endswith("attention.qkv.weight"))
    del saved[name]
    save_file(saved, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadWeights):
        _ = caduceus().model


@pytest.mark.parametrize("name", [n for n in FAMILIES if n != "timm-vit"])
def test_the_librarys_own_models_are_covered(
    name: str, checkpoint: Callable[[str], Path], opened: Callable[[str], Adapter]
) -> None:
    model = opened(name).model
    keys = coverage.keys_of(checkpoint(name).glob("*.safetensors"))
    assert [k for k in coverage.lost(model, keys) if "pooler" not in k] == []
