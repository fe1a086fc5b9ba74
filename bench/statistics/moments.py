"""Mean, variance, kurtosis and covariance of activations in one pass, by exact merging.

Rows are gathered into blocks of a fixed number of tokens, each block is reduced about its own
mean in float64, and blocks are merged by the pairwise update of Chan, Golub and LeVeque (1983)
and, for the third and fourth moments, Pebay (SAND2008-6212). So the result does not depend on how
the stream was batched, memory does not grow with the number of tokens, and a mean that is 1e4
standard deviations away costs no accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from zoo.errors import BadActivations

Normalisation = Literal["raw", "layernorm", "rms"]
LAYERNORM_EPS = 1e-5
_LARGEST_EPS = 1e-2

# Float64 elements of a block, so that the covariance product is efficient; and of the part of it
# that a CPU works on at a time: it stays in the cache, and is what torch gives to one thread, as
# waking others for so little costs more than they do where the machine is shared.
_BLOCK_ELEMENTS = 1 << 20
_LEAST_BLOCK_ROWS = 512
_PART_ELEMENTS = 1 << 15

# Below this ratio of spread to mean the tokens are one and the same vector up to float64 rounding.
_CONSTANT = 1e-12


def normalise(x: Tensor, transform: Normalisation) -> Tensor:
    """Rescale each token (row of x [tokens, width]) on its own; the input's dtype is kept.

    raw: as it is. layernorm: minus the token's mean, over sqrt(variance + eps), biased variance, no
    affine part; eps is 1e-5, as published, but at most a hundredth of the variance, so that what
    the tokens are multiplied by decides nothing. rms: over the token's root mean square, no
    epsilon, so that only the token's direction is left; an all-zero token stays zero.

    Raises:
        ValueError: there is no such transform.
    """
    if transform not in get_args(Normalisation):
        raise ValueError(f"transform must be one of {get_args(Normalisation)}, not {transform!r}")
    if transform == "raw":
        return x
    x, exponent = scaled(x)
    mean = x.mean(1, keepdim=True)
    centered = x - mean
    variance = _mean_square(centered)
    if transform == "layernorm":
        total = variance + layernorm_eps(variance, exponent)
        return centered.mul_(torch.where(total > 0, torch.rsqrt(total), 0.0))
    # From the centered rows, so that a large common offset does not cancel.
    return x * _inverse_rms(mean, variance)


def scaled(x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Tokens x [tokens, width] over powers of two [tokens, 1], and the exponents of these.

    Squares of tokens of about 1 neither overflow nor vanish; nothing is rounded. Float64 has room
    enough for all there is in float32: it is left as it is, and has no exponents.
    """
    if x.dtype == torch.float64:
        return x, None
    # Of numbers that float32 holds with fewer digits the power itself would overflow.
    exponent = torch.frexp(x.abs().amax(1, keepdim=True).float()).exponent.clamp(min=-126)
    return torch.ldexp(x, -exponent).to(x.dtype), exponent


def layernorm_eps(variance: Tensor, exponent: Tensor | None) -> Tensor:
    """What LayerNorm adds to the variance [tokens, 1] of tokens that were `scaled`.

    exponent: [tokens, 1], as `scaled` gives it.
    """
    published = torch.full_like(variance, LAYERNORM_EPS)
    if exponent is not None:
        published = torch.ldexp(published, -2 * exponent)
    return torch.minimum(published, _LARGEST_EPS * variance)


def gamma(mean: Tensor, variance: Tensor) -> float:
    """Outlier severity ||mu||_2 / ||sigma||_2 from mean and variance [width] (ddof 0).

    Raises BadActivations where the tokens do not vary.
    """
    mean_norm = float(torch.linalg.vector_norm(mean.double()))
    sigma_norm = math.sqrt(float(variance.double().sum()))
    check_varies(mean_norm, sigma_norm)
    return mean_norm / sigma_norm


def check_varies(mean_norm: float, sigma_norm: float) -> None:
    """Raise BadActivations if the spread is nothing beside the mean."""
    if sigma_norm <= _CONSTANT * mean_norm or sigma_norm == 0.0:
        raise BadActivations(
            "the activations are constant: every token has the same vector (sigma = 0)",
            "Check that the layer is the intended one and that the tokens differ.",
        )


def check_finite(x: Tensor, first_token: int = 0) -> None:
    """Raise BadActivations if x [tokens, width] holds NaN or inf; says where and how many.

    first_token: the index in the whole stream of x's first row, for the message.
    """
    bad = ~torch.isfinite(x)
    count = int(bad.sum())
    if count == 0:
        return
    token, dimension = (int(i) for i in bad.nonzero()[0])
    rows = int(bad.any(1).sum())
    kind = "NaN" if bool(torch.isnan(x[token, dimension])) else "infinite"
    raise BadActivations(
        f"{count} non-finite value{'s' * (count > 1)} in {rows} of {x.shape[0]} tokens, "
        f"the first ({kind}) at token {first_token + token}, dimension {dimension}",
        "Run the model in float32 or bfloat16; float16 overflows beyond 65504.",
    )


class BlockBuffer:
    """Collects rows into float64 blocks of a fixed size, whatever the size of the batches.

    Raises:
        ValueError: `width` is less than 1.
    """

    def __init__(self, width: int) -> None:
        if width < 1:
            raise ValueError(f"width must be >= 1, not {width}")
        self.width = width
        self.rows = max(_LEAST_BLOCK_ROWS, _BLOCK_ELEMENTS // width)
        self._block: Tensor | None = None
        self._filled = 0
        self._drained = 0

    def push(self, x: Tensor) -> Iterator[Tensor]:
        """Add rows; yields each block that becomes full, to be used before the next is asked for.

        Raises BadActivations if x is not [tokens, width] of real floating point, or not finite.
        """
        self._check(x)
        start = 0
        while start < x.shape[0]:
            block = self._buffer_for(x)
            taken = min(self.rows - self._filled, x.shape[0] - start)
            block[self._filled : self._filled + taken].copy_(x[start : start + taken])
            self._filled += taken
            start += taken
            if self._filled == self.rows:
                yield from self.drain()

    def drain(self) -> Iterator[Tensor]:
        """Yields what is left as one block [rows, width], if anything."""
        if self._block is None or self._filled == 0:
            return
        block = self._block[: self._filled]
        # A sum is finite only if every term is: one cheap pass, the slow search only after it.
        if not math.isfinite(float(block.sum())):
            check_finite(block, self._drained)
        self._drained += self._filled
        self._filled = 0
        yield block

    def _buffer_for(self, x: Tensor) -> Tensor:
        if self._block is None:
            # No float64 on Apple's device: there the statistics are taken on the CPU.
            device = torch.device("cpu") if x.device.type == "mps" else x.device
            self._block = torch.empty(self.rows, self.width, dtype=torch.float64, device=device)
        return self._block

    def _check(self, x: Tensor) -> None:
        if x.ndim != 2 or x.shape[1] != self.width:
            raise BadActivations(
                f"activations have shape {tuple(x.shape)}, not [tokens, {self.width}]",
                "Flatten to one row per token.",
            )
        if not x.is_floating_point():
            raise BadActivations(
                f"activations have dtype {str(x.dtype).removeprefix('torch.')}",
                "They must be real floating point numbers.",
            )


class Moments:
    """Running moments of tokens [*, width], per dimension, in float64.

    transform: what is done to each token first (see `normalise`). covariance: also keep the
    [width, width] covariance. All moments are of the population (ddof 0).

    Raises:
        ValueError: there is no such transform.
    """

    def __init__(
        self, width: int, *, covariance: bool = False, transform: Normalisation = "raw"
    ) -> None:
        if transform not in get_args(Normalisation):
            raise ValueError(
                f"transform must be one of {get_args(Normalisation)}, not {transform!r}"
            )
        self.width = width
        self.transform: Normalisation = transform
        self._buffer = BlockBuffer(width)
        self._keeps_covariance = covariance
        self._sums: _Sums | None = None

    def update(self, x: Tensor) -> None:
        """Add tokens x [tokens, width]. Raises BadActivations on a bad shape, dtype or value."""
        for block in self._buffer.push(x):
            self.absorb(block)

    def absorb(self, block: Tensor) -> None:
        """Add one finite float64 block of tokens, not yet transformed; see `BlockBuffer`."""
        self._add(_Sums.of(block, self.transform, self._keeps_covariance))

    @property
    def count(self) -> int:
        """Tokens seen."""
        self._flushed()
        return 0 if self._sums is None else self._sums.count

    @property
    def mean(self) -> Tensor:
        """float64 [width]"""
        return self._required().mean

    @property
    def variance(self) -> Tensor:
        """float64 [width], ddof 0"""
        sums = self._required()
        return sums.second / sums.count

    @property
    def kurtosis(self) -> Tensor:
        """float64 [width]: fourth central moment over squared variance; 3 for a Gaussian.

        A dimension that does not vary, up to float64 rounding of its mean, has kurtosis 0.
        """
        sums = self._required()
        varies = sums.second > sums.count * (_CONSTANT * sums.mean).square()
        square = torch.where(varies, sums.second.square(), 1.0)
        return torch.where(varies, sums.count * sums.fourth / square, 0.0)

    @property
    def covariance(self) -> Tensor:
        """float64 [width, width], ddof 0. Raises ValueError where it was not kept."""
        sums = self._required()
        if sums.cross is None:
            raise ValueError("these moments were built without covariance=True")
        upper = sums.cross.triu() / sums.count
        return upper + upper.triu(1).T

    def _add(self, sums: _Sums) -> None:
        if self._sums is None:
            self._sums = sums
        else:
            self._sums.add(sums)

    def _flushed(self) -> _Sums | None:
        for block in self._buffer.drain():
            self.absorb(block)
        return self._sums

    def _required(self) -> _Sums:
        sums = self._flushed()
        if sums is None:
            raise BadActivations("no tokens", "Statistics need at least one token.")
        return sums


@dataclass
class _Sums:
    """Sums of powers of deviations from the mean, of one or more blocks."""

    count: int
    mean: Tensor
    second: Tensor
    third: Tensor
    fourth: Tensor
    cross: Tensor | None

    @classmethod
    def of(cls, block: Tensor, transform: Normalisation, covariance: bool) -> _Sums:
        """The sums of one float64 block of tokens, after the transform."""
        on_cpu = block.device.type == "cpu"
        rows = max(1, _PART_ELEMENTS // block.shape[1]) if on_cpu else len(block)
        parts = block.split(rows)
        shift = normalise(parts[0], transform).mean(0)
        powers = [torch.zeros_like(shift) for _ in range(4)]
        deviations = torch.empty_like(block) if covariance else None
        scratch = torch.empty_like(parts[0])
        for i, part in enumerate(parts):
            y = normalise(part, transform) - shift
            if deviations is not None:
                deviations[i * rows : i * rows + len(y)] = y
            square = torch.mul(y, y, out=scratch[: len(y)])
            powers[0] += y.sum(0)
            powers[1] += square.sum(0)
            powers[2] += y.mul_(square).sum(0)
            powers[3] += square.mul_(square).sum(0)
        count = block.shape[0]
        mean, second, third, fourth = _centered(count, *powers)
        cross = None if deviations is None else _gram(deviations.sub_(mean))
        return cls(count, mean + shift, second, third, fourth, cross)

    def add(self, other: _Sums) -> None:
        """Merge: Pebay (2008), equations 2.1 and 3.1 to 3.3; `cross` goes as `second` does."""
        a, b = self.count, other.count
        total = a + b
        delta = other.mean - self.mean
        square = delta * delta
        self.fourth += (
            other.fourth
            + square * square * (a * b * (a * a - a * b + b * b) / total**3)
            + 6 * square * (a * a * other.second + b * b * self.second) / total**2
            + 4 * delta * (a * other.third - b * self.third) / total
        )
        self.third += (
            other.third
            + delta * square * (a * b * (a - b) / total**2)
            + 3 * delta * (a * other.second - b * self.second) / total
        )
        self.second += other.second + square * (a * b / total)
        if self.cross is not None and other.cross is not None:
            self.cross += other.cross
            self.cross.addr_(delta, delta, alpha=a * b / total)
        self.mean += delta * (b / total)
        self.count = total


def _centered(
    count: int, first: Tensor, second: Tensor, third: Tensor, fourth: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sums of powers about a point near the mean -> offset of the mean, sums about the mean."""
    mean = first / count
    square = mean * mean
    return (
        mean,
        (second - count * square).clamp_(min=0.0),
        third - 3 * mean * second + 2 * count * mean * square,
        fourth - 4 * mean * third + 6 * square * second - 3 * count * square * square,
    )


def _gram(deviation: Tensor) -> Tensor:
    """The upper triangle of deviation.T @ deviation, [width, width]; what is below it is unused.

    By column blocks, which is 5/8 of the whole product. (numpy's symmetric product would be
    another third faster, but in threads of its own that torch's setting does not govern.)
    """
    width = deviation.shape[1]
    step = -(-width // 4)
    product = deviation.new_zeros(width, width)
    for i in range(0, width, step):
        torch.mm(deviation[:, i : i + step].T, deviation[:, i:], out=product[i : i + step, i:])
    return product


def _mean_square(centered: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(centered, dim=1, keepdim=True)
    return norm.square_().div_(centered.shape[1])


def _inverse_rms(mean: Tensor, variance: Tensor) -> Tensor:
    mean_square = mean.square().add_(variance)
    return torch.where(mean_square > 0, torch.rsqrt(mean_square), 0.0)
