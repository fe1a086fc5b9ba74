"""Every parameter comes out of the files: by name, tied to one that does, or under another name."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from adapters import Adapter, checkpoints, coverage, open_adapter
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


# ------------------------------------------------------------------------------ two names of one


class Twice(nn.Module):
    """A norm that lies in two places, as Enformer's do, and one of its own.

    It cannot be built without memory: what is one cannot be learned from a fresh model.
    """

    base_model_prefix = "twice"

    def __init__(self, config: object = None) -> None:
        super().__init__()
        self.config = config
        self.norm, self.own = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
        self.trunk = nn.Sequential(self.norm)
        self.register_buffer("size", torch.tensor(float(torch.ones(2).sum().item())))

    @classmethod
    def from_pretrained(cls, folder: Path, **_: Any) -> tuple[Twice, dict[str, Any]]:
        """Loads and reports like transformers 4.56: buffers' second names are missing ones."""
        model, saved = cls(), load_file(folder / "model.safetensors")
        model.load_state_dict(saved, strict=False)
        buffers = {name for name, _ in model.named_buffers(remove_duplicate=False)}
        return model, {"missing_keys": buffers - saved.keys(), "unexpected_keys": []}


def _save_once(folder: Path) -> Twice:
    """Random tensors, each under its first name, as the libraries save them."""
    model = Twice()
    with torch.no_grad():
        for tensor in (*model.norm.parameters(), *model.norm.buffers()):
            tensor.copy_(torch.randint(1, 100, tensor.shape))
    held = {name: t for name, t in model.state_dict().items() if not name.startswith("trunk.")}
    save_file(held, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    return model


def test_second_names_are_those_in_the_memory_of_a_saved_one() -> None:
    model, buffers = Twice(), ("running_mean", "running_var", "num_batches_tracked")
    tensors = ("weight", "bias", *buffers)
    both = {f"{place}.{name}" for place in ("norm", "trunk.0") for name in tensors}
    assert coverage.second_names(model, {f"norm.{name}" for name in tensors}) == both
    assert coverage.second_names(model, {f"trunk.0.{name}" for name in tensors}) == both
    model.own.running_mean = model.norm.running_mean.view(3)  # the same memory, another tensor
    assert coverage.second_names(model, {"norm.running_mean"}) == {
        *("norm.running_mean", "trunk.0.running_mean", "own.running_mean")
    }
    model.own.running_mean = model.norm.running_mean.clone()  # the same values elsewhere
    model.own.running_var = model.norm.running_mean[:2]  # a part of the memory
    assert coverage.second_names(model, {"norm.running_mean"}) == {
        *("norm.running_mean", "trunk.0.running_mean")
    }


def test_a_buffer_that_was_loaded_under_its_other_name_is_not_missing(tmp_path: Path) -> None:
    saved = _save_once(tmp_path)
    model = checkpoints.pretrained(Twice, make_card(), tmp_path, dtype=torch.float32)
    for name, tensor in saved.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_a_buffer_that_is_another_one_is_missing(tmp_path: Path) -> None:
    _save_once(tmp_path)

    class Apart(Twice):
        def __init__(self, config: object = None) -> None:
            super().__init__(config)
            self.trunk = nn.Sequential(nn.BatchNorm1d(3))

    with pytest.raises(BadWeights, match=r"lacks trunk\.0\.num_batches_tracked and 2 more"):
        checkpoints.pretrained(Apart, make_card(), tmp_path, dtype=torch.float32)


def test_enformers_trunk_is_second_names(monkeypatch: pytest.MonkeyPatch) -> None:
    from enformer_pytorch import Enformer

    load = Enformer.from_pretrained

    def as_newer_versions_report(*arguments: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
        model, report = load(*arguments, **options)
        buffers = {name for name, _ in model.named_buffers(remove_duplicate=False)}
        second = {name for name in buffers if name.startswith("_trunk.")}
        assert len(second) == 24
        return model, report | {"missing_keys": sorted(second)}

    monkeypatch.setattr(Enformer, "from_pretrained", as_newer_versions_report)
    # Not by building a fresh model, which a version may refuse.
    monkeypatch.setattr(coverage, "tie_again", lambda model, keys: set())
    assert isinstance(open_adapter(CARDS["tiny-enformer"]).model, Enformer)


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
