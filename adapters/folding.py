"""Structure prediction: the Pairformer trunks of models of AlphaFold 3's kind."""

from __future__ import annotations

import math
import random
import zlib
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adapters import checkpoints, compat
from adapters.base import Adapter, Inputs
from adapters.letters import AMINO_ACIDS, check_letters
from adapters.tokens import consecutive
from zoo.errors import BadCorpus

# B, Z, U and O have no place of their own in the features: they are the unknown residue.
_RARE = str.maketrans("BZUO", "XXXX")


class Pairformer(Adapter):
    """A trunk whose blocks refine a single stream and a pair stream (Abramson et al. 2024).

    A block returns (single, pair); `tap.output` says which is measured, 0 or 1. A token of the
    pair stream is a pair of residues: L residues have L * L, row by row, and `context` counts
    those. Longer proteins are cut into consecutive windows.

    The trunk runs `options.recycles` + 1 times in one forward pass, on its own output; the streams
    are those of the last time. What lies behind it (diffusion, confidence) does not run.

    A protein is one chain without alignment, templates or ligands, made into features by the
    model's own package. What that draws at random (rotations of the residues' conformers) is
    seeded by the sequence. A batch has proteins of one length: there is no padding among the
    residues. That among the atoms is masked by the model.
    """

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
        check_letters(example, AMINO_ACIDS, "proteins")
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
        return Inputs(batch, valid, ~valid)


def _padded(tensors: list[Tensor]) -> Tensor:
    """Tensors as one, with zeros behind those that are shorter along some axis."""
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
        path = checkpoints.check_files(self.card, self.folder)[0]
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


class _OpenFold3Trunk(nn.Module):
    """The model up to the end of its trunk."""

    def __init__(self, model: Any, recycles: int) -> None:
        super().__init__()
        self.model, self.recycles = model, recycles

    def forward(self, **batch: Tensor) -> None:
        with compat.quiet():
            self.model.run_trunk(batch, num_cycles=self.recycles + 1, inplace_safe=True)
