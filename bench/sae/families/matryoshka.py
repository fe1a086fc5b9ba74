"""Matryoshka: BatchTopK whose first features must reconstruct without the later ones.

    loss = mean over prefixes p of mean (b + codes[:p] @ W_dec[:p] - y)^2

The features are in groups of n / 2^G, ..., n / 8, n / 4 and the rest, a bit more than half; the
prefixes end where a group does. Bussmann, Nabeshima, Karvonen and Nanda, "Learning Multi-Level
Features with Matryoshka Sparse Autoencoders" (2025), arXiv 2503.17547; the groups and their equal
weights are those of dictionary_learning. Codes, threshold and AuxK, which is on the whole
reconstruction's residual, are BatchTopK's, and so are the two ways of being dead.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import ClassVar

import torch
from torch import Tensor

from bench.compute.row_shards import current_shard, summed, whole
from bench.sae.codes import ArrayPairs, FeatureGradients, RaggedPairs, StepMethod
from bench.sae.dead_features.base import DeadLossPass
from bench.sae.families.batchtopk import BatchTopK
from bench.sae.gradients import Backward, Weights


@dataclass(frozen=True)
class Matryoshka(BatchTopK):
    """prefixes: how many nested dictionaries there are, the whole one among them."""

    prefixes: float
    name: ClassVar[str] = "matryoshka"

    def backward(
        self,
        pairs: RaggedPairs | ArrayPairs,
        weights: Weights,
        centered: Tensor,
        path: StepMethod,
        dead_loss: DeadLossPass | None,
    ) -> Backward:
        """The same of codes in an array; the loss is the mean over the prefixes."""
        assert isinstance(pairs, ArrayPairs), "the family has no sparse path"
        groups = _own(group_sizes(whole(pairs.array.shape[1]), int(self.prefixes)))
        return _nested_backward(pairs.array, groups, weights, centered, dead_loss)


def group_sizes(n: int, prefixes: int) -> list[int]:
    """How many features each group has; groups too small to have one are left out."""
    halves = [n >> power for power in range(prefixes, 1, -1)]
    return [size for size in [*halves, n - sum(halves)] if size]


def _own(groups: list[int]) -> list[int]:
    """How many features of each group are in this shard, some 0."""
    shard = current_shard()
    if shard is None:
        return groups
    ends = [min(max(end, shard.start), shard.stop) for end in accumulate(groups)]
    return [end - start for start, end in pairwise([shard.start, *ends])]


def _nested_backward(
    codes: Tensor,
    groups: list[int],
    weights: Weights,
    centered: Tensor,
    dead_loss: DeadLossPass | None,
) -> Backward:
    """Loss and gradients of codes [tokens, n]; a group is in its own prefix and in all later."""
    pairs = [ArrayPairs(part) for part in codes.split(groups, dim=1)]
    decoders = weights.W_dec.split(groups)
    # y_hat - y of each prefix, as b is in both.
    errors, error = [], -centered
    for part, decoder in zip(pairs, decoders, strict=True):
        error = error + summed(part.decode(decoder))
        errors.append(error)
    losses = [torch.linalg.vector_norm(e).square() / e.numel() for e in errors]
    loss = torch.stack(losses).mean()
    aux_loss = added = None
    if dead_loss is not None:
        aux_loss, added = dead_loss.gradients(
            weights.W_dec, error.clone(), losses[-1], centered, "dense"
        )
    # The gradient by what a group adds: of all prefixes that it is in.
    slope, slopes = torch.zeros_like(centered), []
    for error in reversed(errors):
        slope = slope + error * (2.0 / (error.numel() * len(errors)))
        slopes.append(slope)
    parts = [
        part.gradients(decoder, slope, centered, gate=True)
        for part, decoder, slope in zip(pairs, decoders, reversed(slopes), strict=True)
    ]
    features = FeatureGradients(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))
    if dead_loss is not None and added is not None:
        dead_loss.add(features, added)
    b = slope.sum(0) - summed(features.b_enc @ weights.W_enc)
    gradients = Weights(features.W_enc, features.b_enc, features.W_dec, b)
    return Backward(loss, aux_loss, gradients, features.radial, features.activity)
