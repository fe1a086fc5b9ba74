"""What an arm does to activations before its SAE sees them, and how it is undone.

    y = scale * (per_token(x) - center) @ matrix

`center`, `scale` and `matrix` are fitted once, on a sample, and are buffers: never trained.
`scale` is one number for the whole layer, chosen so that half of the tokens are within sqrt(width)
of their geometric median after it: variance 1 per dimension for a token in the middle. A few
massive tokens own the variance of a layer, and would shrink all others; they do not move a median.
This is this project's definition, the same in every arm (the arms that differ by their center have
the same scale): a learning rate then means the same on every model, and the raw arm keeps its mean.
The `average` norm is the exception, as it is a choice of scale: it makes the mean norm sqrt(width).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor

from bench.sae.arms import Arm, Norm
from bench.statistics.geometric_median import geometric_median
from bench.statistics.moments import Moments, check_varies, layernorm_eps, normalise, scaled
from bench.statistics.spectrum import whitening

PerTokenNorm = Literal["rms", "layernorm"]

# The norms that are a matrix.
WHITENING_NORMS = ("whiten", "zca")

_CHUNK = 4096  # tokens

# Squared distance from the geometric median, over its squared norm, of tokens that are the median:
# it is found to about a millionth.
_SAME = 1e-11


class PerToken(NamedTuple):
    """What a per-token norm took out of each token: x = normalised * scale + shift."""

    scale: Tensor
    shift: Tensor | None


@dataclass(frozen=True)
class Transform:
    """The fitted buffers of an arm: center [d], scale, matrix [d, d] or None, per-token norm."""

    center: Tensor
    scale: float = 1.0
    matrix: Tensor | None = None
    inverse: Tensor | None = None
    norm: PerTokenNorm | None = None

    @classmethod
    def identity(cls, width: int, norm: PerTokenNorm | None = None) -> Self:
        """No center, no scale, no matrix."""
        return cls(torch.zeros(width), norm=norm)

    @classmethod
    def fit(cls, arm: Arm, sample: Tensor, median: Tensor | None = None) -> Self:
        """The buffers of `arm` for activations like `sample` [tokens, d], found in float64.

        median: `sample_median(arm, sample)`, where it is known.

        Raises:
            BadActivations: the sample is not [tokens, d], is not finite, or does not vary.
        """
        norm, whitens = per_token(arm.norm), arm.norm in WHITENING_NORMS
        moments = Moments(sample.shape[-1], covariance=whitens, transform=norm or "raw")
        moments.update(sample)
        mean, variance = moments.mean, moments.variance
        check_varies(float(mean.norm()), float(variance.sum().sqrt()))
        matrix = inverse = None
        if whitens:
            found = whitening(mean, moments.covariance, symmetric=arm.norm == "zca")
            # Those act on columns, these on rows.
            matrix, inverse = (m.T.contiguous() for m in found)
            variance = (matrix.T @ moments.covariance @ matrix).diagonal()
        if median is None:
            median = sample_median(arm, sample)
        centers = {"geometric_median": median, "mean": mean, "none": torch.zeros_like(mean)}
        center = centers[arm.center]
        if arm.norm == "average":
            return cls(center, math.sqrt(sample.shape[1]) / _average_norm(sample, center))
        spread = _median_square(sample, median, matrix, norm)
        point = median if matrix is None else median @ matrix
        if spread <= _SAME * float(point.square().sum()):
            # Most tokens are one and the same vector: what varies at all sets the scale.
            spread = float(variance.sum())
        scale = math.sqrt(sample.shape[1] / spread)
        return cls(center, scale, matrix, inverse, norm)

    def to(self, dtype: torch.dtype, device: torch.device | str) -> Self:
        """The same transform with its buffers in `dtype` on `device`; itself if they are so."""

        def cast(buffer: Tensor | None) -> Tensor | None:
            return None if buffer is None else buffer.to(device=device, dtype=dtype)

        center = self.center.to(device=device, dtype=dtype)
        if center is self.center:
            return self
        return type(self)(center, self.scale, cast(self.matrix), cast(self.inverse), self.norm)

    def apply(self, x: Tensor) -> tuple[Tensor, PerToken | None]:
        """y [tokens, d] in the dtype of the buffers, and what a per-token norm took out."""
        x, taken = _normalise(x.to(self.center.dtype), self.norm)
        y = x - self.center
        if self.matrix is not None:
            y = y @ self.matrix
        return y.mul_(self.scale), taken

    def invert(self, y: Tensor, taken: PerToken | None = None) -> Tensor:
        """x [tokens, d] of y [tokens, d]; `taken` as `apply` gave it.

        Raises:
            ValueError: a per-token norm was applied and `taken` is not given.
        """
        x = y / self.scale
        if self.inverse is not None:
            x = x @ self.inverse
        x += self.center
        if self.norm is None:
            return x
        if taken is None:
            raise ValueError(f"the {self.norm} norm cannot be undone without what it took out")
        x = x * taken.scale
        return x if taken.shift is None else x + taken.shift

    def directions(self, rows: Tensor) -> Tensor:
        """Directions [m, d] of the transformed space as directions of the raw (normalised) one."""
        return (rows if self.inverse is None else rows @ self.inverse) / self.scale


def sample_median(arm: Arm, sample: Tensor) -> Tensor:
    """The geometric median, float64 [d], of the sample [tokens, d] after the arm's per-token norm.

    A whitening arm's is of the tokens as they are.
    """
    return geometric_median(normalise(sample, per_token(arm.norm) or "raw")).point


def _median_square(
    sample: Tensor, median: Tensor, matrix: Tensor | None, norm: PerTokenNorm | None
) -> float:
    """The median over tokens of the squared distance from `median`, after the matrix."""
    distances = []
    for rows in sample.split(_CHUNK):
        y = normalise(rows, norm or "raw").double() - median
        distances.append((y if matrix is None else y @ matrix).square().sum(1))
    return float(torch.cat(distances).median())


def _average_norm(sample: Tensor, center: Tensor) -> float:
    """Of the tokens [tokens, d], after the center [d] is subtracted."""
    norms = [
        torch.linalg.vector_norm(rows.double() - center, dim=1) for rows in sample.split(_CHUNK)
    ]
    return float(torch.cat(norms).mean())


def per_token(norm: Norm) -> PerTokenNorm | None:
    """The norm, where it is one of each token by itself."""
    return norm if norm == "rms" or norm == "layernorm" else None


def _normalise(x: Tensor, norm: PerTokenNorm | None) -> tuple[Tensor, PerToken | None]:
    """As `bench.statistics.moments.normalise`, and what it took out."""
    if norm is None:
        return x, None
    x, exponent = scaled(x)
    shift = x.mean(1, keepdim=True)
    variance = (x - shift).square_().mean(1, keepdim=True)
    if norm == "layernorm":
        total = variance + layernorm_eps(variance, exponent)
        scale = torch.where(total > 0, total, 1.0).sqrt_()
        return (x - shift) / scale, PerToken(_unscaled(scale, exponent), _unscaled(shift, exponent))
    scale = (shift.square() + variance).sqrt_()
    y = torch.where(scale > 0, x / scale, 0.0)
    return y, PerToken(_unscaled(scale, exponent), None)


def _unscaled(x: Tensor, exponent: Tensor | None) -> Tensor:
    return x if exponent is None else torch.ldexp(x, exponent)
