"""What is true of a layer's activations before anyone trains: all statistics in one pass.

Names and meanings are those of `bench.records.schema.Statistics`, which records keep. A new
statistic is a field there, and its value in `LayerStatistics.result`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.records.schema import OutlierDimension, Statistics, TokenGammas
from bench.statistics.geometric_median import geometric_median
from bench.statistics.moments import BlockBuffer, Moments, gamma
from bench.statistics.reservoir import Reservoir
from bench.statistics.spectrum import effective_rank, eigenvalues
from bench.statistics.token_norms import TokenNorms, energy_share


class GammaStatistics:
    """Collects the three gammas of a stream of tokens [*, width]: little beside a forward pass.

    covariance: also keep those of the normalised tokens (16 * width^2 bytes).
    """

    def __init__(self, width: int, *, outliers: int = 8, covariance: bool = False) -> None:
        self.raw = Moments(width)
        self.layernorm = Moments(width, transform="layernorm", covariance=covariance)
        self.rms = Moments(width, transform="rms", covariance=covariance)
        self._outliers = outliers
        self._buffer = BlockBuffer(width)

    def update(self, x: Tensor) -> None:
        """Add tokens x [tokens, width]. Raises BadActivations on a bad shape, dtype or value."""
        for block in self._buffer.push(x):
            self._absorb(block)

    def result(self) -> TokenGammas:
        """Of the tokens so far. Raises BadActivations if there are none, or they do not vary."""
        for block in self._buffer.drain():
            self._absorb(block)
        return TokenGammas(
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

    Memory: two covariances (16 * width^2 bytes), a block of tokens, eight bytes a token for the
    norms, and a sample of at most `sample_tokens` tokens, on which the geometric median is taken.
    """

    def __init__(
        self, width: int, *, sample_tokens: int = 8192, outliers: int = 8, seed: int = 0
    ) -> None:
        self.width = width
        self.moments = GammaStatistics(width, outliers=outliers, covariance=True)
        self.reservoir = Reservoir(width, capacity=sample_tokens, seed=seed)
        self.norms = TokenNorms()

    def update(self, x: Tensor) -> None:
        """Add tokens x [tokens, width]. Raises BadActivations on a bad shape, dtype or value."""
        self.moments.update(x)
        self.reservoir.update(x)
        self.norms.update(x)

    def result(self) -> Statistics:
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
        return Statistics(
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
            **self.norms.result()._asdict(),
            energy_share=energy_share(raw.mean.square() + raw.variance),
        )


def outlier_dimensions(moments: Moments, count: int) -> tuple[OutlierDimension, ...]:
    """The `count` dimensions with the largest mean, by size, largest first."""
    mean, spread = moments.mean, moments.variance.sqrt()
    share = mean.square() / mean.square().sum().clamp(min=torch.finfo(torch.float64).tiny)
    order = torch.argsort(mean.abs(), descending=True, stable=True)[:count].tolist()
    return tuple(
        OutlierDimension(
            index=i, mean=float(mean[i]), spread=float(spread[i]), share=float(share[i])
        )
        for i in order
    )


def _norms(moments: Moments) -> tuple[float, float]:
    mean_norm = float(torch.linalg.vector_norm(moments.mean))
    return mean_norm, float(moments.variance.sum().sqrt())
