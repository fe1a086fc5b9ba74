"""How good a trained SAE is, on held-out activations, in raw space for every arm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.compute.row_shards import counted, current_shard, in_turn, maximum, row_shard, summed
from bench.sae.model import SAE
from bench.statistics.token_norms import ordinary_tokens
from zoo.errors import BadActivations

# Below this ||mu|| / ||sigma|| there is no mean for the bias to learn, only sampling noise.
LEAST_GAMMA = 0.05

_CHUNK, _ELEMENTS = 4096, 2**23


@dataclass(frozen=True)
class Quality:
    """Measures on held-out tokens.

    fvu: fraction of variance unexplained, squared error over variance about the tokens' own mean.
    fvu_ordinary: the same on ordinary tokens (`bench.statistics.token_norms`), about the mean of
        these; None where they do not vary. A few massive tokens hide what `fvu` is of the others.
    l0: mean number of features with a value > 0 per token.
    """

    tokens: int
    fvu: float
    fvu_ordinary: float | None
    l0: float


@torch.no_grad()
def quality(sae: SAE, x: Tensor) -> Quality:
    """Measures of `sae` on raw activations x [tokens, d]; sums in float64.

    Raises:
        BadActivations: the tokens do not vary, so that there is no variance to explain.
    """
    ordinary = ordinary_tokens(x)
    everyone, others = _Unexplained(_mean(x)), _Unexplained(_mean(x, ordinary))
    selected = torch.zeros((), dtype=torch.int64, device=x.device)
    # Some families' codes are an array [tokens, n].
    chunk = min(_CHUNK, max(64, _ELEMENTS // sae.n))
    for rows, kept in zip(x.split(chunk), ordinary.split(chunk), strict=True):
        y, taken = sae.transform.apply(rows)
        codes = sae.encode_transformed(y)
        x_hat = sae.transform.invert(sae.decode(codes), taken)
        error = (x_hat.double() - rows).square().sum(1)
        everyone.add(rows, error)
        others.add(rows[kept], error[kept])
        selected += (codes.values > 0).sum()
    with row_shard(sae.shard):
        selected = summed(selected)
    fvu = everyone.share
    if fvu is None:
        raise BadActivations("the held-out activations do not vary (sigma = 0)")
    return Quality(
        tokens=len(x),
        fvu=fvu,
        fvu_ordinary=others.share,
        l0=float(selected) / len(x),
    )


def _mean(x: Tensor, which: Tensor | None = None) -> Tensor:
    """Of the tokens x [tokens, d], or of some, bool [tokens]: float64 [d]; no copy of x."""
    if which is None:
        return x.mean(0, dtype=torch.float64)
    counted = torch.zeros(x.shape[1], dtype=torch.float64, device=x.device)
    for rows, kept in zip(x.split(_CHUNK), which.split(_CHUNK), strict=True):
        counted += rows[kept].sum(0, dtype=torch.float64)
    return counted / which.sum()


class _Unexplained:
    """Squared error over variance about the tokens' mean [d]; float64 sums."""

    def __init__(self, mean: Tensor) -> None:
        self._mean = mean
        self._error = torch.zeros((), dtype=torch.float64, device=mean.device)
        self._variance = torch.zeros_like(self._error)

    def add(self, rows: Tensor, error: Tensor) -> None:
        """Some of the tokens [m, d], and their squared errors [m]."""
        self._error += error.sum()
        self._variance += (rows.double() - self._mean).square().sum()

    @property
    def share(self) -> float | None:
        """None where the tokens do not vary."""
        return float(self._error / self._variance) if float(self._variance) > 0 else None


@torch.no_grad()
def recovery(sae: SAE, truth: Tensor) -> float:
    """Mean over the true features [m, d] of the largest cosine with a decoder direction.

    As in Sharkey, Braun and Millidge (2022), "mean max cosine similarity". In raw space.
    """
    truth = torch.nn.functional.normalize(truth.double().to(sae.b.device), dim=1)
    directions = sae.directions().double()
    best = [(rows @ directions.T).amax(1) for rows in truth.split(_CHUNK)]
    with row_shard(sae.shard):
        return float(maximum(torch.cat(best)).mean())


@torch.no_grad()
def bias_target(sae: SAE, x: Tensor) -> Tensor | None:
    """mu / ||mu||^2 [d] in float64: its inner product with the bias is the share learned.

    mu is the mean of the tokens x [tokens, d] in the arm's transformed space. None where there is
    no mean to learn: it is nothing beside the spread, as in an arm centered on it.
    """
    counted = torch.zeros(sae.width, dtype=torch.float64, device=x.device)
    for rows in x.split(_CHUNK):
        counted += sae.transform.apply(rows)[0].sum(0, dtype=torch.float64)
    mu = counted / len(x)
    # The transform makes the distance of half the tokens from their middle the root of the width,
    # about what ||sigma|| is where no token is massive.
    if float(mu.norm()) < LEAST_GAMMA * sae.width**0.5:
        return None
    return mu / mu.square().sum()


@torch.no_grad()
def agreement(mine: Tensor, theirs: Sequence[Tensor]) -> float | None:
    """How far SAEs of other seeds have found the same directions.

    mine [m, d]; theirs: [m', d] of each other seed; unit rows. The mean over my directions of the
    largest cosine with one of another seed's, averaged over the other seeds. None without any.
    """
    mine, count = mine.double(), counted(len(mine))
    means = [_mean_best(mine, other.double(), count) for other in theirs if counted(len(other))]
    return sum(means) / len(means) if means and count else None


def _mean_best(mine: Tensor, other: Tensor, count: int) -> float:
    """The mean of the largest cosines of mine [m, d], `count` over all shards, with others."""
    best = mine.new_full((len(mine),), -torch.inf)
    for part in in_turn(other):
        if len(part):
            found = [(rows @ part.T).amax(1) for rows in mine.split(_CHUNK)]
            best = torch.maximum(best, torch.cat(found))
    return float(best.mean() if current_shard() is None else summed(best.sum()) / max(1, count))
