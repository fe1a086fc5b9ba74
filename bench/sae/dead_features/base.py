"""A loss on dead features: what a step of a family is handed, and what is asked of it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.compute.row_shards import anywhere
from bench.sae.codes import FeatureGradients, StepMethod


@dataclass(frozen=True)
class DeadLoss(ABC):
    """An auxiliary loss of one step.

    dead: the features it is on, as int64 indices [m]; or as bool [n], so that a device need not
    wait for their number. The loss is the same but for rounding.
    """

    dead: Tensor

    @abstractmethod
    def pass_of(self, thresholds: Tensor | None = None) -> DeadLossPass:
        """For one batch. thresholds: [n], where a family has them."""


class DeadLossPass(ABC):
    """Takes what it needs of the pre-activations while they are at hand, then gives gradients.

    Under a mask everything keeps its size: m below is n, and what is not dead gets no gradient.

    Attributes:
        indices: of the dead, int64 [m]; None under a mask.
        mask: bool [n], who is dead; None with indices.
        by_threshold: [m], the loss's gradient by the features' thresholds, if it has one; set by
            `gradients`.
        filler: stands for the pre-activations of the living, under a mask.
    """

    by_threshold: Tensor | None = None
    filler = -math.inf

    def __init__(self, dead: Tensor) -> None:
        self.mask = dead if dead.dtype == torch.bool else None
        self.indices = None if dead.dtype == torch.bool else dead

    def of_dead(self, pre: Tensor) -> Tensor:
        """The dead features' columns of pre-activations [rows, n], [rows, m]."""
        if self.indices is not None:
            return pre.index_select(1, self.indices)
        assert self.mask is not None
        return torch.where(self.mask, pre, self.filler)

    def rows(self, per_feature: Tensor) -> Tensor:
        """The dead features' part of what is [n, ...]."""
        return per_feature if self.indices is None else per_feature[self.indices]

    def add_rows(self, per_feature: Tensor, added: Tensor) -> None:
        """Add what is of the dead features, [m, ...], to what is of all, [n, ...]."""
        if self.indices is None:
            per_feature.add_(added)
        else:
            per_feature.index_add_(0, self.indices, added)

    def if_any(self, loss: Tensor) -> Tensor:
        """The loss, a scalar; 0 where nothing is dead."""
        return loss if self.mask is None else torch.where(anywhere(self.mask.any()), loss, 0.0)

    def add(self, features: FeatureGradients, added: FeatureGradients) -> None:
        """Add the dead features' gradients to those of all; the activity stays."""
        for all_of_them, theirs in zip(features[:4], added[:4], strict=True):
            self.add_rows(all_of_them, theirs)

    @abstractmethod
    def __call__(self, pre: Tensor) -> None:
        """The pre-activations [rows, n] of one group of tokens after the other."""

    @abstractmethod
    def gradients(
        self, W_dec: Tensor, error: Tensor, loss: Tensor, centered: Tensor, path: StepMethod
    ) -> tuple[Tensor, FeatureGradients]:
        """The loss with its weight, and its gradients for the dead features alone.

        W_dec: of all features [n, d]. error: y_hat - y [tokens, d], taken as constant. loss: the
        mean squared error. centered: y - b [tokens, d].
        """


def begin(loss: DeadLoss | None, thresholds: Tensor | None = None) -> DeadLossPass | None:
    """A pass over one batch; None where there is no such loss, or nothing is dead.

    thresholds: [n], of families that have them.
    """
    return None if loss is None or not len(loss.dead) else loss.pass_of(thresholds)


class DeadPreActivations(DeadLossPass):
    """A pass that needs all pre-activations of the dead, [tokens, m]."""

    def __init__(self, dead: Tensor) -> None:
        super().__init__(dead)
        self._parts: list[Tensor] = []

    def __call__(self, pre: Tensor) -> None:
        self._parts.append(self.of_dead(pre))

    def taken(self) -> Tensor:
        """Them, [tokens, m], to be used up: with nearly all dead they are as large as anything in
        a step, so that there is one copy. They can be taken once."""
        pre = self._parts[0] if len(self._parts) == 1 else torch.cat(self._parts)
        self._parts.clear()
        return pre
