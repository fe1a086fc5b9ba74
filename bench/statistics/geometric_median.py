"""The geometric median, and a bounded, reproducible sample of a stream to take it on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.errors import BadActivations

# Float64 elements per chunk of a Weiszfeld pass: on a CPU in the cache and in one thread.
_CPU_CHUNK_ELEMENTS = 1 << 15
_GPU_CHUNK_ELEMENTS = 1 << 24

# A step this small relative to the point cannot be resolved in float64 sums.
_RESOLUTION = 1e-15


@dataclass(frozen=True)
class Median:
    """point: float64 [d]. residual: length of the mean unit vector from the point to the tokens,
    0 at the exact median of tokens that are not the point itself. iterations: steps taken.
    """

    point: Tensor
    residual: float
    iterations: int


def geometric_median(
    x: Tensor, *, iterations: int = 200, tolerance: float = 1e-6, floor: float = 1e-8
) -> Median:
    """The point with the least summed distance to the tokens x [tokens, d], by Weiszfeld (1937).

    Starts from the arithmetic mean; distances are cut from below at `floor`; stops once a step is
    shorter than `tolerance` or after `iterations` steps. Both lengths are in the units of x where
    its spread is above 2^-10, as published; else in units of the spread, below which a step of any
    length would be the last. Sums are float64.
    Raises BadActivations if there are no tokens.
    """
    if x.ndim != 2 or x.shape[0] == 0:
        raise BadActivations(
            f"the geometric median needs [tokens, width] with at least one token, "
            f"not shape {tuple(x.shape)}"
        )
    if x.device.type == "mps":
        x = x.cpu()
    point = x.mean(0, dtype=torch.float64)
    unit = _unit(x, point)
    tolerance, floor = tolerance * unit, floor * unit
    taken, length = 0, math.inf
    while taken < iterations and length >= max(tolerance, _RESOLUTION * float(point.norm())):
        pull, weight = _pass(x, point, floor)
        step = pull / weight
        point = point + step
        length = float(step.norm())
        taken += 1
    pull, _ = _pass(x, point, floor)
    residual = float(torch.linalg.vector_norm(pull)) / x.shape[0]
    return Median(point, residual, taken)


def _unit(x: Tensor, mean: Tensor) -> float:
    """1, or a power of two near the spread of tokens that are very small."""
    spread = math.sqrt(sum(float((r.double() - mean).square().sum()) for r in _chunks(x)) / len(x))
    exponent = math.frexp(spread)[1]
    return 1.0 if spread == 0 or exponent >= -10 else math.ldexp(1.0, exponent)


def _chunks(x: Tensor) -> tuple[Tensor, ...]:
    elements = _CPU_CHUNK_ELEMENTS if x.device.type == "cpu" else _GPU_CHUNK_ELEMENTS
    return x.split(max(1, elements // x.shape[1]))


def _pass(x: Tensor, point: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """Sum of unit vectors from the point to the tokens, and sum of inverse distances."""
    pull = torch.zeros_like(point)
    weight = torch.zeros((), dtype=torch.float64, device=x.device)
    for rows in _chunks(x):
        difference = rows.double() - point
        inverse = torch.linalg.vector_norm(difference, dim=1).clamp_(min=floor).reciprocal_()
        pull += inverse @ difference
        weight += inverse.sum()
    return pull, weight
