"""ReLU with an L1 penalty: every positive pre-activation is a code, and large codes cost.

    loss = mean over tokens of (|y_hat - y|^2 + l1 * sum of the codes) / d

Bricken et al., "Towards Monosemanticity" (2023); the scale of `l1` and its warm-up over the first
5 % of training are those of Conerly et al., "Update on how we train SAEs" (Anthropic, April 2024),
where ||sigma|| = sqrt(d); here half of the tokens are within sqrt(d) of their geometric median,
about the same where no token is massive. Their penalty l1 * code * |decoder row| is this one where
rows have unit norm. With `target_l0` that price is steered to so many codes per token, for
comparisons with other families; it is this project's.

Death: dead by ReLU is never > 0. There is no second path: what is positive fires.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bench.compute.row_shards import summed
from bench.death.census import Census
from bench.death.threshold_census import threshold_census
from bench.sae.codes import ArrayPairs, DenseCodes, StepMethod
from bench.sae.dead_features.base import DeadLoss, begin
from bench.sae.families.base import Family, FamilyTensors, steered, warm
from bench.sae.gradients import Backward, Weights, backward, pre_activations


@dataclass(frozen=True)
class ReLU(Family):
    """l1: weight of the penalty. warmup_steps: over which it rises from 0.

    target_l0: codes per token that it is steered to after that. Own tensor, where that is given:
    `price`, a scalar, the weight over `l1`.
    """

    l1: float
    warmup_steps: int = 0
    target_l0: float | None = None
    name: ClassVar[str] = "relu"

    def family_tensors(self, width: int, n: int) -> dict[str, Tensor]:
        return {} if self.target_l0 is None else {"price": torch.ones(())}

    def encode(
        self, centered: Tensor, weights: Weights, family_tensors: FamilyTensors, k: int
    ) -> DenseCodes:
        return DenseCodes(pre_activations(centered, weights).clamp_(min=0))

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
        centered = y - weights.b
        dead_loss = begin(aux)
        pre = pre_activations(centered, weights)
        if dead_loss is not None:
            dead_loss(pre)
        price: float | Tensor = self.l1 * warm(number, self.warmup_steps) / y.numel()
        if self.target_l0 is not None:
            price = price * family_tensors["price"]
        pairs = _Priced(pre.clamp_(min=0), price)
        result = backward(pairs, weights, centered, path, dead_loss)
        result = result._replace(sparsity_loss=price * summed(result.activity.sum()))
        if self.target_l0 is None or number < self.warmup_steps:
            return result
        codes = summed((pairs.array > 0).sum())
        following = steered(family_tensors["price"], codes, self.target_l0 * len(y))
        return result._replace(family_values={"price": following})

    def census(
        self,
        centered: Tensor,
        weights: Weights,
        family_tensors: FamilyTensors,
        k: int,
        *,
        counts: bool,
    ) -> Census:
        thresholds = torch.zeros_like(weights.b_enc)
        return threshold_census(centered, weights.W_enc, thresholds, weights.b_enc, counts)


class _Priced(ArrayPairs):
    """Codes, each of which costs `price` times its value."""

    def __init__(self, array: Tensor, price: float | Tensor) -> None:
        super().__init__(array)
        self.price = price

    def by_pre(self, slopes: Tensor) -> Tensor:
        return slopes.add_(self.price).mul_(self.array > 0)
