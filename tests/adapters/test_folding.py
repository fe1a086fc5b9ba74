"""Pairformer trunks: recycling, two streams, pairs as tokens; on stand-ins for the packages."""

from __future__ import annotations

import os
import pickle
import string
import sys
from collections.abc import Callable
from dataclasses import make_dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adapters import Adapter, check, open_adapter
from tests.adapters.tiny import PROTEINS
from zoo.cards import Card
from zoo.errors import BadCorpus, BadWeights, ModelUnavailable, UsageError
from zoo.registry import load_registry
from zoo.weights import weights_identity

CARDS = load_registry().cards
SINGLE, PAIR, LAYERS, RECYCLES = 24, 8, 3, 2
CHECKPOINT = {"openfold3": "of3-ob-2025-06-30-174k.pt", "boltz2": "boltz2_conf.ckpt"}


class Block(nn.Module):
    """Mixes both streams and, as the real ones do under `inplace_safe`, writes into its input."""

    def __init__(self) -> None:
        super().__init__()
        self.single, self.pair = nn.Linear(SINGLE, SINGLE), nn.Linear(PAIR, PAIR)
        self.bias = nn.Linear(PAIR, 1)

    def forward(self, s: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        z += self.pair(z) + z.mean(dim=1, keepdim=True)
        z /= z.norm(dim=-1, keepdim=True)
        s += self.bias(z)[..., 0].softmax(dim=-1) @ self.single(s)
        s /= s.norm(dim=-1, keepdim=True)
        return s, z


class Streams(nn.Module):
    """Embeds residues and atoms, then runs blocks `cycles` times on their own output."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.letters = nn.Embedding(128, SINGLE)
        self.atoms = nn.Linear(3, PAIR)

    def run(self, blocks: nn.ModuleList, batch: dict[str, Tensor], cycles: int) -> Any:
        first = self.letters(batch["residues"])
        atoms = (self.atoms(batch["ref_pos"]) * batch["ref_mask"][..., None]).sum(dim=1)
        pair = first[:, :, None, :PAIR] * first[:, None, :, -PAIR:] + atoms[:, None, None]
        s, z = torch.zeros_like(first), torch.zeros_like(pair)
        for _ in range(cycles):
            s, z = first + s, pair + z
            for block in blocks:
                s, z = block(s, z)
        return first, s, z


class Trunk(Streams):
    """OpenFold 3's."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        assert config.settings.memory.eval["use_triton_triangle_kernels"] is False
        self.pairformer_stack = nn.Module()
        self.pairformer_stack.blocks = nn.ModuleList(Block() for _ in range(LAYERS))

    def run_trunk(self, batch: dict[str, Tensor], num_cycles: int, inplace_safe: bool) -> Any:
        assert inplace_safe
        return self.run(self.pairformer_stack.blocks, batch, num_cycles)


class Settings:
    """A container of OmegaConf."""

    def __init__(self, content: Any) -> None:
        self.content = content


class Boltz2(Streams):
    """Boltz-2's model, with what lies after the trunk unless it is switched off."""

    def __init__(
        self,
        training_args: Settings,
        pairformer_args: dict[str, Any],
        msa_args: dict[str, Any],
        skip_run_structure: bool = False,
        confidence_prediction: bool = True,
        compile_pairformer: bool = True,
        **others: Any,
    ) -> None:
        super().__init__()
        assert training_args.content == {"max_lr": 0.1}
        assert (pairformer_args, msa_args) == ({"num_blocks": LAYERS}, {"msa_blocks": 4})
        assert skip_run_structure
        assert not any([confidence_prediction, compile_pairformer, *others.values()])
        self.pairformer_module = nn.Module()
        self.pairformer_module.layers = nn.ModuleList(Block() for _ in range(LAYERS))
        self.structure_module = nn.Linear(2, 2)
        self.diffusion_conditioning = nn.Linear(2, 2)

    def forward(self, feats: dict[str, Tensor], recycling_steps: int = 0) -> Any:
        return self.run(self.pairformer_module.layers, feats, recycling_steps + 1)


def _features(sequence: str) -> dict[str, Any]:
    """Residues, and atoms whose number depends on them, turned at random as the real ones are."""
    atoms = sum(map(ord, sequence)) % 7 + 40
    position = torch.randn(atoms, 3) + float(np.random.rand())
    return {
        "residues": torch.tensor(list(sequence.encode())),
        "ref_pos": position,
        "ref_mask": torch.ones(atoms),
        "num_paired_seqs": torch.ones(1),
        "query_id": "not a tensor",
    }


def _modules(monkeypatch: pytest.MonkeyPatch, contents: dict[str, dict[str, Any]]) -> None:
    """Puts modules in the place of a package's, with their parents."""
    for path, content in contents.items():
        parts = path.split(".")
        for name in (".".join(parts[: end + 1]) for end in range(len(parts))):
            if not isinstance(sys.modules.get(name), StandIn):
                module = StandIn(name)
                module.__spec__ = ModuleSpec(name, None, is_package=True)
                module.__path__ = []
                monkeypatch.setitem(sys.modules, name, module)
        for name, value in content.items():
            setattr(sys.modules[path], name, value)
        if len(parts) > 1:
            setattr(sys.modules[".".join(parts[:-1])], parts[-1], sys.modules[path])


class StandIn(ModuleType):
    """A module of a package that is not there."""


def _openfold3(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """A stand-in for the package openfold3, and a checkpoint of its model."""

    def configured() -> Any:
        memory = SimpleNamespace(eval={"use_triton_triangle_kernels": True})
        return Config(settings=SimpleNamespace(memory=memory))

    class Config(SimpleNamespace):
        def update(self, changes: dict[str, Any]) -> None:
            assert changes == {"architecture": {}}

    class Queries:
        @staticmethod
        def model_validate(content: dict[str, Any]) -> Any:
            return SimpleNamespace(**content)

    class Dataset:
        def __init__(self, job: Any) -> None:
            assert job.template_preprocessor_settings.mode == "predict"

        def create_all_features(self, query: Any) -> dict[str, Any]:
            [chain] = query["chains"]
            assert chain["molecule_type"] == "protein"
            return _features(chain["sequence"])

    package = "openfold3.projects.of3_all_atom"
    pipelines = "openfold3.core.data.pipelines.preprocessing.template"
    _modules(
        monkeypatch,
        {
            f"{package}.model": {"OpenFold3": Trunk},
            f"{package}.project_entry": {
                "OF3ProjectEntry": lambda: SimpleNamespace(get_model_config_with_presets=configured)
            },
            f"{package}.config.dataset_configs": {"InferenceJobConfig": SimpleNamespace},
            f"{package}.config.inference_query_format": {"InferenceQuerySet": Queries},
            pipelines: {"TemplatePreprocessorSettings": SimpleNamespace},
            "openfold3.core.data.framework.single_datasets.inference": {
                "InferenceDataset": Dataset
            },
            "rdkit.rdBase": {"SeedRandomNumberGenerator": lambda seed: None},
        },
    )
    settings = SimpleNamespace(memory=SimpleNamespace(eval={"use_triton_triangle_kernels": False}))
    torch.save(
        Trunk(SimpleNamespace(settings=settings)).state_dict(), folder / CHECKPOINT["openfold3"]
    )


def _boltz(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """A stand-in for the package boltz, a checkpoint of its model, and molecules."""

    class Featurizer:
        def process(self, tokens: str, molecules: dict[str, Any], **settings: Any) -> Any:
            assert set(molecules) == set(tokens)
            assert not settings["training"]
            shift = settings["random"].normal()
            features = _features(tokens)
            return features | {"ref_pos": features["ref_pos"] + float(shift)}

    def parsed(name: str, schema: dict[str, Any], molecules: Any, mols: Path, new: bool) -> Any:
        print("no alignment")
        [entry] = schema["sequences"]
        assert (entry["protein"]["msa"], new) == ("empty", True)
        return SimpleNamespace(structure=entry["protein"]["sequence"], record=None)

    class Tokenizer:
        def tokenize(self, given: str) -> str:
            return given

    def container(name: str) -> type:
        return type(name, (), {})

    molecule = type("Mol", (), {"__module__": "rdkit.Chem.rdchem"})
    _modules(
        monkeypatch,
        {
            "boltz.main": {
                "Boltz2DiffusionParams": make_dataclass("Diffusion", []),
                "MSAModuleArgs": make_dataclass("MSA", [("msa_blocks", int, 4)]),
                "PairformerArgsV2": make_dataclass("Blocks", [("num_blocks", int, LAYERS)]),
            },
            "boltz.model.models.boltz2": {"Boltz2": Boltz2},
            "boltz.data.const": {
                "prot_letter_to_token": {letter: letter for letter in string.ascii_uppercase},
                "max_msa_seqs": 16384,
            },
            "boltz.data.feature.featurizerv2": {"Boltz2Featurizer": Featurizer},
            "boltz.data.parse.schema": {"parse_boltz_schema": parsed},
            "boltz.data.tokenize.boltz2": {"Boltz2Tokenizer": Tokenizer},
            "boltz.data.types": {"Input": lambda structure, msa, record: structure},
            "omegaconf": {"DictConfig": Settings, "ListConfig": container("ListConfig")},
            "omegaconf.base": {name: container(name) for name in ("ContainerMetadata", "Metadata")},
            "omegaconf.nodes": {"AnyNode": container("AnyNode")},
            "rdkit.Chem.rdchem": {"Mol": molecule},
        },
    )
    settings = {"training_args": Settings({"max_lr": 0.1}), "validators": None}
    model = Boltz2(
        settings["training_args"],
        {"num_blocks": LAYERS},
        {"msa_blocks": 4},
        skip_run_structure=True,
        confidence_prediction=False,
        compile_pairformer=False,
    )
    weights = {
        name.replace("pairformer_module.", "pairformer_module._orig_mod."): value
        for name, value in model.state_dict().items()
    }
    weights["confidence_module.weight"] = torch.zeros(1)
    torch.save({"state_dict": weights, "hyper_parameters": settings}, folder / CHECKPOINT["boltz2"])
    (folder / "mols").mkdir()
    for letter in string.ascii_uppercase:
        (folder / "mols" / f"{letter}.pkl").write_bytes(pickle.dumps(molecule()))


@pytest.fixture
def trunk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Adapter]:
    """The adapter of a card, on a stand-in for its package; `context` counts tokens."""
    _openfold3(monkeypatch, tmp_path)
    _boltz(monkeypatch, tmp_path)

    def make(name: str, context: int = 16, **more: Any) -> Adapter:
        content = CARDS[name].model_dump(exclude_none=True) | {"context": context}
        width = PAIR if name.endswith("-pair") else SINGLE
        content["tap"] |= {"layers": LAYERS, "width": width}
        content["options"] |= {"recycles": RECYCLES}
        return open_adapter(Card.model_validate(content), weights=tmp_path, **more)

    return make


FAMILIES = tuple(CHECKPOINT)


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


def test_code_in_a_checkpoint_is_refused_and_does_not_run(
    trunk: Callable[..., Adapter], tmp_path: Path
) -> None:
    path = tmp_path / CHECKPOINT["boltz2"]
    content = torch.load(path, weights_only=False)
    content["hyper_parameters"]["validators"] = Code(tmp_path / "made")
    torch.save(content, path)
    with pytest.raises(BadWeights, match=r"holds more than tensors and settings \(\w+\.mkdir\)"):
        _ = trunk("boltz2").model
    assert not (tmp_path / "made").exists()


def test_code_in_a_molecule_is_refused_and_does_not_run(
    trunk: Callable[..., Adapter], tmp_path: Path
) -> None:
    (tmp_path / "mols" / "M.pkl").write_bytes(pickle.dumps(Code(tmp_path / "made")))
    with pytest.raises(BadWeights, match=r"M\.pkl cannot be loaded \(\w+\.mkdir is not a molecule"):
        trunk("boltz2").inputs(["MKV"])
    assert not (tmp_path / "made").exists()


def test_boltz2_prints_nothing(
    trunk: Callable[..., Adapter], capsys: pytest.CaptureFixture[str]
) -> None:
    trunk("boltz2").inputs(["MKV"])
    assert capsys.readouterr().out == ""


def test_boltz2_needs_its_molecules_and_float32(
    trunk: Callable[..., Adapter], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="computes in float32 only"):
        _ = trunk("boltz2", dtype=torch.bfloat16).model
    (tmp_path / "mols").rename(tmp_path / "elsewhere")
    with pytest.raises(ModelUnavailable, match="no folder 'mols' beside"):
        _ = trunk("boltz2").model


def test_another_checkpoint_is_another_identity_of_the_weights(tmp_path: Path) -> None:
    identities = []
    for content in (b"one", b"two"):
        folder = tmp_path / content.decode()
        folder.mkdir()
        (folder / CHECKPOINT["boltz2"]).write_bytes(content)
        identities.append(weights_identity(CARDS["boltz2"], folder))
    assert identities[0] != identities[1]
