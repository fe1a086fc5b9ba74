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
from typing import Self

import torch
from torch import Tensor

from bench.compute.topk import exact_topk
from bench.sae.codes import PAIRS, Codes, FeatureGradients, StepMethod

# Below this many dead features per auxiliary one the auxiliary products are dense.
_DENSE_BELOW = 10


@dataclass(frozen=True)
class AuxLoss:
    """The auxiliary loss of one step: the dead features (int64 indices), aux_k and its weight.

    relu: whether negative auxiliary codes become 0.
    """

    dead: Tensor
    k: int
    alpha: float
    relu: bool = False


class AuxPicker:
    """Takes the auxiliary codes from the pre-activations while they are at hand."""

    @classmethod
    def of(cls, aux: AuxLoss | None) -> Self | None:
        """None where there is no auxiliary loss, or nothing is dead."""
        return None if aux is None or not len(aux.dead) else cls(aux)

    def __init__(self, aux: AuxLoss) -> None:
        self.dead = aux.dead
        self.alpha = aux.alpha
        self.relu = aux.relu
        self.k = min(aux.k, len(aux.dead))
        self._parts: list[Codes] = []

    def __call__(self, pre: Tensor) -> None:
        self._parts.append(Codes(*exact_topk(pre.index_select(1, self.dead), self.k)))

    @property
    def codes(self) -> Codes:
        """Values, raw but for `relu`, and indices *into the dead features*."""
        values, indices = Codes.joined(self._parts)
        return Codes(values.clamp(min=0) if self.relu else values, indices)


def auxiliary(
    picker: AuxPicker, W_dec: Tensor, residual: Tensor, centered: Tensor, path: StepMethod
) -> tuple[Tensor, FeatureGradients]:
    """The auxiliary loss, and its gradients for the dead features alone; W_dec is all of [n, d]."""
    W_dec = W_dec[picker.dead]
    if len(picker.dead) < _DENSE_BELOW * picker.k:
        path = "dense"
    pairs = PAIRS[path](picker.codes, len(picker.dead))
    error = pairs.decode(W_dec).sub_(residual)
    variance = (residual - residual.mean(0)).square().mean()
    # A residual without variance leaves nothing to explain.
    weight = torch.where(variance > 0, picker.alpha / variance, torch.zeros_like(variance))
    loss = weight * error.square().mean()
    gradient = error.mul_(weight * (2.0 / error.numel()))
    return loss, pairs.gradients(W_dec, gradient, centered, gate=picker.relu)
