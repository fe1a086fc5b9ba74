"""A loss on dead features: what a step of a family is handed, and what is asked of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.sae.codes import FeatureGradients, StepMethod


@dataclass(frozen=True)
class DeadLoss(ABC):
    """An auxiliary loss of one step on features `dead`, int64 indices [m]."""

    dead: Tensor

    @abstractmethod
    def pass_of(self, thresholds: Tensor | None = None) -> DeadLossPass:
        """For one batch. thresholds: [n], where a family has them."""


class DeadLossPass(ABC):
    """Takes what it needs of the pre-activations while they are at hand, then gives gradients.

    Attributes:
        features: the dead ones, int64 [m].
        by_threshold: [m], the loss's gradient by the features' thresholds, if it has one; set by
            `gradients`.
    """

    by_threshold: Tensor | None = None

    def __init__(self, features: Tensor) -> None:
        self.features = features

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

    def __init__(self, features: Tensor) -> None:
        super().__init__(features)
        self._parts: list[Tensor] = []

    def __call__(self, pre: Tensor) -> None:
        self._parts.append(pre.index_select(1, self.features))

    @property
    def pre(self) -> Tensor:
        """[tokens, m]."""
        return self._parts[0] if len(self._parts) == 1 else torch.cat(self._parts)
