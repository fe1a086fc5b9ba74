"""AuxK: an auxiliary loss that gives dead features a gradient.

On a set D of dead features, the auxiliary codes are the aux_k largest *raw* pre-activations among
D, no ReLU, so that features which are never positive get gradient too, and through their encoder
rows the bias. The auxiliary reconstruction e_hat = aux_codes @ W_dec has no bias. Its target is the
residual e = y - y_hat, detached. Its loss is

    alpha * mean (e - e_hat)^2 / mean (e - mean over tokens of e)^2

After Gao et al., "Scaling and evaluating sparse autoencoders" (2024), appendix A.2. There the
codes pass a ReLU, and what is dead by ReLU gets nothing; that is `relu`, a control. AuxK is the
same in every family.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.compute.row_shards import among_largest, current_shard, summed
from bench.compute.topk import exact_topk
from bench.sae.codes import PAIRS, Codes, FeatureGradients, StepMethod
from bench.sae.dead_features.base import DeadLoss, DeadLossPass

# Below this many dead features per auxiliary one the auxiliary products are dense.
_DENSE_BELOW = 10


@dataclass(frozen=True)
class AuxK(DeadLoss):
    """k: auxiliary codes per token; alpha: weight; relu: whether negative codes become 0."""

    k: int
    alpha: float
    relu: bool = False

    def pass_of(self, thresholds: Tensor | None = None) -> DeadLossPass:
        return _AuxKPass(self)


class _AuxKPass(DeadLossPass):
    def __init__(self, aux: AuxK) -> None:
        super().__init__(aux.dead)
        self._alpha, self._relu = aux.alpha, aux.relu
        self._asked = aux.k
        self._k = min(aux.k, len(aux.dead))
        self._parts: list[Codes] = []

    def __call__(self, pre: Tensor) -> None:
        self._parts.append(Codes(*self._largest(pre)))

    def _largest(self, pre: Tensor) -> tuple[Tensor, Tensor]:
        """The k largest of each row among the dead, and which of the dead they are."""
        if self.mask is not None:
            return exact_topk(pre, self._k, mask=self.mask)
        return exact_topk(self.of_dead(pre), self._k)

    def gradients(
        self, W_dec: Tensor, error: Tensor, loss: Tensor, centered: Tensor, path: StepMethod
    ) -> tuple[Tensor, FeatureGradients]:
        W_dec, residual = self.rows(W_dec), -error
        if self.indices is not None and len(self.indices) < _DENSE_BELOW * self._k:
            path = "dense"
        values, indices = Codes.joined(self._parts)  # the indices are into the dead features
        gate: bool | Tensor = self._relu
        if self.mask is not None:
            # Where fewer than k are dead, living ones fill up the codes.
            gate = values > (0 if self._relu else self.filler)
            if current_shard() is not None:
                gate = gate & among_largest(values, self._asked)
            values = torch.where(gate, values, 0.0)
        codes = Codes(values.clamp(min=0) if self._relu else values, indices)
        pairs = PAIRS[path](codes, len(W_dec))
        missed = summed(pairs.decode(W_dec)).sub_(residual)
        variance = (residual - residual.mean(0)).square().mean()
        # A residual without variance leaves nothing to explain.
        weight = torch.where(variance > 0, self._alpha / variance, torch.zeros_like(variance))
        aux_loss = weight * missed.square().mean()
        gradient = missed.mul_(weight * (2.0 / missed.numel()))
        return self.if_any(aux_loss), pairs.gradients(W_dec, gradient, centered, gate)
