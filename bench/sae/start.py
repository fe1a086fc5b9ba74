"""Where an arm's SAE starts, if not at random directions and biases of 0."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from bench.compute.row_shards import normal_rows
from bench.sae.arms import Arm
from bench.sae.model import SAE
from bench.sae.recipe import ACTIVE_VARIANCE
from bench.statistics.geometric_median import geometric_median
from bench.statistics.moments import Moments
from bench.statistics.spectrum import principal_axes

_CHUNK = 4096  # tokens


@torch.no_grad()
def started(
    sae: SAE, arm: Arm, sample: Tensor, seed: int, *, active_variance: float = ACTIVE_VARIANCE
) -> SAE:
    """`sae`, fresh, with the directions and then the biases that `arm` starts from.

    sample: raw activations [tokens, d], from which they are found. active_variance: share of the
    variance that the subspace of a `subspace` arm holds.
    """
    rows = _rows(sae, arm, sample, seed, active_variance)
    if rows is not None:
        sae = replace(sae, W_enc=rows.clone(), W_dec=rows)
    if arm.bias == "b-mean":
        return replace(sae, b=_mean(sae, sample).to(sae.b))
    if arm.bias == "b-median":
        return replace(sae, b=geometric_median(_seen(sae, sample)).point.to(sae.b))
    if arm.bias == "enc-mean":
        # The mean pre-activation of W_enc (y - b) at b = 0.
        return replace(sae, b_enc=-(sae.W_enc @ _mean(sae, sample).to(sae.b)))
    return sae


def _rows(sae: SAE, arm: Arm, sample: Tensor, seed: int, active_variance: float) -> Tensor | None:
    """Unit directions [n, d]; None where they are the random ones."""
    if arm.start == "data":
        generator = torch.Generator().manual_seed(seed)
        # Each token once, as long as there are any.
        rounds = -(-sae.n // len(sample))
        drawn = [torch.randperm(len(sample), generator=generator) for _ in range(rounds)]
        own = slice(0, sae.n) if sae.shard is None else sae.shard.rows
        chosen = sample[torch.cat(drawn)[own].to(sample.device)]
        y = sae.transform.apply(chosen)[0]
        # A token of zeros has no direction; its feature keeps the random one.
        return torch.where(y.any(1, keepdim=True), normalize(y, dim=1), sae.W_dec)
    if arm.start == "subspace":
        moments = Moments(sae.width, covariance=True)
        for part in sample.split(_CHUNK):
            moments.update(sae.transform.apply(part)[0])
        axes = principal_axes(moments.covariance, active_variance).to(sae.b)
        generator = torch.Generator().manual_seed(seed)
        weights = normal_rows(sae.n, len(axes), generator, sae.shard).to(sae.b)
        return normalize(weights @ axes, dim=1)
    return None


def _seen(sae: SAE, sample: Tensor) -> Tensor:
    """The sample [tokens, d] as the SAE sees it."""
    return torch.cat([sae.transform.apply(part)[0] for part in sample.split(_CHUNK)])


def _mean(sae: SAE, sample: Tensor) -> Tensor:
    """The mean of that, float64 [d]."""
    total = torch.zeros(sae.width, dtype=torch.float64, device=sample.device)
    for part in sample.split(_CHUNK):
        total += sae.transform.apply(part)[0].sum(0, dtype=torch.float64)
    return total / len(sample)
