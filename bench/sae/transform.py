"""What an arm does to activations before its SAE sees them, and how it is undone.

    y = scale * (per_token(x) - center) @ matrix

`center`, `scale` and `matrix` are fitted once, on a sample, and are buffers: never trained.
`scale` is one number for the whole layer, chosen so that ||sigma|| = sqrt(width) after it (variance
1 per dimension on average). This is this project's definition, the same in every arm: a learning
rate then means the same on every model, and gamma = ||mu|| / ||sigma|| is what it was, so that the
raw arm keeps its mean.
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
    def fit(cls, arm: Arm, sample: Tensor) -> Self:
        """The buffers of `arm` for activations like `sample` [tokens, d], found in float64.

        Raises:
            BadActivations: the sample is not [tokens, d], is not finite, or does not vary.
        """
        per_token = _per_token(arm.norm)
        moments = Moments(
            sample.shape[-1], covariance=arm.norm == "whiten", transform=per_token or "raw"
        )
        moments.update(sample)
        mean, variance = moments.mean, moments.variance
        check_varies(float(mean.norm()), float(variance.sum().sqrt()))
        matrix = inverse = None
        if arm.norm == "whiten":
            # Those act on columns, these on rows.
            matrix, inverse = (m.T.contiguous() for m in whitening(mean, moments.covariance))
            variance = (matrix.T @ moments.covariance @ matrix).diagonal()
        if arm.center == "geometric_median":
            center = geometric_median(normalise(sample, per_token or "raw")).point
        else:
            center = mean if arm.center == "mean" else torch.zeros_like(mean)
        scale = math.sqrt(sample.shape[1] / float(variance.sum()))
        return cls(center, scale, matrix, inverse, per_token)

    def to(self, dtype: torch.dtype, device: torch.device | str) -> Self:
        """The same transform with its buffers in `dtype` on `device`."""

        def cast(buffer: Tensor | None) -> Tensor | None:
            return None if buffer is None else buffer.to(device=device, dtype=dtype)

        center = self.center.to(device=device, dtype=dtype)
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


def _per_token(norm: Norm) -> PerTokenNorm | None:
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
