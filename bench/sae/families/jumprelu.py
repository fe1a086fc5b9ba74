"""JumpReLU: a pre-activation is a code where it exceeds its feature's own, trained threshold.

    codes = pre * H(pre - theta),  theta = exp(log_threshold)
    loss  = mean over tokens of (|y_hat - y|^2 / d + l0 * number of codes)

Rajamanoharan et al., "Jumping Ahead: Improving Reconstruction Fidelity with JumpReLU Sparse
Autoencoders" (2024), arXiv 2407.14435. Both terms are flat in theta almost everywhere; its gradient
is estimated straight through, with a rectangle K of width `bandwidth`:

    d code / d theta = -(theta / bandwidth) K((pre - theta) / bandwidth)
    d H    / d theta = -(1     / bandwidth) K((pre - theta) / bandwidth)

There activations have a mean square norm of 1, here of d where they are centered: lengths
(`threshold`, `bandwidth`) are therefore in units of sqrt(d), and the error is divided by d.
With `target_l0` the second term is l0 * (L0 / target_l0 - 1)^2, where L0 is the batch's mean number
of codes, as in dictionary_learning's JumpReluTrainer, whose l0 is 1. Thresholds have to come there:
born at 0.1, with a bandwidth of 0.05, they did in 2,000 steps of the protocol `cures`.

Death: dead by ReLU is never > 0; the second path is > 0 somewhere, but never above the threshold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bench.compute.row_shards import summed
from bench.death.census import Census
from bench.death.threshold_census import threshold_census
from bench.sae.codes import ArrayPairs, DenseCodes, StepMethod
from bench.sae.dead_features.base import DeadLoss, begin
from bench.sae.families.base import Family, FamilyTensors, warm
from bench.sae.gradients import Backward, Weights, backward, pre_activations


@dataclass(frozen=True)
class JumpReLU(Family):
    """l0: price of a code. warmup_steps: over which it rises from 0.

    threshold, bandwidth: theta at birth and the rectangle's width, in units of sqrt(d). Own tensor:
    `log_threshold` [n], trained. target_l0: codes per token; then `l0` is the price of being off it
    by as much again, squared.
    """

    l0: float
    threshold: float
    bandwidth: float
    warmup_steps: int = 0
    target_l0: float | None = None
    name: ClassVar[str] = "jumprelu"
    trained: ClassVar[tuple[str, ...]] = ("log_threshold",)

    def family_tensors(self, width: int, n: int) -> dict[str, Tensor]:
        return {"log_threshold": torch.full((n,), math.log(self.threshold * math.sqrt(width)))}

    def rescaled(self, family_tensors: FamilyTensors, scale: float) -> dict[str, Tensor]:
        return {"log_threshold": family_tensors["log_threshold"] + math.log(scale)}

    def encode(
        self, centered: Tensor, weights: Weights, family_tensors: FamilyTensors, k: int
    ) -> DenseCodes:
        pre = pre_activations(centered, weights)
        return DenseCodes(torch.where(pre > family_tensors["log_threshold"].exp(), pre, 0.0))

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
        tokens, width = y.shape
        centered = y - weights.b
        theta = family_tensors["log_threshold"].exp()
        dead_loss = begin(aux, theta)
        pre = pre_activations(centered, weights)
        if dead_loss is not None:
            dead_loss(pre)
        price, priced = self._price(summed((pre > theta).sum()).to(y.dtype), tokens, number)
        width_of_step = self.bandwidth * math.sqrt(width)
        pairs = _Jumps(pre, theta, width_of_step, price)
        result = backward(pairs, weights, centered, path, dead_loss)
        by_log_threshold = pairs.by_log_threshold
        if dead_loss is not None and dead_loss.by_threshold is not None:
            by_log = dead_loss.by_threshold * dead_loss.rows(theta)
            dead_loss.add_rows(by_log_threshold, by_log)
        return result._replace(
            sparsity_loss=priced, family_gradients={"log_threshold": by_log_threshold}
        )

    def _price(self, codes: Tensor, tokens: int, number: int) -> tuple[float | Tensor, Tensor]:
        """Of one code more in a batch of so many codes [] in all, and of them all."""
        weight = self.l0 * warm(number, self.warmup_steps)
        if self.target_l0 is None:
            return weight / tokens, weight / tokens * codes
        off = codes / (tokens * self.target_l0) - 1
        return 2 * weight * off / (tokens * self.target_l0), weight * off.square()

    def census(
        self,
        centered: Tensor,
        weights: Weights,
        family_tensors: FamilyTensors,
        k: int,
        *,
        counts: bool,
    ) -> Census:
        thresholds = family_tensors["log_threshold"].exp()
        return threshold_census(centered, weights.W_enc, thresholds, weights.b_enc, counts)


class _Jumps(ArrayPairs):
    """The codes of pre [tokens, n] above theta [n], each of which costs `price`."""

    def __init__(self, pre: Tensor, theta: Tensor, bandwidth: float, price: float | Tensor) -> None:
        super().__init__(torch.where(pre > theta, pre, 0.0))
        self.theta, self.bandwidth, self.price = theta, bandwidth, price
        self.near = (pre - theta).abs() < bandwidth / 2
        self.by_log_threshold = torch.zeros_like(theta)

    def by_pre(self, slopes: Tensor) -> Tensor:
        by_code = torch.where(self.near, slopes, 0.0).sum(0)
        priced = self.price * self.near.sum(0).to(slopes.dtype)
        by_theta = -(self.theta * by_code + priced) / self.bandwidth
        self.by_log_threshold = by_theta * self.theta
        return slopes.mul_(self.array > 0)
