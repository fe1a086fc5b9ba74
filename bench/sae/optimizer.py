"""Adam on an SAE's tensors, and what goes with it: project, clip, update, unit norm.

The part of the decoder's gradient along its own rows is removed, the gradient is clipped by its
global norm, and the decoder's rows are set back to unit norm. On a CUDA device the two matrices are
updated by kernels, where it has them, which read and write each number once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim.adam import adam

from bench.compute.kernels import usable
from bench.compute.row_shards import current_shard, norm
from bench.sae.recipe import Recipe

_MATRICES = ("W_enc", "W_dec")


class AdamMoments(NamedTuple):
    """Adam's running means of a tensor's gradient and of its square, in its shape."""

    first: Tensor
    second: Tensor


class LearningRates(NamedTuple):
    """Learning rates of a step. bias: of b, where it has its own."""

    rate: float
    bias: float | None = None


class Optimizer:
    """Adam's state, and its updates of the tensors by name, in place.

    Attributes:
        trained: the tensors; W_enc and W_dec [n, d] and b [d] are among them.
        moments: of each.
        updates: how many each has had, [] each.
    """

    def __init__(self, trained: Mapping[str, Tensor], recipe: Recipe) -> None:
        self.trained = dict(trained)
        self.moments = {
            name: AdamMoments(torch.zeros_like(w), torch.zeros_like(w))
            for name, w in self.trained.items()
        }
        device = self.trained["b"].device
        self.updates = {name: torch.zeros((), device=device) for name in self.trained}
        self._recipe = recipe

    def update(
        self,
        gradients: dict[str, Tensor],
        radial: Tensor,
        rates: LearningRates,
    ) -> Tensor:
        """One update; the global norm of the projected gradient. It uses the gradients up.

        radial: [n], the inner product of each row of W_dec's gradient with its row of W_dec.
        """
        rate, bias_rate = rates
        by_kernels = self._by_kernels()
        if not by_kernels:
            gradients["W_dec"].addcmul_(radial.unsqueeze(1), self.trained["W_dec"], value=-1)
        size = self._global_norm(gradients, radial if by_kernels else None)
        clip = self.clip_by(size)
        if by_kernels:
            for name in _MATRICES:
                along = radial if name == "W_dec" else None
                self._update_rows(name, gradients.pop(name), along, clip, rate)
        if bias_rate is not None:
            self._adam({"b": gradients.pop("b")}, clip, bias_rate)
        self._adam(gradients, clip, rate)
        if not by_kernels:
            W_dec = self.trained["W_dec"]
            W_dec.div_(torch.linalg.vector_norm(W_dec, dim=1, keepdim=True))
        return size

    def clip_by(self, size: Tensor) -> Tensor:
        """What gradients of such a global norm are divided by, float32 in the shape of `size`."""
        return (size / self._recipe.clip).clamp(min=1.0).float()

    def adam(
        self,
        trained: list[Tensor],
        gradients: list[Tensor],
        first: list[Tensor],
        second: list[Tensor],
        updates: list[Tensor],
        *,
        rate: float,
        clip: Tensor | None = None,
    ) -> None:
        """One update of tensors, of gradients that are divided by `clip`; `updates` grow by 1."""
        recipe = self._recipe
        adam(
            trained,
            gradients,
            first,
            second,
            [],
            updates,
            fused=True,
            grad_scale=clip,
            found_inf=None,
            amsgrad=False,
            beta1=recipe.beta1,
            beta2=recipe.beta2,
            lr=rate,
            weight_decay=0.0,
            eps=recipe.eps,
            maximize=False,
        )

    # ---------------------------------------------------------------------------------- private

    def _by_kernels(self) -> bool:
        W = self.trained["W_dec"]
        if W.dtype != torch.float32 or current_shard() is not None:
            return False
        if not usable("update", W.device):
            return False
        from bench.compute.kernels import update

        return W.shape[1] <= update.WIDEST

    def _global_norm(self, gradients: Mapping[str, Tensor], radial: Tensor | None) -> Tensor:
        """Of all at once, without what W_dec's gradient has along its rows, if `radial` says how
        much; the decoder bias's is whole in every shard."""
        norms = []
        for name, gradient in gradients.items():
            if name == "b":
                norms.append(torch.linalg.vector_norm(gradient))
            elif radial is not None and name in _MATRICES:
                from bench.compute.kernels import update

                along = radial if name == "W_dec" else None
                squares = update.row_squares(gradient, self.trained[name], along)
                norms.append(squares.sum().sqrt())
            else:
                norms.append(norm(gradient))
        return torch.linalg.vector_norm(torch.stack(norms))

    def _update_rows(
        self, name: str, gradient: Tensor, radial: Tensor | None, clip: Tensor, rate: float
    ) -> None:
        from bench.compute.kernels import update

        recipe, updates = self._recipe, self.updates[name]
        updates.add_(1)
        rates = update.AdamRate(rate, recipe.beta1, recipe.beta2, recipe.eps)
        first, second = self.moments[name]
        weight = self.trained[name]
        update.adam_rows(weight, gradient, first, second, radial, clip, updates, rates)

    def _adam(self, gradients: Mapping[str, Tensor], clip: Tensor, rate: float) -> None:
        """One update of the tensors named, of gradients that are divided by `clip`."""
        self.adam(
            [self.trained[name] for name in gradients],
            list(gradients.values()),
            [self.moments[name].first for name in gradients],
            [self.moments[name].second for name in gradients],
            [self.updates[name] for name in gradients],
            rate=rate,
            clip=clip,
        )
