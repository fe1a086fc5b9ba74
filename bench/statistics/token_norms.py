"""Massive tokens: a few tokens whose norm is many times that of the others.

Attention sinks and register tokens are such. They are another thing than a large mean (gamma): one
of them can own the variance, and with it every number that is a sum of squares over tokens: the
scale of the activations, the raw gamma, the fraction of variance unexplained.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# A token is massive where its norm exceeds so many times the median norm; else it is ordinary.
MASSIVE_RATIO = 10.0

# Tokens whose norms are taken at once.
_AT_ONCE = 4096

# Dimensions that `energy_share` is of.
ENERGY_DIMENSIONS = 10


class TokenOutliers(NamedTuple):
    """The median norm, the largest over it, and the share of tokens over `MASSIVE_RATIO` times it.

    Where the median norm is 0, norm_ratio is None, and no token is massive.
    """

    median_norm: float
    norm_ratio: float | None
    massive_share: float


class TokenNorms:
    """Collects the norms of a stream of tokens [*, width]: eight bytes a token."""

    def __init__(self) -> None:
        self._norms: list[Tensor] = []

    def update(self, x: Tensor) -> None:
        """Add tokens x [tokens, width]."""
        self._norms.append(token_norms(x).cpu())

    def result(self) -> TokenOutliers:
        """Of the tokens so far, at least one."""
        norms = torch.cat(self._norms)
        median = float(norms.median())
        ratio = float(norms.max()) / median if median > 0 else None
        # Beside a median of 0, as where most tokens are padding, every norm would be large.
        massive = float((norms > MASSIVE_RATIO * median).double().mean()) if median > 0 else 0.0
        return TokenOutliers(median, ratio, massive)


def token_norms(x: Tensor) -> Tensor:
    """float64 [tokens] of x [tokens, width], on its device."""
    # Float16 and bfloat16 tokens of a norm beyond 65504 have a finite norm too.
    dtype = torch.float32 if x.device.type == "mps" else torch.float64
    # Some at a time: in another dtype than its own, x is copied.
    parts = [torch.linalg.vector_norm(rows, dim=1, dtype=dtype) for rows in x.split(_AT_ONCE)]
    return torch.cat(parts)


def ordinary_tokens(x: Tensor, times: float = MASSIVE_RATIO) -> Tensor:
    """bool [tokens]: whose norm is at most `times` the median norm of x [tokens, width]; all where
    that is 0."""
    norms = token_norms(x)
    median = norms.median()
    return (norms <= times * median) | (median == 0)


def energy_share(second_moments: Tensor, dimensions: int = ENERGY_DIMENSIONS) -> float:
    """Share of the tokens' summed squares that the largest dimensions hold.

    second_moments: mean square per dimension [width]. 0 where all are 0.
    """
    total = float(second_moments.sum())
    largest = second_moments.topk(min(dimensions, len(second_moments))).values
    return float(largest.sum()) / total if total > 0 else 0.0


def stand_in(x: Tensor, most: float) -> tuple[Tensor, Tensor]:
    """The tokens x [tokens, width] with ordinary ones in the place of those of a norm above `most`.

    In its place stands the last ordinary token before it, or the last of all where there is none
    before: the number of tokens stays, and no device waits. Where no token is ordinary all stay.
    Also how many were replaced, a scalar.
    """
    keeps = token_norms(x) <= most
    rows = torch.arange(len(x), device=x.device)
    chosen = torch.where(keeps, rows, -1).cummax(0).values
    chosen = torch.where(chosen < 0, chosen[-1], chosen)
    chosen = torch.where(chosen < 0, rows, chosen)
    return x[chosen], (chosen != rows).sum()
