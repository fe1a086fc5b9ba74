"""What a family of SAEs is asked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bench.death.census import Census
from bench.sae.codes import Codes, DenseCodes, StepMethod
from bench.sae.dead_features.base import DeadLoss
from bench.sae.families import FAMILIES
from bench.sae.gradients import Backward, Weights

# A family's own tensors, by name: beside the four that every SAE has.
FamilyTensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Family(ABC):
    """How pre-activations become codes, and what that adds to the loss.

    Subclasses are frozen dataclasses of hyper-parameters, whose defaults stand in `FAMILIES`. An
    SAE's tensors are handed in: `weights` are the four of every SAE, `family_tensors` those of the
    family.

    Attributes:
        name: as in the protocol and in `FAMILIES`.
        has_kernels: whether a CUDA device can compute its step by the path "kernels" too.
        trained: which of its own tensors the optimizer updates; the others follow the data.
    """

    name: ClassVar[str]
    has_kernels: ClassVar[bool] = False
    trained: ClassVar[tuple[str, ...]] = ()

    @property
    def paths(self) -> tuple[StepMethod, ...]:
        """How it can compute a step."""
        return FAMILIES[self.name].paths

    def family_tensors(self, width: int, n: int) -> dict[str, Tensor]:
        """The family's own tensors at birth, float32 on the CPU; each is [n] or a scalar."""
        return {}

    def rescaled(self, family_tensors: FamilyTensors, scale: float) -> dict[str, Tensor]:
        """The own tensors of an SAE whose pre-activations are `scale` times as large."""
        return dict(family_tensors)

    @abstractmethod
    def encode(
        self, centered: Tensor, weights: Weights, family_tensors: FamilyTensors, k: int
    ) -> Codes | DenseCodes:
        """The codes at inference of centered = y - b, [tokens, d]."""

    @abstractmethod
    def step(
        self,
        weights: Weights,
        family_tensors: FamilyTensors,
        y: Tensor,
        k: int,
        *,
        path: StepMethod,
        number: int = 0,
        aux: DeadLoss | None = None,
    ) -> Backward:
        """Loss and gradients on one batch y [tokens, d]; the auxiliary loss if there are dead.

        number: steps taken before this one.
        """

    def firings(
        self, centered: Tensor, weights: Weights, family_tensors: FamilyTensors, k: int
    ) -> Tensor:
        """On how many tokens of a training batch each feature fires, int64 [n]; as `step` has it.

        It is that of the codes at inference, unless the family selects otherwise in training.
        """
        codes = self.encode(centered, weights, family_tensors, k)
        return codes.firings(len(weights.W_enc))

    @abstractmethod
    def census(
        self,
        centered: Tensor,
        weights: Weights,
        family_tensors: FamilyTensors,
        k: int,
        *,
        counts: bool,
    ) -> Census:
        """Who is dead on the tokens centered = y - b [tokens, d]; `counts` as in
        `bench.death.census`."""


def warm(number: int, steps: int) -> float:
    """The share of a sparsity weight that step `number` takes, rising linearly over `steps`."""
    return min(1.0, (number + 1) / steps) if steps else 1.0


# By how much a price that is steered changes at most in a step, as a power of e.
_STEERED = 0.01


def steered(price: Tensor, codes: Tensor, wanted: float) -> Tensor:
    """The price [] after a step that had so many codes in all, [], where so many were wanted.

    Of an integral controller of its logarithm, slow enough for the SAE to follow: the price rises
    where there are too many codes, by at most 1 % a step, so that it forgets where it began.
    """
    return price * torch.exp(_STEERED * torch.log(codes / wanted).clamp(-1.0, 1.0))


def kept(
    family_tensors: FamilyTensors, device: torch.device | str, dtype: torch.dtype
) -> dict[str, Tensor]:
    """The tensors, of any shapes, on a device and in a dtype."""
    return {name: tensor.to(device=device, dtype=dtype) for name, tensor in family_tensors.items()}
