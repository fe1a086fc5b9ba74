"""TopK: the k largest pre-activations of each token, negative ones set to 0.

Makhzani and Frey, "k-Sparse Autoencoders" (2013); Gao et al., "Scaling and evaluating sparse
autoencoders" (2024), there with the ReLU. Dead by ReLU and dead by TopK as in `bench.death.census`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from bench.compute.ahead import host_runs_ahead
from bench.compute.precision import factor, product
from bench.compute.profiling import mark
from bench.compute.row_shards import among_largest, current_shard
from bench.compute.topk import exact_topk
from bench.death.census import Census, census
from bench.sae.codes import PAIRS, Codes, StepMethod
from bench.sae.dead_features.base import DeadLoss, begin
from bench.sae.families.base import Family, FamilyTensors
from bench.sae.gradients import Backward, Weights, backward, pre_activations, row_slices


@dataclass(frozen=True)
class TopK(Family):
    """Without hyper-parameters but k."""

    name: ClassVar[str] = "topk"
    has_kernels: ClassVar[bool] = True

    def encode(
        self, centered: Tensor, weights: Weights, family_tensors: FamilyTensors, k: int
    ) -> Codes:
        return topk_codes(centered, weights, k)

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
        codes = topk_codes(centered, weights, k, also=dead_loss)
        pairs = PAIRS[path](codes, len(weights.W_enc))
        return backward(pairs, weights, centered, path, dead_loss)

    def census(
        self,
        centered: Tensor,
        weights: Weights,
        family_tensors: FamilyTensors,
        k: int,
        *,
        counts: bool,
    ) -> Census:
        return census(centered, weights.W_enc, k=k, b_enc=weights.b_enc, counts=counts)


def topk_codes(
    centered: Tensor,
    weights: Weights,
    k: int,
    *,
    also: Callable[[Tensor], None] | None = None,
) -> Codes:
    """The codes of `centered` = y - b, [tokens, d], by rows that fit the cache.

    `also` is called with the pre-activations [rows, n] of each group of rows, in order.
    """
    parts = []
    own = min(k, len(weights.W_enc))  # fewer in a small shard
    directions = factor(weights.W_enc)
    for rows in row_slices(len(centered), len(weights.W_enc), centered.device):
        if also is None and host_runs_ahead(centered):
            # The selection adds the bias where it reads.
            with mark("product"):
                pre = product(centered[rows], directions.T)
            values, indices = exact_topk(pre, own, bias=weights.b_enc.unsqueeze(0))
        else:
            pre = pre_activations(centered[rows], weights)
            values, indices = exact_topk(pre, own)
            if also is not None:
                also(pre)
        parts.append(Codes(values.clamp_(min=0), indices))
    codes = Codes.joined(parts)
    if current_shard() is None:
        return codes
    # Of the own k largest those that are among the k largest of all shards.
    return codes._replace(values=codes.values * among_largest(codes.values, k))
