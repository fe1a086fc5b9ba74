"""How good a trained SAE is, on held-out activations, in raw space for every arm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.sae.model import SAE
from zoo.errors import BadActivations

# Below this ||mu|| / ||sigma|| there is no mean for the bias to learn, only sampling noise.
LEAST_GAMMA = 0.05
NO_MEAN = "the arm's own mean is nothing beside the spread: the bias has nothing to learn"

_CHUNK, _ELEMENTS = 4096, 2**23


@dataclass(frozen=True)
class Quality:
    """Measures on held-out tokens.

    fvu: fraction of variance unexplained, squared error over variance about the tokens' own mean.
    l0: mean number of features with a value > 0 per token.
    """

    tokens: int
    fvu: float
    l0: float


@torch.no_grad()
def quality(sae: SAE, x: Tensor) -> Quality:
    """Measures of `sae` on raw activations x [tokens, d]; sums in float64.

    Raises:
        BadActivations: the tokens do not vary, so that there is no variance to explain.
    """
    mean = x.mean(0, dtype=torch.float64)
    error = variance = torch.zeros((), dtype=torch.float64, device=x.device)
    selected = torch.zeros((), dtype=torch.int64, device=x.device)
    # Some families' codes are an array [tokens, n].
    for rows in x.split(min(_CHUNK, max(64, _ELEMENTS // sae.n))):
        y, taken = sae.transform.apply(rows)
        codes = sae.encode_transformed(y)
        x_hat = sae.transform.invert(sae.decode(codes), taken)
        error = error + (x_hat.double() - rows).square().sum()
        variance = variance + (rows.double() - mean).square().sum()
        selected += codes.firings(sae.n).sum()
    if not float(variance) > 0:
        raise BadActivations("the held-out activations do not vary (sigma = 0)")
    return Quality(
        tokens=len(x),
        fvu=float(error / variance),
        l0=float(selected) / len(x),
    )


@torch.no_grad()
def recovery(sae: SAE, truth: Tensor) -> float:
    """Mean over the true features [m, d] of the largest cosine with a decoder direction.

    As in Sharkey, Braun and Millidge (2022), "mean max cosine similarity". In raw space.
    """
    truth = torch.nn.functional.normalize(truth.double().to(sae.b.device), dim=1)
    directions = sae.directions().double()
    best = [(rows @ directions.T).amax(1) for rows in truth.split(_CHUNK)]
    return float(torch.cat(best).mean())


@torch.no_grad()
def bias_target(sae: SAE, x: Tensor) -> Tensor | None:
    """mu / ||mu||^2 [d] in float64: its inner product with the bias is the share learned.

    mu is the mean of the tokens x [tokens, d] in the arm's transformed space. None where there is
    no mean to learn (`NO_MEAN`), as in an arm centered on it.
    """
    total = torch.zeros(sae.width, dtype=torch.float64, device=x.device)
    for rows in x.split(_CHUNK):
        total += sae.transform.apply(rows)[0].sum(0, dtype=torch.float64)
    mu = total / len(x)
    # The transform sets ||sigma|| to the square root of the width.
    if float(mu.norm()) < LEAST_GAMMA * sae.width**0.5:
        return None
    return mu / mu.square().sum()


@torch.no_grad()
def agreement(mine: Tensor, theirs: Sequence[Tensor]) -> float | None:
    """How far SAEs of other seeds have found the same directions.

    mine [m, d]; theirs: [m', d] of each other seed; unit rows. The mean over my directions of the
    largest cosine with one of another seed's, averaged over the other seeds. None without any.
    """
    means = [
        float(torch.cat([(rows @ other.T).amax(1) for rows in mine.double().split(_CHUNK)]).mean())
        for other in (directions.double() for directions in theirs if len(directions))
    ]
    return sum(means) / len(means) if means and len(mine) else None
