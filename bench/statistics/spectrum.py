"""The eigenvalues of a covariance: effective rank and PCA whitening. Exact, not randomised."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.errors import BadActivations


class Whitening(NamedTuple):
    """z = matrix @ (x - mean) has unit covariance; inverse @ z + mean is x again."""

    matrix: Tensor
    inverse: Tensor


def eigenvalues(covariance: Tensor) -> Tensor:
    """Eigenvalues of a covariance [d, d], largest first, float64 [d]; rounding below 0 is cut."""
    values: Tensor = torch.linalg.eigvalsh(_symmetric(covariance))
    return values.flip(0).clamp_(min=0.0)


def effective_rank(eigenvalues: Tensor) -> float:
    """exp(entropy of the normalised eigenvalues [d]): Roy and Vetterli (2007). Between 1 and d.

    Raises:
        BadActivations: all are 0.
    """
    values = eigenvalues.double()
    total = float(values.sum())
    if not total > 0:
        raise _constant()
    share = values / total
    return math.exp(float(-torch.special.xlogy(share, share).sum()))


def whitening(
    mean: Tensor, covariance: Tensor, *, floor: float = 1e-10, symmetric: bool = False
) -> Whitening:
    """PCA whitening from mean [d] and covariance [d, d]: float64 matrix and inverse, both [d, d].

    Directions that hold only rounding noise are not blown up: an eigenvalue below `floor` times
    the largest, or below the square of the mean's float32 resolution, is raised to it. So the map
    stays invertible. Rows of the matrix are ordered by eigenvalue, largest first; each
    eigenvector's sign is such that its largest component is positive.

    symmetric: turned back by the eigenvectors, which is ZCA: the inverse square root itself.

    Raises:
        BadActivations: the covariance is 0.
    """
    values, vectors = torch.linalg.eigh(_symmetric(covariance))
    largest = float(values[-1])
    if not largest > 0:
        raise _constant()
    values, vectors = values.flip(0), vectors.flip(1)
    # An eigenvector's sign is free: fixed here, so that libraries and devices agree.
    top = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    vectors = vectors * torch.where(top < 0, -1.0, 1.0)
    noise = float(mean.abs().max()) * torch.finfo(torch.float32).eps
    scale = values.clamp(min=max(floor * largest, noise**2)).sqrt()
    if symmetric:
        return Whitening((vectors / scale) @ vectors.T, (vectors * scale) @ vectors.T)
    return Whitening(vectors.T / scale[:, None], vectors * scale)


def principal_axes(covariance: Tensor, share: float) -> Tensor:
    """The leading eigenvectors that hold `share` of the variance, as rows: float64 [r, d].

    Raises:
        BadActivations: the covariance [d, d] is 0.
    """
    values, vectors = torch.linalg.eigh(_symmetric(covariance))
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    if not float(values[0]) > 0:
        raise _constant()
    held = values.cumsum(0) / values.sum()
    rank = min(int((held < share).sum()) + 1, len(values))
    return vectors[:, :rank].T


def _constant() -> BadActivations:
    return BadActivations(
        "the activations are constant: the covariance is zero",
        "Check that the layer is the intended one and that the tokens differ.",
    )


def _symmetric(covariance: Tensor) -> Tensor:
    covariance = covariance.double()
    return (covariance + covariance.T) / 2
