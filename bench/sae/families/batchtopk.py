"""BatchTopK: the tokens * k largest positive pre-activations of a whole batch.

Bussmann, Leask and Nanda, "BatchTopK Sparse Autoencoders" (2024), arXiv 2412.06410. At inference a
token must not depend on its batch: there the codes are the pre-activations above one threshold
(section 2.1), the mean over training batches of the smallest that was selected. It is kept as a
running mean.

Death: dead by ReLU is never > 0; the second path is > 0 somewhere, but never above the threshold.
Before the first step the threshold is what the sample itself gives, batch by batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bench.compute.ahead import host_runs_ahead
from bench.compute.row_shards import current_shard, most_rows, together, whole
from bench.death.census import Census
from bench.death.threshold_census import threshold_census
from bench.sae.codes import ArrayPairs, DenseCodes, RaggedPairs, StepMethod
from bench.sae.dead_features.base import DeadLoss, DeadLossPass, begin
from bench.sae.families.base import Family, FamilyTensors
from bench.sae.gradients import Backward, Weights, backward, pre_activations

# Tokens of the batches from which the threshold at birth is found.
_BATCH = 1024


@dataclass(frozen=True)
class BatchTopK(Family):
    """threshold_rate: weight of the newest batch in the running mean of the threshold.

    Own tensor: `threshold`, a scalar, 0 until the first step.
    """

    threshold_rate: float
    name: ClassVar[str] = "batchtopk"

    def family_tensors(self, width: int, n: int) -> dict[str, Tensor]:
        return {"threshold": torch.zeros(())}

    def rescaled(self, family_tensors: FamilyTensors, scale: float) -> dict[str, Tensor]:
        return {"threshold": family_tensors["threshold"] * scale}

    def encode(
        self, centered: Tensor, weights: Weights, family_tensors: FamilyTensors, k: int
    ) -> DenseCodes:
        pre = pre_activations(centered, weights)
        return DenseCodes(torch.where(pre > family_tensors["threshold"], pre, 0.0))

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
        pairs: RaggedPairs | ArrayPairs
        if path == "sparse" and host_runs_ahead(pre):
            values, places = _largest(pre, k)
            smallest = _smallest_positive(_of_all_shards(values, pre, k))
            if current_shard() is not None:
                values = torch.where(values < smallest, 0.0, values)
            pairs = RaggedPairs.at(values.clamp(min=0), places, (pre.shape[0], pre.shape[1]))
        else:
            smallest = smallest_selected(pre, k)
            mask = pre >= smallest
            sparse = path == "sparse"
            pairs = RaggedPairs.under(pre, mask) if sparse else ArrayPairs(pre.mul_(mask))
        result = self.backward(pairs, weights, centered, path, dead_loss)
        return result._replace(
            family_values={"threshold": self._followed(family_tensors["threshold"], smallest)}
        )

    def backward(
        self,
        pairs: RaggedPairs | ArrayPairs,
        weights: Weights,
        centered: Tensor,
        path: StepMethod,
        dead_loss: DeadLossPass | None,
    ) -> Backward:
        """Loss and gradients of the codes that were selected, of centered = y - b [tokens, d]."""
        return backward(pairs, weights, centered, path, dead_loss)

    def firings(
        self, centered: Tensor, weights: Weights, family_tensors: FamilyTensors, k: int
    ) -> Tensor:
        pre = pre_activations(centered, weights)
        return (pre >= smallest_selected(pre, k)).sum(0)

    def census(
        self,
        centered: Tensor,
        weights: Weights,
        family_tensors: FamilyTensors,
        k: int,
        *,
        counts: bool,
    ) -> Census:
        threshold = family_tensors["threshold"]
        if not float(threshold) > 0:
            # One batch after the other: the sample's pre-activations may be larger than all else.
            batches = (pre_activations(rows, weights) for rows in centered.split(_BATCH))
            threshold = torch.stack([smallest_selected(pre, k) for pre in batches]).mean()
        return threshold_census(
            centered, weights.W_enc, threshold.expand(len(weights.W_enc)), weights.b_enc, counts
        )

    def _followed(self, threshold: Tensor, smallest: Tensor) -> Tensor:
        """The running mean; a batch without a positive pre-activation says nothing."""
        moved = torch.where(
            threshold > 0, threshold + self.threshold_rate * (smallest - threshold), smallest
        )
        return torch.where(torch.isfinite(smallest), moved, threshold)


def smallest_selected(pre: Tensor, k: int) -> Tensor:
    """The smallest pre-activation [tokens, n] that is selected, a scalar; inf where none is.

    All that are tied with it are selected too; on a device's sparse path as many of them as there
    is place for.
    """
    if host_runs_ahead(pre) or current_shard() is not None:
        return _smallest_positive(_of_all_shards(_largest(pre, k)[0], pre, k))
    place = pre.numel() - min(len(pre) * k, pre.numel()) + 1
    nth = pre.view(-1).kthvalue(place).values
    if float(nth) > 0:
        return nth
    return torch.where(pre > 0, pre, torch.inf).min()


def _largest(pre: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The tokens * k largest of pre [tokens, n] in no order, and their places in it, flattened."""
    values, places = pre.view(-1).topk(min(len(pre) * k, pre.numel()), sorted=False)
    return values, places


def _of_all_shards(values: Tensor, pre: Tensor, k: int) -> Tensor:
    """The same of the whole dictionary, given the `values` of the own rows of pre [tokens, n]."""
    if current_shard() is None:
        return values
    tokens, n = pre.shape
    every = together(values, min(tokens * k, tokens * most_rows(n)))
    return every.topk(min(tokens * k, tokens * whole(n)), sorted=False).values


def _smallest_positive(values: Tensor) -> Tensor:
    """A scalar; inf where none of them is > 0."""
    return torch.where(values > 0, values, torch.inf).min()
