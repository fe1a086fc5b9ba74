"""A price for being below the threshold: it pulls a dead feature's pre-activations up.

    loss = weight * mean over tokens of sum over dead features of max(0, theta - z) / d

with theta the feature's threshold, 0 in the families without. Conerly et al., "Dictionary Learning
Optimization Techniques", Circuits Updates, January 2025, for JumpReLU and, there, for all features;
for dead ones alone as in SAELens (`pre_act_loss_coefficient`). Their loss is a sum over the
dimensions of activations with a mean square norm of d, ours the mean: hence the division by d.
Their penalty counts the norm of the decoder row, which is 1 here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from bench.compute.precision import product
from bench.compute.row_shards import summed
from bench.sae.codes import FeatureGradients, StepMethod
from bench.sae.dead_features.base import DeadLoss, DeadLossPass, DeadPreActivations


@dataclass(frozen=True)
class PreActivation(DeadLoss):
    """weight: of the price."""

    weight: float

    def pass_of(self, thresholds: Tensor | None = None) -> DeadLossPass:
        return _PreActivationPass(self.dead, self.weight, thresholds)


class _PreActivationPass(DeadPreActivations):
    filler = math.inf

    def __init__(self, dead: Tensor, weight: float, thresholds: Tensor | None) -> None:
        super().__init__(dead)
        self._weight = weight
        self._thresholds = None if thresholds is None else self.rows(thresholds)

    def gradients(
        self, W_dec: Tensor, error: Tensor, loss: Tensor, centered: Tensor, path: StepMethod
    ) -> tuple[Tensor, FeatureGradients]:
        below = self.taken().neg_()
        if self._thresholds is not None:
            below += self._thresholds
        below.clamp_(min=0)
        price = self._weight / centered.numel()
        slopes = (below > 0).to(below.dtype).mul_(-price)
        by_bias = slopes.sum(0)
        self.by_threshold = -by_bias
        zeros = by_bias.new_zeros(by_bias.shape)
        features = FeatureGradients(
            product(slopes.T, centered),
            by_bias,
            W_dec.new_zeros(len(by_bias), W_dec.shape[1]),
            zeros,
            zeros,
        )
        return price * summed(below.sum()), features
