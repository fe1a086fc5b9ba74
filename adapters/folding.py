"""Structure prediction: the Pairformer trunks of models of AlphaFold 3's kind."""

from __future__ import annotations

import collections
import functools
import inspect
import io
import math
import pickle
import random
import zlib
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from adapters import checkpoints, compat
from adapters.base import Adapter
from adapters.passes import Inputs
from adapters.tokens import consecutive
from zoo.errors import BadCorpus, BadWeights, ModelUnavailable, UsageError
from zoo.letters import PROTEIN_LETTERS, check_letters

# B, Z, U and O have no place of their own in the features: they are the unknown residue.
_RARE = str.maketrans("BZUO", "XXXX")


class Pairformer(Adapter):
    """A trunk whose blocks refine a single stream and a pair stream (Abramson et al. 2024).

    A block returns (single, pair); `tap.output` says which is measured, 0 or 1. A token of the
    pair stream is a pair of residues: L residues have L * L, row by row, and `context` counts
    those. Longer proteins are cut into consecutive windows.

    The trunk runs `options.recycles` + 1 times in one forward pass, on its own output; the streams
    are those of the last time. What lies after it (diffusion, confidence) does not run.

    A protein is one chain without alignment, templates or ligands, made into features by the
    model's own package. What that draws at random (rotations of the residues' conformers) is
    seeded by the sequence. A batch has proteins of one length: there is no padding among the
    residues. That among the atoms is masked by the model.
    """

    known_options = ("recycles", "architecture")

    @abstractmethod
    def features(self, sequence: str) -> dict[str, Tensor]:
        """The model's input for one chain, without the axis of the batch."""

    @property
    def pairs(self) -> bool:
        """Whether the pair stream is measured."""
        return self.card.tap.output == 1

    @property
    def recycles(self) -> int:
        """How often the trunk's output is fed back to it."""
        return int(self.card.options["recycles"])

    @property
    def block_runs(self) -> int:
        return self.recycles + 1

    @property
    def equal_lengths(self) -> bool:
        return True

    def stream(self, output: Any) -> Tensor:
        stream = super().stream(output)
        return stream.flatten(1, 2) if self.pairs else stream

    def windows(self, example: Any) -> list[str]:
        if not isinstance(example, str):
            raise BadCorpus(f"a protein sequence is needed, not {type(example).__name__}")
        check_letters(example, PROTEIN_LETTERS, "proteins")
        sequence = example.translate(_RARE)
        size = math.isqrt(self.card.context) if self.pairs else self.card.context
        return [sequence[cut] for cut in consecutive(len(sequence), size)]

    def inputs(self, items: list[str]) -> Inputs:
        samples = []
        for item in items:
            with _seeded(zlib.crc32(item.encode())), compat.quiet():
                samples.append(self.features(item))
        batch = {name: _padded([sample[name] for sample in samples]) for name in samples[0]}
        residues = len(items[0])
        valid = torch.ones((len(items), residues ** (1 + self.pairs)), dtype=torch.bool)
        unknown = torch.tensor([[letter == "X" for letter in item] for item in items])
        if self.pairs:
            unknown = (unknown[:, :, None] | unknown[:, None, :]).flatten(1)
        return Inputs(batch, valid, ~valid, unknown)


def _padded(tensors: list[Tensor]) -> Tensor:
    """Tensors as one, with zeros after those that are shorter along some axis."""
    sizes = zip(*(tensor.shape for tensor in tensors), strict=True)
    batch = tensors[0].new_zeros((len(tensors), *map(max, sizes)))
    for row, tensor in zip(batch, tensors, strict=True):
        row[tuple(map(slice, tensor.shape))] = tensor
    return batch


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """The global generators that featurisers draw from, seeded, and put back at the end."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


class _Trunk(nn.Module):
    """A model up to the end of its trunk."""

    def __init__(self, model: Any, recycles: int) -> None:
        super().__init__()
        self.model, self.recycles = model, recycles


class OpenFold3(Pairformer):
    """OpenFold 3, through the package openfold3.

    `options.architecture` changes the package's own configuration where a checkpoint does.
    """

    def load(self) -> nn.Module:
        from openfold3.projects.of3_all_atom.model import OpenFold3 as Package
        from openfold3.projects.of3_all_atom.project_entry import OF3ProjectEntry

        # Without the preset for prediction: its search for a chunk size runs the first block more
        # often than the trunk does.
        config = OF3ProjectEntry().get_model_config_with_presets()
        config.update({"architecture": self.card.options.get("architecture", {})})
        # A CPU has not these kernels, and they round otherwise.
        config.settings.memory.eval.update({"use_triton_triangle_kernels": False})
        path = checkpoints.check_weight_files(self.card, self.folder)[0]
        with checkpoints.loading_errors(self.card, path):
            model = Package(config)
            model.load_state_dict(
                torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            )
        return _OpenFold3Trunk(model, self.recycles).to(self.dtype)

    def features(self, sequence: str) -> dict[str, Tensor]:
        from openfold3.core.data.framework.single_datasets.inference import InferenceDataset
        from openfold3.core.data.pipelines.preprocessing.template import (
            TemplatePreprocessorSettings,
        )
        from openfold3.projects.of3_all_atom.config.dataset_configs import InferenceJobConfig
        from openfold3.projects.of3_all_atom.config.inference_query_format import (
            InferenceQuerySet,
        )
        from rdkit import rdBase

        rdBase.SeedRandomNumberGenerator(random.getrandbits(31))
        chain = {"molecule_type": "protein", "chain_ids": ["A"], "sequence": sequence}
        queries = InferenceQuerySet.model_validate(
            {"queries": {"A": {"chains": [chain], "use_msas": False}}}
        )
        settings = TemplatePreprocessorSettings(mode="predict")
        job = InferenceJobConfig(query_set=queries, template_preprocessor_settings=settings)
        features = InferenceDataset(job).create_all_features(queries.queries["A"])
        features["num_paired_seqs"] = features["num_paired_seqs"][0]
        return {name: value for name, value in features.items() if isinstance(value, Tensor)}


class _OpenFold3Trunk(_Trunk):
    def forward(self, **batch: Tensor) -> None:
        with compat.quiet():
            self.model.run_trunk(batch, num_cycles=self.recycles + 1, inplace_safe=True)


class Boltz(Pairformer):
    """Models of the package boltz; the folder is the one that its program downloads to.

    `options.architecture` changes the program's own arguments where a checkpoint does. All is
    float32.
    """

    # What the program downloads beside the checkpoint: the residues' conformers.
    molecules: ClassVar[str]
    # Parts of the model that are left out.
    after_trunk: ClassVar[tuple[str, ...]]

    @abstractmethod
    def package(self) -> tuple[Any, dict[str, Any]]:
        """The package's class, and the arguments that do not come from the checkpoint."""

    @abstractmethod
    def trunk(self, model: Any) -> nn.Module:
        """The model as a module that runs its trunk."""

    def load(self) -> nn.Module:
        if self.dtype != torch.float32:
            raise UsageError(
                f"model {self.card.id!r} computes in float32 only, not {self.dtype}",
                "Run it with dtype float32.",
            )
        path = checkpoints.check_weight_files(self.card, self.folder)[0]
        self._check_molecules()
        content = self._checkpoint(path)
        kind, program = self.package()
        with checkpoints.loading_errors(self.card, path):
            known = inspect.signature(kind).parameters
            saved = {k: v for k, v in content["hyper_parameters"].items() if k in known}
            changes = self.card.options.get("architecture", {})
            model = kind(**{**saved, **program, **changes})
            for part in self.after_trunk:
                delattr(model, part)
            parts = {name for name, _ in model.named_children()}
            model.load_state_dict(
                {
                    name.replace("._orig_mod.", "."): value  # of a part that was compiled
                    for name, value in content["state_dict"].items()
                    if name.split(".")[0] in parts
                }
            )
        return self.trunk(model)

    def _check_molecules(self) -> None:
        """Raises `ModelUnavailable` where the residues' conformers are not there."""
        if not (self.folder / self.molecules).exists():
            raise ModelUnavailable(
                f"model {self.card.id!r}: no {self.molecules!r} in {self.folder}",
                "Give the folder that `boltz predict` downloads to.",
            )

    def _checkpoint(self, path: Path) -> dict[str, Any]:
        """A Lightning checkpoint, read without running what it may hold beside data."""
        from omegaconf import DictConfig, ListConfig
        from omegaconf.base import ContainerMetadata, Metadata
        from omegaconf.nodes import AnyNode

        containers = [DictConfig, ListConfig, ContainerMetadata, Metadata, AnyNode]
        plain = [Any, dict, list, int, collections.defaultdict]  # named within the containers
        with (
            checkpoints.loading_errors(self.card, path),
            torch.serialization.safe_globals([*containers, *plain]),
        ):
            refused = torch.serialization.get_unsafe_globals_in_checkpoint(path)
            if not refused:
                content: dict[str, Any] = torch.load(
                    path, map_location="cpu", weights_only=True, mmap=True
                )
                return content
        raise BadWeights(
            f"model {self.card.id!r}: {path} holds more than tensors and settings "
            f"({', '.join(sorted(refused))[:200]}), and loading that could run code",
            "Where you trust it, save it again with nothing but state_dict and hyper_parameters, "
            "as plain dicts of numbers and text.",
        )


class Boltz2(Boltz):
    """Boltz-2. The package's program runs it in mixed precision."""

    molecules = "mols"
    after_trunk = ("structure_module", "diffusion_conditioning")

    def package(self) -> tuple[Any, dict[str, Any]]:
        from boltz.main import Boltz2DiffusionParams, MSAModuleArgs, PairformerArgsV2
        from boltz.model.models.boltz2 import Boltz2 as Package

        off = ("confidence_prediction", "affinity_prediction", "predict_bfactor")
        compiled = ("compile_pairformer", "compile_msa", "compile_templates", "compile_structure")
        return Package, {
            "pairformer_args": asdict(PairformerArgsV2()),
            "msa_args": asdict(MSAModuleArgs()),
            "diffusion_process_args": asdict(Boltz2DiffusionParams()),
            **dict.fromkeys(("ema", "use_kernels", "validate_structure", *off, *compiled), False),
            "skip_run_structure": True,
        }

    def trunk(self, model: Any) -> nn.Module:
        return _BoltzTrunk(model, self.recycles)

    def features(self, sequence: str) -> dict[str, Tensor]:
        from boltz.data import const
        from boltz.data.feature.featurizerv2 import Boltz2Featurizer
        from boltz.data.parse.schema import parse_boltz_schema
        from boltz.data.tokenize.boltz2 import Boltz2Tokenizer
        from boltz.data.types import Input

        names = {const.prot_letter_to_token[letter] for letter in sequence}
        molecules = {name: self._molecule(name) for name in sorted(names)}
        chain = {"protein": {"id": "A", "sequence": sequence, "msa": "empty"}}
        schema, mols = {"version": 1, "sequences": [chain]}, self.folder / "mols"
        with redirect_stdout(io.StringIO()):  # a line on alignments for each protein
            target = parse_boltz_schema("A", schema, molecules, mols, True)
        features = Boltz2Featurizer().process(
            Boltz2Tokenizer().tokenize(Input(target.structure, {}, record=target.record)),
            molecules=molecules,
            random=np.random.default_rng(random.getrandbits(31)),
            training=False,
            max_seqs=const.max_msa_seqs,
        )
        return {name: value for name, value in features.items() if isinstance(value, Tensor)}

    def _molecule(self, name: str) -> Any:
        """The reference conformers of a residue."""
        path = self.folder / self.molecules / f"{name}.pkl"
        with checkpoints.loading_errors(self.card, path), path.open("rb") as file:
            return _MoleculeReader(file).load()


class Boltz1(Boltz):
    """Boltz-1. The conformers of all components are one file, which is read once."""

    molecules = "ccd.pkl"
    after_trunk = ("structure_module",)

    def package(self) -> tuple[Any, dict[str, Any]]:
        from boltz.main import BoltzDiffusionParams, MSAModuleArgs, PairformerArgs
        from boltz.model.models.boltz1 import Boltz1 as Package

        compiled = ("compile_pairformer", "compile_structure", "compile_confidence")
        return Package, {
            "pairformer_args": asdict(PairformerArgs()),
            "msa_args": asdict(MSAModuleArgs(use_paired_feature=False)),
            "diffusion_process_args": asdict(BoltzDiffusionParams()),
            **dict.fromkeys(("ema", "use_kernels", "confidence_prediction", *compiled), False),
        }

    def trunk(self, model: Any) -> nn.Module:
        model.structure_module = _NoStructure()
        return _BoltzTrunk(model, self.recycles)

    def features(self, sequence: str) -> dict[str, Tensor]:
        from boltz.data import const
        from boltz.data.feature.featurizer import BoltzFeaturizer
        from boltz.data.parse.schema import parse_boltz_schema
        from boltz.data.tokenize.boltz import BoltzTokenizer
        from boltz.data.types import Input

        chain = {"protein": {"id": "A", "sequence": sequence, "msa": "empty"}}
        schema = {"version": 1, "sequences": [chain]}
        with redirect_stdout(io.StringIO()):  # a line on alignments for each protein
            target = parse_boltz_schema("A", schema, self._residues)
        features = BoltzFeaturizer().process(
            BoltzTokenizer().tokenize(Input(target.structure, {})),
            training=False,
            max_seqs=const.max_msa_seqs,
        )
        return {name: value for name, value in features.items() if isinstance(value, Tensor)}

    @functools.cached_property
    def _residues(self) -> dict[str, Any]:
        """The reference conformers of the residues; those of other components are let go."""
        from boltz.data import const

        path = self.folder / self.molecules
        with checkpoints.loading_errors(self.card, path), path.open("rb") as file:
            found = _MoleculeReader(file).load()
            return {name: found[name] for name in sorted(set(const.prot_letter_to_token.values()))}


class _MoleculeReader(pickle.Unpickler):
    """Reads pickled molecules of RDKit, and nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in {("rdkit.Chem.rdchem", "Mol"), ("rdkit.Chem.rdchem", "RWMol")}:
            raise pickle.UnpicklingError(f"{module}.{name} is not a molecule")
        return super().find_class(module, name)


class _NoStructure(nn.Module):
    """Stands where Boltz-1 goes on to draw structures."""

    def sample(self, **_: Any) -> dict[str, Tensor]:
        return {}


class _BoltzTrunk(_Trunk):
    def forward(self, **batch: Tensor) -> None:
        with compat.quiet():
            self.model(batch, recycling_steps=self.recycles)
