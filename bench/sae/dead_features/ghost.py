"""Ghost gradients: dead features fit the residual by the exponential of their pre-activations.

With z the pre-activations of the dead features D and e = y - y_hat, the residual, detached:

    g = exp(z) @ W_dec[D],  each token's row scaled to half the norm of its residual
    loss = w * mean (g - e)^2,  w such that it equals the reconstruction's mean squared error

where the scales and w are detached, as is published. Jermyn and Templeton, "Ghost Grads: An
improvement on resampling", Circuits Updates, January 2024. The exponential gives what is far below
0 a small gradient, and what is dead by TopK a large one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.compute.precision import product
from bench.compute.row_shards import anywhere, maximum, summed
from bench.sae.codes import ArrayPairs, FeatureGradients, StepMethod
from bench.sae.dead_features.base import DeadLoss, DeadLossPass, DeadPreActivations


@dataclass(frozen=True)
class Ghost(DeadLoss):
    """Without a number of its own."""

    def pass_of(self, thresholds: Tensor | None = None) -> DeadLossPass:
        return _GhostPass(self.dead)


class _GhostPass(DeadPreActivations):
    def gradients(
        self, W_dec: Tensor, error: Tensor, loss: Tensor, centered: Tensor, path: StepMethod
    ) -> tuple[Tensor, FeatureGradients]:
        W_dec, residual, ghosts = self.rows(W_dec), -error, self.taken()
        # A factor per token cancels in the scaling; without the largest nothing overflows.
        largest = maximum(ghosts.amax(1, keepdim=True))
        if self.mask is not None:
            largest = torch.where(anywhere(self.mask.any()), largest, 0.0)
        ghosts.sub_(largest).exp_()
        norms = torch.linalg.vector_norm(summed(product(ghosts, W_dec)), dim=1)
        wanted = torch.linalg.vector_norm(residual, dim=1) / 2
        ghosts.mul_(torch.where(norms > 0, wanted / norms, 0.0).unsqueeze(1))
        pairs = _Exponentials(ghosts)
        missed = summed(pairs.decode(W_dec)).sub_(residual)
        distance = missed.square().mean()
        weight = torch.where(distance > 0, loss / distance, torch.zeros_like(distance))
        gradient = missed.mul_(weight * (2.0 / missed.numel()))
        ghost_loss = self.if_any(weight * distance)
        return ghost_loss, pairs.gradients(W_dec, gradient, centered, gate=True)


class _Exponentials(ArrayPairs):
    """Codes that are exponentials of their pre-activations, each times a constant."""

    def by_pre(self, slopes: Tensor) -> Tensor:
        return slopes.mul_(self.array)
