"""Pairformer trunks: recycling, two streams, pairs as tokens; on stand-ins for the packages."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adapters import Adapter, check, open_adapter
from tests.adapters import folding_packages
from tests.adapters.folding_packages import CHECKPOINT, LAYERS, PAIR, RECYCLES, SINGLE
from tests.adapters.tiny import PROTEINS
from zoo.cards import Card
from zoo.errors import BadCorpus, BadWeights, ModelUnavailable, UsageError
from zoo.registry import load_registry
from zoo.weights import weights_identity

CARDS = load_registry().cards


@pytest.fixture
def trunk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Adapter]:
    """The adapter of a card, on a stand-in for its package; `context` counts tokens."""
    folding_packages.openfold3(monkeypatch, tmp_path)
    folding_packages.boltz(monkeypatch, tmp_path)

    def make(name: str, context: int = 16, **more: Any) -> Adapter:
        # Of the stand-in nobody counted the parameters.
        changes = {"context": context, "parameters": 0}
        content = CARDS[name].model_dump(exclude_none=True) | changes
        width = PAIR if name.endswith("-pair") else SINGLE
        content["tap"] |= {"layers": LAYERS, "width": width}
        content["options"] |= {"recycles": RECYCLES}
        return open_adapter(Card.model_validate(content), weights=tmp_path, **more)

    return make


FAMILIES = tuple(CHECKPOINT)
BOLTZ = ("boltz1", "boltz2")


@pytest.mark.parametrize("name", [*FAMILIES, *(f"{family}-pair" for family in FAMILIES)])
def test_a_trunk_passes_the_conformance_checks(name: str, trunk: Callable[..., Adapter]) -> None:
    results = check(lambda: trunk(name), PROTEINS)
    assert [result for result in results if not result.ok] == []
    details = {result.name: result.detail for result in results}
    assert "take the tapped stream, bit for bit" in details["residual stream"]
    assert details["early stop"] == f"{LAYERS} layers equal a whole forward pass"


def _by_hand(adapter: Adapter, sequence: str, layer: int) -> tuple[Tensor, Tensor]:
    """Both streams after a block in the last cycle, by running the stand-in outside of hooks."""
    inputs = adapter.inputs([sequence])
    seen: list[tuple[Tensor, Tensor]] = []
    block: Any = adapter.blocks[layer]
    forward = block.forward

    def noted(s: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        result: tuple[Tensor, Tensor] = forward(s, z)
        seen.append((result[0].clone(), result[1].clone()))
        return result

    block.forward = noted
    with torch.no_grad():
        adapter.model(**inputs.arguments)
    block.forward = forward
    assert len(seen) == RECYCLES + 1
    assert not torch.equal(seen[-1][0], seen[-2][0])
    return seen[-1]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layer", range(LAYERS))
def test_the_last_cycle_is_what_is_kept(
    layer: int, family: str, trunk: Callable[..., Adapter]
) -> None:
    single, pair = trunk(family), trunk(f"{family}-pair", context=256)
    s, z = _by_hand(single, "MKTAYIAK", layer)
    [batch] = single.activations([layer], ["MKTAYIAK"], batch_size=2)
    assert torch.equal(batch.by_layer[layer], s[0])
    [batch] = pair.activations([layer], ["MKTAYIAK"], batch_size=2)
    assert torch.equal(batch.by_layer[layer].reshape(8, 8, PAIR), z[0])
    assert batch.position.tolist() == list(range(64))


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_runs_after_the_deepest_block_of_the_last_cycle(
    family: str, trunk: Callable[..., Adapter]
) -> None:
    adapter = trunk(family)
    calls = [0] * LAYERS

    def count(i: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any) -> None:
            calls[i] += 1

        return hook

    handles = [b.register_forward_pre_hook(count(i)) for i, b in enumerate(adapter.blocks)]
    list(adapter.activations([0, 1], ["MKTAYIAK"], batch_size=1))
    for handle in handles:
        handle.remove()
    assert calls == [RECYCLES + 1, RECYCLES + 1, RECYCLES]


def test_a_batch_has_proteins_of_one_length_and_is_cut_at_the_tokens_asked_for(
    trunk: Callable[..., Adapter],
) -> None:
    pair = trunk("openfold3-pair", context=30)  # five residues have 25 pairs
    assert pair.windows("MKTAYIAK") == ["MKTAY", "IAK"]
    batches = list(pair.activations([0], ["MKTAYIAK", "ACD", "EFG"], batch_size=4, max_tokens=40))
    assert [len(batch) for batch in batches] == [25, 15]
    assert batches[1].example.tolist() == [0] * 9 + [1] * 6


def test_rare_residues_are_the_unknown_one_and_other_letters_are_refused(
    trunk: Callable[..., Adapter],
) -> None:
    adapter = trunk("openfold3")
    assert adapter.windows("MBZUOX") == ["MXXXXX"]
    with pytest.raises(BadCorpus, match="'J' at position 2 is not a letter of proteins"):
        adapter.windows("MJ")
    with pytest.raises(BadCorpus, match="a protein sequence is needed, not int"):
        adapter.windows(3)


@pytest.mark.parametrize("family", FAMILIES)
def test_features_leave_the_global_generators_as_they_were(
    family: str, trunk: Callable[..., Adapter]
) -> None:
    adapter = trunk(family)
    torch.manual_seed(1)
    np.random.seed(1)
    expected = torch.randn(3), np.random.rand(3)
    torch.manual_seed(1)
    np.random.seed(1)
    first, again = adapter.inputs(["MKV"]), adapter.inputs(["MKV"])
    assert torch.equal(first.arguments["ref_pos"], again.arguments["ref_pos"])
    assert torch.equal(torch.randn(3), expected[0])
    assert np.array_equal(np.random.rand(3), expected[1])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_of_another_model_is_refused(
    family: str, trunk: Callable[..., Adapter], tmp_path: Path
) -> None:
    torch.save({"other": torch.zeros(1)}, tmp_path / CHECKPOINT[family])
    with pytest.raises(BadWeights, match="cannot be loaded"):
        _ = trunk(family).model


class Code:
    """What a pickle can hold: a call that is made when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("family", BOLTZ)
def test_code_in_a_checkpoint_is_refused_and_does_not_run(
    family: str, trunk: Callable[..., Adapter], tmp_path: Path
) -> None:
    path = tmp_path / CHECKPOINT[family]
    content = torch.load(path, weights_only=False)
    content["hyper_parameters"]["validators"] = Code(tmp_path / "made")
    torch.save(content, path)
    with pytest.raises(BadWeights, match=r"holds more than tensors and settings \(\w+\.mkdir\)"):
        _ = trunk(family).model
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(("family", "name"), [("boltz1", "ccd.pkl"), ("boltz2", "mols/M.pkl")])
def test_code_in_a_molecule_is_refused_and_does_not_run(
    family: str, name: str, trunk: Callable[..., Adapter], tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(pickle.dumps({"M": Code(tmp_path / "made")}))
    with pytest.raises(BadWeights, match=r"\.pkl cannot be loaded \(\w+\.mkdir is not a molecule"):
        trunk(family).inputs(["MKV"])
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("family", BOLTZ)
def test_boltz_prints_nothing(
    family: str, trunk: Callable[..., Adapter], capsys: pytest.CaptureFixture[str]
) -> None:
    trunk(family).inputs(["MKV"])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("family", "name"), [("boltz1", "ccd.pkl"), ("boltz2", "mols")])
def test_boltz_needs_its_molecules_and_float32(
    family: str, name: str, trunk: Callable[..., Adapter], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="computes in float32 only"):
        _ = trunk(family, dtype=torch.bfloat16).model
    (tmp_path / name).rename(tmp_path / "elsewhere")
    with pytest.raises(ModelUnavailable, match=f"no '{name}' in .*`boltz predict` downloads"):
        _ = trunk(family).model


def test_another_checkpoint_is_another_identity_of_the_weights(tmp_path: Path) -> None:
    identities = []
    for content in (b"one", b"two"):
        folder = tmp_path / content.decode()
        folder.mkdir()
        (folder / CHECKPOINT["boltz2"]).write_bytes(content)
        identities.append(weights_identity(CARDS["boltz2"], folder))
    assert identities[0] != identities[1]
