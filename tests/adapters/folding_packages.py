"""Stand-ins for the packages of Pairformer trunks, with checkpoints of their models."""

from __future__ import annotations

import pickle
import string
import sys
from dataclasses import make_dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

SINGLE, PAIR, LAYERS, RECYCLES = 24, 8, 3, 2
CHECKPOINT = {
    "openfold3": "of3-ob-2025-06-30-174k.pt",
    "boltz1": "boltz1_conf.ckpt",
    "boltz2": "boltz2_conf.ckpt",
}


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


class Boltz1(Streams):
    """Boltz-1's model, which has no switch that ends it after the trunk."""

    def __init__(
        self,
        training_args: Settings,
        pairformer_args: dict[str, Any],
        msa_args: dict[str, Any],
        confidence_prediction: bool = True,
        compile_pairformer: bool = True,
        **others: Any,
    ) -> None:
        super().__init__()
        assert training_args.content == {"max_lr": 0.1}
        assert pairformer_args == {"num_blocks": LAYERS}
        assert msa_args == {"msa_blocks": 4, "use_paired_feature": False}
        assert not any([confidence_prediction, compile_pairformer, *others.values()])
        self.pairformer_module = nn.Module()
        self.pairformer_module.layers = nn.ModuleList(Block() for _ in range(LAYERS))
        self.structure_module: Any = nn.Linear(2, 2)

    def forward(self, feats: dict[str, Tensor], recycling_steps: int = 0) -> Any:
        first, s, z = self.run(self.pairformer_module.layers, feats, recycling_steps + 1)
        return {"s": s, **self.structure_module.sample(s_trunk=s, z_trunk=z, s_inputs=first)}


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
        assert pairformer_args == {"num_blocks": LAYERS}
        assert msa_args == {"msa_blocks": 4, "use_paired_feature": True}
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


def openfold3(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
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


def boltz(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """A stand-in for the package boltz, checkpoints of its models, and molecules."""

    class OldFeaturizer:
        def process(self, tokens: str, training: bool, max_seqs: int) -> Any:
            assert (training, max_seqs) == (False, 16384)
            return _features(tokens)

    class Featurizer:
        def process(self, tokens: str, molecules: dict[str, Any], **settings: Any) -> Any:
            assert set(molecules) == set(tokens)
            assert not settings["training"]
            shift = settings["random"].normal()
            features = _features(tokens)
            return features | {"ref_pos": features["ref_pos"] + float(shift)}

    def parsed(
        name: str,
        schema: dict[str, Any],
        molecules: Any,
        mols: Path | None = None,
        new: bool = False,
    ) -> Any:
        print("no alignment")
        [entry] = schema["sequences"]
        assert entry["protein"]["msa"] == "empty"
        assert new == (mols is not None)
        assert set(entry["protein"]["sequence"]) <= set(molecules)
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
                "BoltzDiffusionParams": make_dataclass("Diffusion", []),
                "MSAModuleArgs": make_dataclass(
                    "MSA", [("msa_blocks", int, 4), ("use_paired_feature", bool, True)]
                ),
                **dict.fromkeys(
                    ("PairformerArgs", "PairformerArgsV2"),
                    make_dataclass("Blocks", [("num_blocks", int, LAYERS)]),
                ),
            },
            "boltz.model.models.boltz1": {"Boltz1": Boltz1},
            "boltz.model.models.boltz2": {"Boltz2": Boltz2},
            "boltz.data.const": {
                "prot_letter_to_token": {letter: letter for letter in string.ascii_uppercase},
                "max_msa_seqs": 16384,
            },
            "boltz.data.feature.featurizer": {"BoltzFeaturizer": OldFeaturizer},
            "boltz.data.feature.featurizerv2": {"Boltz2Featurizer": Featurizer},
            "boltz.data.parse.schema": {"parse_boltz_schema": parsed},
            "boltz.data.tokenize.boltz": {"BoltzTokenizer": Tokenizer},
            "boltz.data.tokenize.boltz2": {"Boltz2Tokenizer": Tokenizer},
            "boltz.data.types": {"Input": lambda structure, msa, record=None: structure},
            "omegaconf": {"DictConfig": Settings, "ListConfig": container("ListConfig")},
            "omegaconf.base": {name: container(name) for name in ("ContainerMetadata", "Metadata")},
            "omegaconf.nodes": {"AnyNode": container("AnyNode")},
            "rdkit.Chem.rdchem": {"Mol": molecule},
        },
    )
    settings = {"training_args": Settings({"max_lr": 0.1}), "validators": None}
    off = {"confidence_prediction": False, "compile_pairformer": False}
    blocks, msa = {"num_blocks": LAYERS}, {"msa_blocks": 4}
    models = {
        "boltz1": Boltz1(
            settings["training_args"], blocks, msa | {"use_paired_feature": False}, **off
        ),
        "boltz2": Boltz2(
            *(settings["training_args"], blocks, msa | {"use_paired_feature": True}),
            skip_run_structure=True,
            **off,
        ),
    }
    for name, model in models.items():
        weights = {
            key.replace("pairformer_module.", "pairformer_module._orig_mod."): value
            for key, value in model.state_dict().items()
        }
        weights["confidence_module.weight"] = torch.zeros(1)
        content = {"state_dict": weights, "hyper_parameters": settings}
        torch.save(content, folder / CHECKPOINT[name])
    components = {letter: molecule() for letter in string.ascii_uppercase}
    (folder / "ccd.pkl").write_bytes(pickle.dumps(components))
    (folder / "mols").mkdir()
    for letter in string.ascii_uppercase:
        (folder / "mols" / f"{letter}.pkl").write_bytes(pickle.dumps(molecule()))
