"""What is true of a layer's activations before anyone trains: all statistics in one pass."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from bench.statistics.geometric_median import Median, geometric_median
from bench.statistics.moments import BlockBuffer, Moments, gamma, normalise
from bench.statistics.reservoir import Reservoir
from bench.statistics.spectrum import effective_rank, eigenvalues, whitening

__all__ = [
    "GammaStatistics",
    "Gammas",
    "LayerStatistics",
    "LayerStats",
    "Median",
    "Moments",
    "OutlierDimension",
    "Reservoir",
    "effective_rank",
    "eigenvalues",
    "gamma",
    "geometric_median",
    "normalise",
    "whitening",
]


@dataclass(frozen=True)
class OutlierDimension:
    """One dimension of the normalised activations; share is its part of ||mu||^2, in [0, 1]."""

    index: int
    mean: float
    spread: float
    share: float


@dataclass(frozen=True)
class LayerStats:
    """Statistics of one layer. Normalised means: after a per-token LayerNorm, no affine part.

    gamma, effective_rank, kurtosis_* and outlier_dims are of the normalised tokens; gamma_raw,
    mean_norm, sigma_norm and median_* of the tokens as they are; gamma_rms of the tokens over
    their root mean square. Kurtosis is 3 for a Gaussian. median_gap: distance from the geometric
    median to the mean, both of the same `median_tokens` sampled tokens, over sigma_norm.
    """

    tokens: int
    width: int
    gamma: float
    gamma_raw: float
    gamma_rms: float
    effective_rank: float
    kurtosis_mean: float
    kurtosis_max: float
    outlier_dims: tuple[OutlierDimension, ...]
    mean_norm: float
    sigma_norm: float
    median_gap: float
    median_residual: float
    median_tokens: int

    @property
    def gammas(self) -> Gammas:
        """The part that `GammaStatistics` gives."""
        return Gammas(self.tokens, self.gamma, self.gamma_raw, self.gamma_rms, self.outlier_dims)

    def to_dict(self) -> dict[str, object]:
        """Plain JSON types."""
        return {**asdict(self), "outlier_dims": [asdict(d) for d in self.outlier_dims]}


@dataclass(frozen=True)
class Gammas:
    """The three gammas of some tokens and the dimensions that carry the mean; see `LayerStats`."""

    tokens: int
    gamma: float
    gamma_raw: float
    gamma_rms: float
    outlier_dims: tuple[OutlierDimension, ...]


class GammaStatistics:
    """Collects the three gammas of a stream of tokens [*, width]: little beside a forward pass.

    covariance: also keep that of the normalised tokens (8 * width^2 bytes).
    """

    def __init__(self, width: int, *, outliers: int = 8, covariance: bool = False) -> None:
        self.raw = Moments(width)
        self.layernorm = Moments(width, transform="layernorm", covariance=covariance)
        self.rms = Moments(width, transform="rms")
        self._outliers = outliers
        self._buffer = BlockBuffer(width)

    def update(self, x: Tensor) -> None:
        """Add tokens x [tokens, width]. Raises BadActivations on a bad shape, dtype or value."""
        for block in self._buffer.push(x):
            self._absorb(block)

    def result(self) -> Gammas:
        """Of the tokens so far. Raises BadActivations if there are none, or they do not vary."""
        for block in self._buffer.drain():
            self._absorb(block)
        return Gammas(
            tokens=self.raw.count,
            gamma=gamma(self.layernorm.mean, self.layernorm.variance),
            gamma_raw=gamma(self.raw.mean, self.raw.variance),
            gamma_rms=gamma(self.rms.mean, self.rms.variance),
            outlier_dims=outlier_dimensions(self.layernorm, self._outliers),
        )

    def _absorb(self, block: Tensor) -> None:
        for moments in (self.raw, self.layernorm, self.rms):
            moments.absorb(block)


class LayerStatistics:
    """Collects one layer's statistics from a stream of tokens [*, width].

    Memory: the covariance (8 * width^2 bytes), a block of tokens, and a sample of at most
    `sample_tokens` tokens, on which the geometric median is taken.
    """

    def __init__(
        self, width: int, *, sample_tokens: int = 8192, outliers: int = 8, seed: int = 0
    ) -> None:
        self.width = width
        self.moments = GammaStatistics(width, outliers=outliers, covariance=True)
        self.reservoir = Reservoir(width, capacity=sample_tokens, seed=seed)

    def update(self, x: Tensor) -> None:
        """Add tokens x [tokens, width]. Raises BadActivations on a bad shape, dtype or value."""
        self.moments.update(x)
        self.reservoir.update(x)

    def result(self) -> LayerStats:
        """Everything of the tokens so far.

        Raises BadActivations on fewer than two tokens, or if they do not vary.
        """
        gammas = self.moments.result()
        raw, layernorm = self.moments.raw, self.moments.layernorm
        mean_norm, sigma_norm = _norms(raw)
        kurtosis = layernorm.kurtosis
        sample = self.reservoir.rows()
        median = geometric_median(sample)
        gap = torch.linalg.vector_norm(median.point - sample.mean(0, dtype=torch.float64))
        return LayerStats(
            tokens=gammas.tokens,
            width=self.width,
            gamma=gammas.gamma,
            gamma_raw=gammas.gamma_raw,
            gamma_rms=gammas.gamma_rms,
            effective_rank=effective_rank(eigenvalues(layernorm.covariance)),
            kurtosis_mean=float(kurtosis.mean()),
            kurtosis_max=float(kurtosis.max()),
            outlier_dims=gammas.outlier_dims,
            mean_norm=mean_norm,
            sigma_norm=sigma_norm,
            median_gap=float(gap) / sigma_norm,
            median_residual=median.residual,
            median_tokens=len(self.reservoir),
        )


def outlier_dimensions(moments: Moments, count: int) -> tuple[OutlierDimension, ...]:
    """The `count` dimensions with the largest mean, by size, largest first."""
    mean, spread = moments.mean, moments.variance.sqrt()
    share = mean.square() / mean.square().sum().clamp(min=torch.finfo(torch.float64).tiny)
    order = torch.argsort(mean.abs(), descending=True, stable=True)[:count].tolist()
    return tuple(
        OutlierDimension(i, float(mean[i]), float(spread[i]), float(share[i])) for i in order
    )


def _norms(moments: Moments) -> tuple[float, float]:
    mean_norm = float(torch.linalg.vector_norm(moments.mean))
    return mean_norm, float(moments.variance.sum().sqrt())
