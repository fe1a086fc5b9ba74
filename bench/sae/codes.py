"""Codes, and the gradients that flow through them: as pairs (token, feature), or as an array.

Only pairs with a code carry gradient. The sparse way sorts the pairs by feature once and sums both
weight gradients over segments; the dense way uses matrix products on the codes as a [tokens, n]
array. Both compute the same and differ in rounding, as do the kernels of a CUDA device.

On a device nothing here makes the host wait: every shape follows from those of the arguments. Where
that costs a CPU time, it has a way of its own.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from bench.compute.ahead import host_runs_ahead
from bench.compute.kernels import usable
from bench.compute.precision import product

StepMethod = Literal["sparse", "dense", "kernels"]

# Elements gathered at once for products of pairs on a device: a gigabyte in float32.
_GATHERED_ELEMENTS = 2**28


class Codes(NamedTuple):
    """The selected features of each token: values and indices, both [tokens, k].

    A selected feature with value 0 (fewer than k positive pre-activations) has not fired.
    """

    values: Tensor
    indices: Tensor

    @classmethod
    def joined(cls, parts: list[Codes]) -> Codes:
        """The codes of consecutive groups of tokens as one."""
        if len(parts) == 1:
            return parts[0]
        values, indices = zip(*parts, strict=True)
        return cls(torch.cat(values), torch.cat(indices))

    def decode(self, W_dec: Tensor) -> Tensor:
        """codes @ W_dec, [tokens, d]."""
        return embedding_bag(self.indices, W_dec, per_sample_weights=self.values, mode="sum")

    def firings(self, n: int) -> Tensor:
        """On how many tokens each feature's code is > 0, int64 [n]."""
        # Not bincount of the fired: its size would make a device wait.
        fired = (self.values > 0).to(torch.int64).view(-1)
        return fired.new_zeros(n).scatter_add_(0, self.indices.view(-1), fired)


class DenseCodes(NamedTuple):
    """Codes where their number differs from token to token: values >= 0 [tokens, n]."""

    values: Tensor

    def decode(self, W_dec: Tensor) -> Tensor:
        """As in `Codes`."""
        return self.values @ W_dec

    def firings(self, n: int) -> Tensor:
        """As in `Codes`."""
        return (self.values > 0).sum(0)


class FeatureGradients(NamedTuple):
    """Gradients per feature, and two inner products that come cheaply with them.

    W_enc, W_dec: [n, d]. b_enc: [n]. radial: [n], each row of the W_dec gradient times its row of
    W_dec. activity: [n], the sum of the feature's codes.
    """

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    radial: Tensor
    activity: Tensor

    def part(self, i: int, parts: int) -> FeatureGradients:
        """The i-th of equal parts of the features, not copied."""
        return FeatureGradients(*(tensor.tensor_split(parts)[i] for tensor in self))


class SparsePairs:
    """Codes as (token, feature) pairs, for the gradients sorted by feature.

    Every token's pairs are beside each other: pair i is of token i // k.
    """

    def __init__(self, codes: Codes, n: int) -> None:
        self.codes = codes
        self.n = n

    def decode(self, W_dec: Tensor) -> Tensor:
        """codes @ W_dec [n, d], [tokens, d]."""
        return self.codes.decode(W_dec)

    def gradients(
        self, W_dec: Tensor, error: Tensor, centered: Tensor, gate: bool | Tensor
    ) -> FeatureGradients:
        """The gradients of a loss through the codes and through the decoder.

        W_dec: [n, d]. error: [tokens, d], the loss's gradient by y_hat. centered: y - b
        [tokens, d]. gate: let the gradient pass only where the code is > 0, or, of a gate given as
        bool in the shape of the codes, where that is true.
        """
        pairs = _by_feature(self.codes.indices, self.n)
        order, offsets = pairs.order, pairs.offsets
        tokens = self.tokens(order)
        # index_select, as plain indexing takes several times as long.
        values = self.codes.values.view(-1).index_select(0, order)
        slopes = _pair_products(pairs, tokens, W_dec, error)
        if isinstance(gate, Tensor):
            slopes *= gate.view(-1).index_select(0, order)
        elif gate:
            slopes *= values > 0
        return FeatureGradients(
            _row_sums(tokens, offsets, centered, slopes),
            _sums(slopes, offsets),
            _row_sums(tokens, offsets, error, values),
            _sums(values * slopes, offsets),
            _sums(values, offsets),
        )

    def tokens(self, order: Tensor) -> Tensor:
        """The tokens, int64 [pairs], of the pairs at the positions `order`."""
        return order // self.codes.indices.shape[1]


class KernelPairs(SparsePairs):
    """The same by Triton kernels, those of them that the device has."""

    def decode(self, W_dec: Tensor) -> Tensor:
        if not usable("decode", W_dec.device):
            return super().decode(W_dec)
        from bench.compute.kernels import sparse

        return sparse.decode(*self.codes, W_dec)

    def gradients(
        self, W_dec: Tensor, error: Tensor, centered: Tensor, gate: bool | Tensor
    ) -> FeatureGradients:
        if not usable("gradients", W_dec.device):
            return super().gradients(W_dec, error, centered, gate)
        from bench.compute.kernels import sparse

        pairs = _by_feature(self.codes.indices, self.n)
        values = self.codes.values.view(-1).index_select(0, pairs.order)
        if isinstance(gate, Tensor):
            gates = gate.view(-1).index_select(0, pairs.order)
        else:
            gates = values > 0 if gate else torch.ones_like(values)
        sorted_pairs = pairs.offsets, self.tokens(pairs.order), values, gates.to(values.dtype)
        found = sparse.feature_gradients(*sorted_pairs, W_dec, error, centered)
        return FeatureGradients(*found)


class RaggedPairs(SparsePairs):
    """The same where tokens differ in their number of codes.

    values, tokens, features: [pairs], ordered by token. shape: tokens and features there are.
    """

    def __init__(
        self, values: Tensor, tokens: Tensor, features: Tensor, shape: tuple[int, int]
    ) -> None:
        super().__init__(Codes(values, features), shape[1])
        self._tokens = tokens
        self._starts = _starts(tokens, shape[0])

    @classmethod
    def under(cls, pre: Tensor, mask: Tensor) -> RaggedPairs:
        """Of the pre-activations [tokens, n] under a mask, where they are > 0."""
        tokens, features = mask.nonzero(as_tuple=True)
        return cls(pre[mask], tokens, features, (pre.shape[0], pre.shape[1]))

    @classmethod
    def at(cls, values: Tensor, places: Tensor, shape: tuple[int, int]) -> RaggedPairs:
        """Of values [pairs] >= 0 at the places [pairs] of a flattened array [tokens, n]."""
        places, order = places.sort()
        return cls(values.index_select(0, order), places // shape[1], places % shape[1], shape)

    def decode(self, W_dec: Tensor) -> Tensor:
        return _row_sums(self.codes.indices, self._starts, W_dec, self.codes.values)

    def tokens(self, order: Tensor) -> Tensor:
        return self._tokens.index_select(0, order)


class ArrayPairs:
    """The same from an array of codes >= 0, [tokens, n]."""

    def __init__(self, array: Tensor) -> None:
        self.array = array

    def decode(self, W_dec: Tensor) -> Tensor:
        return product(self.array, W_dec)

    def gradients(
        self, W_dec: Tensor, error: Tensor, centered: Tensor, gate: bool | Tensor
    ) -> FeatureGradients:
        """As in `SparsePairs`."""
        slopes = product(error, W_dec.T)
        if gate:
            slopes = self.by_pre(slopes)
        return _array_features(self.array, slopes, W_dec, error, centered)

    def by_pre(self, slopes: Tensor) -> Tensor:
        """The gradient by the pre-activations of the gradient by the codes, which it may use up."""
        return slopes.mul_(self.array > 0)


class DensePairs:
    """Codes as an array [tokens, n], made of pairs."""

    def __init__(self, codes: Codes, n: int) -> None:
        self.codes = codes
        self.array = codes.values.new_zeros(len(codes.values), n)
        self.array.scatter_(1, codes.indices, codes.values)

    def decode(self, W_dec: Tensor) -> Tensor:
        return product(self.array, W_dec)

    def gradients(
        self, W_dec: Tensor, error: Tensor, centered: Tensor, gate: bool | Tensor
    ) -> FeatureGradients:
        """As in `SparsePairs`."""
        values, indices = self.codes
        slopes = product(error, W_dec.T).gather(1, indices)
        if isinstance(gate, Tensor):
            slopes *= gate
        elif gate:
            slopes *= values > 0
        spread = torch.zeros_like(self.array).scatter_(1, indices, slopes)
        return _array_features(self.array, spread, W_dec, error, centered)


PAIRS: dict[str, type[SparsePairs | DensePairs]] = {
    "sparse": SparsePairs,
    "dense": DensePairs,
    "kernels": KernelPairs,
}


def _array_features(
    codes: Tensor, slopes: Tensor, W_dec: Tensor, error: Tensor, centered: Tensor
) -> FeatureGradients:
    """Gradients per feature of codes [tokens, n] whose gradient by the pre-activation is slopes."""
    by_decoder = product(codes.T, error)
    radial = torch.linalg.vecdot(by_decoder, W_dec)
    return FeatureGradients(
        product(slopes.T, centered), slopes.sum(0), by_decoder, radial, codes.sum(0)
    )


class _ByFeature(NamedTuple):
    """Pairs sorted by feature.

    order: [pairs], their positions. offsets: [n + 1], where each feature begins. features: [pairs],
    sorted; only on a device, where they are used.
    """

    order: Tensor
    offsets: Tensor
    features: Tensor | None = None


def _by_feature(indices: Tensor, n: int) -> _ByFeature:
    flat = indices.view(-1)
    if host_runs_ahead(flat):
        # Not bincount: its size would make the device wait.
        features, order = torch.sort(flat.to(torch.int32), stable=True)
        return _ByFeature(order, _starts(features, n), features)
    if n <= 2**15:
        # numpy sorts 16-bit keys by radix, torch compares.
        order = torch.from_numpy(np.argsort(flat.to(torch.int16).numpy(), kind="stable"))
    else:
        order = torch.argsort(flat.to(torch.int32), stable=True)
    offsets = torch.zeros(n + 1, dtype=torch.int64)
    torch.cumsum(torch.bincount(flat, minlength=n), 0, out=offsets[1:])
    return _ByFeature(order, offsets)


def _starts(keys: Tensor, n: int) -> Tensor:
    """Where each of the keys 0 to n - 1 begins in sorted keys [pairs], and their end: [n + 1]."""
    return torch.searchsorted(keys, torch.arange(n + 1, dtype=keys.dtype, device=keys.device))


def _pair_products(pairs: _ByFeature, tokens: Tensor, W: Tensor, rows: Tensor) -> Tensor:
    """<W[f], rows[t]> for the tokens t of each feature f in turn, [pairs]."""
    if pairs.features is not None:
        return _gathered_products(pairs.features, tokens, W, rows)
    _silence_sparse_csr()
    zeros = rows.new_zeros(len(tokens))
    size = (len(W), len(rows))
    pattern = torch.sparse_csr_tensor(pairs.offsets, tokens, zeros, size, check_invariants=False)
    products: Tensor = torch.sparse.sampled_addmm(pattern, W, rows.T, beta=0.0)
    return products.values()


def _gathered_products(features: Tensor, tokens: Tensor, W: Tensor, rows: Tensor) -> Tensor:
    """<W[f], rows[t]> of pairs of features and tokens, [pairs]."""
    step = max(1, _GATHERED_ELEMENTS // W.shape[1])
    parts = [
        torch.linalg.vecdot(W.index_select(0, f), rows.index_select(0, t))
        for f, t in zip(features.split(step), tokens.split(step), strict=True)
    ]
    return torch.cat(parts)


@cache
def _silence_sparse_csr() -> None:
    """Take torch's once-per-process warnings: of a layout in beta, and of invariants unchecked."""
    nothing = torch.zeros(1, dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.sparse_csr_tensor(
            nothing, nothing[1:], torch.zeros(0), (0, 1), check_invariants=False
        )


def _row_sums(tokens: Tensor, offsets: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """Sums of weights * rows[tokens] over the segments that begin at `offsets`, [n, d]."""
    return embedding_bag(
        tokens,
        rows,
        offsets=offsets,
        per_sample_weights=weights,
        mode="sum",
        include_last_offset=True,
    )


def _sums(values: Tensor, offsets: Tensor) -> Tensor:
    """Sums of values [pairs] over the segments that begin at `offsets`, [n]."""
    return torch.segment_reduce(values, "sum", offsets=offsets, axis=0, unsafe=True)
