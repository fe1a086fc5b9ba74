"""Pre-activations of a sample, with bounds on their errors: what makes censuses exact.

There are several ways to a product on a CUDA device. All are right, as each has a bound of its own
and what that leaves open is evaluated in float64; the fastest is found by trying each on the first
tokens of a sample, once for each size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import Literal, TypeVar

import torch
from torch import Tensor

from bench.compute.kernels import usable
from bench.compute.out_of_memory import is_out_of_memory, release_memory
from bench.compute.parts import (
    left_parts,
    product_of_parts,
    right_parts,
    slack_of_parts,
    why_no_parts,
)
from bench.compute.row_shards import current_shard, maximum, most_rows, whole
from bench.compute.timing import fastest
from bench.statistics.moments import check_finite

# How products are taken: in float32; the same by the encoder's kernel, which has the maxima of
# groups beside them; of parts in bfloat16.
Way = Literal["float32", "encoder", "parts"]

# Float32 elements of a chunk's pre-activations: within a processor's cache; large on a GPU.
_CPU_CHUNK_ELEMENTS = 1 << 22
_GPU_CHUNK_ELEMENTS = 1 << 28

# Float64 elements at once of the pairs that are evaluated again.
_PAIR_ELEMENTS = 1 << 26

# Norms between these have squares that float32 holds, those of their parts too.
_LEAST_NORM, _LARGEST_NORM = 1e-12, 1e18

# Elements of rows whose norms are taken at once.
_NORM_ELEMENTS = 1 << 24

# Tokens that the ways are tried on, at most.
_TRIED_TOKENS = 8192

_fastest: dict[tuple[object, ...], Way] = {}

_Found = TypeVar("_Found")


class Products:
    """The sample, the dictionary, and pre-activations with bounds on their errors.

    x: tokens [N, d]. W: [n, d]. bias: [n]. k, counts, chunk: as in `census`. way: to the products,
    of those of `ways`; float32 if it is not said.

    Raises:
        ValueError: shapes do not fit, k is not between 1 and n, or W holds NaN or inf.
    """

    def __init__(
        self,
        x: Tensor,
        W: Tensor,
        bias: Tensor | None,
        k: int,
        counts: bool,
        chunk: int | None,
        way: Way = "float32",
    ) -> None:
        n, d = W.shape
        if x.ndim != 2 or x.shape[1] != d:
            raise ValueError(f"x has shape {tuple(x.shape)}, W has {tuple(W.shape)}")
        if not 1 <= k <= whole(n):
            raise ValueError(f"k must be between 1 and n = {whole(n)}, not {k}")
        if bias is not None and bias.shape != (n,):
            raise ValueError(f"a bias has shape {tuple(bias.shape)}, not ({n},)")
        double = torch.float64 in (x.dtype, W.dtype)
        if way != "float32" and (double or current_shard() is not None):
            raise ValueError(f"products by {way} are of float32, and of a whole dictionary")
        self.dtype = torch.float64 if double else torch.float32
        self.x, self.k, self.counting, self.way = x.detach(), k, counts, way
        self.W = W.detach().to(x.device, self.dtype)
        self.bias = None if bias is None else bias.detach().to(x.device, torch.float64)
        self.n, self.d = n, d
        self.widest = float(maximum(_norms(self.W).max()))
        self._largest_bias = 0.0 if self.bias is None else float(maximum(self.bias.abs().max()))
        if not self.widest < float("inf"):
            raise ValueError("the dictionary holds NaN or inf")
        on_cpu = x.device.type == "cpu"
        self.elements = _CPU_CHUNK_ELEMENTS if on_cpu else _GPU_CHUNK_ELEMENTS
        self.chunk = chunk or max(1, self.elements // most_rows(n))
        self.unit = torch.finfo(self.dtype).eps / 2
        slack = (d + 8) * self.unit
        self._slack = slack_of_parts(d) if way == "parts" else slack / (1 - slack)
        self._slack *= 1 + slack  # norms are rounded too
        # What is smaller than any normal number may be taken as 0: of each factor and each term.
        self._least = 4 * d * torch.finfo(self.dtype).tiny * (1 + self.widest)
        self._rows = right_parts(self.W) if way == "parts" else self.W

    @cached_property
    def _buffer(self) -> Tensor:
        """One for all chunks: fresh pages would cost as much as the top-k."""
        return self.x.new_empty((min(self.chunk, len(self.x)), self.n), dtype=self.dtype)

    def tokens(self, start: int, size: int) -> Tensor:
        """The tokens from `start` on, [size, d] or fewer. Raises BadActivations on NaN or inf."""
        x = self.x[start : start + size].to(self.dtype)
        if not bool(torch.isfinite(x.sum())):
            check_finite(x, start)
        return x

    def every(self, x: Tensor) -> Tensor:
        """Pre-activations [c, n] of a chunk [c, d], good until the next call."""
        return self._biased(self._product(x, self._rows, self._buffer[: len(x)]), slice(None))

    def with_maxima(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The same, and the maxima of groups of features where the kernel has them."""
        if self.way != "encoder":
            return self.every(x), None
        from bench.compute.kernels import encode

        bias = self.W.new_zeros(self.n) if self.bias is None else self.bias.to(self.dtype)
        return encode.product_and_maxima(x, self.W, bias)

    def some(self, x: Tensor, features: Tensor | slice) -> Tensor:
        """Pre-activations of x [c, d], any number of tokens, for some features."""
        return self._biased(self._product(x, self._rows[features]), features)

    def _product(self, x: Tensor, rows: Tensor, out: Tensor | None = None) -> Tensor:
        if self.way == "parts":
            return product_of_parts(left_parts(x), rows, out)
        return torch.mm(x, rows.T, out=out)

    def _biased(self, pre: Tensor, features: Tensor | slice) -> Tensor:
        return pre if self.bias is None else pre.add_(self.bias[features].to(pre.dtype))

    def error(self, x: Tensor) -> Tensor:
        """A bound [tokens] on |computed - exact| of a pre-activation, with room for later sums."""
        bound = _norms(x) * (self.widest * self._slack) + self._least
        if self.bias is not None:
            bound += 8 * self.unit * self._largest_bias
        return bound.to(self.dtype)

    def exact(self, x: Tensor, row: Tensor, feature: Tensor) -> Tensor:
        """Float64 pre-activations of the pairs (x[row[i]], feature[i]), [pairs]."""
        if usable("pairs", x.device):
            from bench.compute.kernels import pairs

            values = pairs.pair_products(x, self.W, row, feature)
        else:
            values = self._exact(x, row, feature)
        return values if self.bias is None else values.add_(self.bias[feature])

    def _exact(self, x: Tensor, row: Tensor, feature: Tensor) -> Tensor:
        step = max(1, min(self.elements, _PAIR_ELEMENTS) // self.d)
        values = torch.empty(len(row), dtype=torch.float64, device=x.device)
        for i in range(0, len(row), step):
            pairs = slice(i, i + step)
            tokens, weights = x[row[pairs]].double(), self.W[feature[pairs]].double()
            torch.sum(tokens.mul_(weights), dim=1, out=values[pairs])
        return values


def _norms(x: Tensor) -> Tensor:
    """Of the rows, float64 [rows]."""
    norms = torch.linalg.vector_norm(x, dim=1)
    least, largest = norms.aminmax()
    if x.dtype == torch.float64 or bool((least > _LEAST_NORM) & (largest < _LARGEST_NORM)):
        return norms.double()
    # Squares vanish in float32, or overflow.
    parts = x.split(max(1, _NORM_ELEMENTS // x.shape[1]))
    return torch.cat([torch.linalg.vector_norm(part, dim=1, dtype=torch.float64) for part in parts])


def ways(x: Tensor, W: Tensor) -> list[Way]:
    """The ways to the products of a sample x and a dictionary W, the surest first."""
    found: list[Way] = ["float32"]
    # Several processes compare what they found by one bound, so they would have to agree.
    if torch.float64 in (x.dtype, W.dtype) or current_shard() is not None:
        return found
    if usable("encoder", x.device):
        found.append("encoder")
    if why_no_parts(x.device) is None:
        found.append("parts")
    return found


def by_the_fastest(
    run: Callable[[Tensor, Way], _Found], x: Tensor, W: Tensor, *kind: object
) -> _Found:
    """A census of the sample x [N, d] in the way that is the fastest on its first tokens; in
    float32 where memory is too short for that one.

    run: takes a census of some tokens in a way. kind: what else its time depends on, but for the
    sizes of x and of W [n, d], and their device.
    """
    possible = ways(x, W)
    if len(possible) == 1:
        return run(x, possible[0])
    key = (*kind, tuple(W.shape), min(len(x), _TRIED_TOKENS), x.device, tuple(possible))
    if key not in _fastest:
        runs = {way: partial(run, x[:_TRIED_TOKENS], way) for way in possible}
        fitting = {way: trial for way, trial in runs.items() if way == "float32" or _fits(trial)}
        _fastest[key] = fastest(fitting, x.device) if len(fitting) > 1 else "float32"
    if _fastest[key] == "float32":
        return run(x, "float32")
    found: list[_Found] = []
    if _fits(lambda: found.append(run(x, _fastest[key]))):
        return found[0]
    # What else the device holds may have grown since it was tried.
    _fastest[key] = "float32"
    return run(x, "float32")


def _fits(trial: Callable[[], object]) -> bool:
    """Whether there is enough memory for it; what it took is free again if not."""
    try:
        trial()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    else:
        return True
    # Not before the error is gone, which holds what was computed.
    release_memory()
    return False
