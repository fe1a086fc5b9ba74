"""How far the mean of a stream may be off by chance, where neighbours in it are alike.

Of N independent tokens the mean is off by ||sigma|| / sqrt(N), which makes gamma too large by
about 1 / (2 gamma N). Tokens of one sequence are not independent: the mean of a few sequences is
off by far more. So the error is taken from the means of blocks of consecutive tokens (batch means,
as of a Markov chain's average; Glynn and Whitt 1991): if the blocks differ, so would another file.
Blocks shorter than a sequence still understate it. They are joined, two and two, as long as five
are left, and the largest error counts: it stops to grow once a block holds a sequence.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bench.statistics.moments import Normalisation, normalise

# Twice as many blocks at most: then neighbours become one.
_BLOCKS = 16

# Fewer blocks tell too little of how much they differ.
_FEWEST = 5


class MeanError:
    """The squared error of the mean of tokens [*, width] after a per-token transform."""

    def __init__(self, width: int, transform: Normalisation = "raw") -> None:
        self._transform: Normalisation = transform
        self._size = 1  # tokens of a block
        self._sums = torch.zeros(0, width, dtype=torch.float64)
        self._open = torch.zeros(width, dtype=torch.float64)  # of the block that is not full
        self._filled = 0

    def update(self, x: Tensor) -> None:
        """Add tokens x [tokens, width], in the order of the stream."""
        rows = normalise(x.double(), self._transform).cpu()
        while len(rows):
            part = rows[: self._size - self._filled]
            rows = rows[len(part) :]
            self._open += part.sum(0)
            self._filled += len(part)
            if self._filled == self._size:
                self._close()

    def _close(self) -> None:
        self._sums = torch.cat([self._sums, self._open[None]])
        self._open, self._filled = torch.zeros_like(self._open), 0
        if len(self._sums) == 2 * _BLOCKS:
            self._sums = self._sums.view(_BLOCKS, 2, -1).sum(1)
            self._size *= 2

    def squared(self) -> float | None:
        """E ||mean - true mean||^2 from the full blocks; None of fewer than two of them."""
        sums, size = self._sums, self._size
        if len(sums) < 2:
            return None
        errors = [_squared(sums / size)]
        while len(sums) // 2 >= _FEWEST:
            sums, size = sums[: len(sums) // 2 * 2].view(len(sums) // 2, 2, -1).sum(1), 2 * size
            errors.append(_squared(sums / size))
        return max(errors)


def _squared(means: Tensor) -> float:
    """The squared error of the average of independent means [blocks, width]."""
    count = len(means)
    return float((means - means.mean(0)).square().sum()) / (count * (count - 1))


def without_chance(gamma: float, squared_error: float, variance: float) -> float:
    """gamma less what its mean is off by chance; 0 where that explains all of it.

    squared_error: of the mean. variance: summed over the dimensions.
    """
    return math.sqrt(max(0.0, gamma**2 - squared_error / variance))
