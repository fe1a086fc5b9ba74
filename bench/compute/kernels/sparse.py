"""Triton kernels of the sparse step: decode, and all gradients per feature in one pass.

Gradients are segment sums over pairs sorted by feature, without atomics: run to run the same bits.
Each pair's rows of the error and of the centered tokens are read once. A feature with many pairs is
cut into pieces, whose partial sums a second kernel adds up in order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from bench.compute.device import on_its_device

# Pairs that one program sums, at most.
_PIECE = 128

# Columns of a decoded row that one program computes.
_COLUMNS = 512


@triton.jit
def _decode(values, indices, W, out, k, d, COLUMNS: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < d
    total = tl.zeros([COLUMNS], dtype=tl.float32)
    for i in range(k):
        value = tl.load(values + token * k + i)
        feature = tl.load(indices + token * k + i).to(tl.int64)
        total += value * tl.load(W + feature * d + columns, mask=inside, other=0.0)
    tl.store(out + token * d + columns, total, mask=inside)


@on_its_device
def decode(values: Tensor, indices: Tensor, W_dec: Tensor) -> Tensor:
    """codes @ W_dec, float32 [tokens, d], of values and indices [tokens, k] and W_dec [n, d]."""
    tokens, k = values.shape
    d = W_dec.shape[1]
    out = torch.empty(tokens, d, dtype=torch.float32, device=values.device)
    if tokens:
        grid = (tokens, triton.cdiv(d, _COLUMNS))
        parts = (values.contiguous(), indices.contiguous(), W_dec.contiguous(), out)
        _decode[grid](*parts, k, d, COLUMNS=_COLUMNS)
    return out


@triton.jit
def _piece_sums(
    piece_feature,
    first_piece,
    pieces,
    first_slot,
    offsets,
    tokens,
    values,
    gates,
    W_dec,
    error,
    centered,
    by_encoder,
    by_bias,
    by_decoder,
    radial,
    activity,
    part_encoder,
    part_bias,
    part_decoder,
    part_activity,
    n,
    d,
    PIECE: tl.constexpr,
    WIDTH: tl.constexpr,
):
    piece = tl.program_id(0)
    feature = tl.load(piece_feature + piece).to(tl.int64)
    if feature < n:
        nth = piece - tl.load(first_piece + feature)
        begin = tl.load(offsets + feature) + nth * PIECE
        end = tl.minimum(begin + PIECE, tl.load(offsets + feature + 1))
        columns = tl.arange(0, WIDTH)
        inside = columns < d
        direction = tl.load(W_dec + feature * d + columns, mask=inside, other=0.0)
        encoder = tl.zeros([WIDTH], dtype=tl.float32)
        decoder = tl.zeros([WIDTH], dtype=tl.float32)
        bias = 0.0
        total = 0.0
        for pair in tl.range(begin, end, loop_unroll_factor=2):
            token = tl.load(tokens + pair).to(tl.int64)
            value = tl.load(values + pair)
            missed = tl.load(error + token * d + columns, mask=inside, other=0.0)
            slope = tl.sum(direction * missed, axis=0) * tl.load(gates + pair)
            decoder += value * missed
            encoder += slope * tl.load(centered + token * d + columns, mask=inside, other=0.0)
            bias += slope
            total += value
        if tl.load(pieces + feature) == 1:
            tl.store(by_encoder + feature * d + columns, encoder, mask=inside)
            tl.store(by_decoder + feature * d + columns, decoder, mask=inside)
            tl.store(by_bias + feature, bias)
            tl.store(activity + feature, total)
            tl.store(radial + feature, tl.sum(decoder * direction, axis=0))
        else:
            slot = tl.load(first_slot + feature) + nth
            tl.store(part_encoder + slot * d + columns, encoder, mask=inside)
            tl.store(part_decoder + slot * d + columns, decoder, mask=inside)
            tl.store(part_bias + slot, bias)
            tl.store(part_activity + slot, total)


@triton.jit
def _join_pieces(
    pieces,
    first_slot,
    W_dec,
    by_encoder,
    by_bias,
    by_decoder,
    radial,
    activity,
    part_encoder,
    part_bias,
    part_decoder,
    part_activity,
    d,
    WIDTH: tl.constexpr,
):
    feature = tl.program_id(0).to(tl.int64)
    count = tl.load(pieces + feature)
    if count > 1:
        columns = tl.arange(0, WIDTH)
        inside = columns < d
        encoder = tl.zeros([WIDTH], dtype=tl.float32)
        decoder = tl.zeros([WIDTH], dtype=tl.float32)
        bias = 0.0
        total = 0.0
        begin = tl.load(first_slot + feature)
        for slot in range(begin, begin + count):
            encoder += tl.load(part_encoder + slot * d + columns, mask=inside, other=0.0)
            decoder += tl.load(part_decoder + slot * d + columns, mask=inside, other=0.0)
            bias += tl.load(part_bias + slot)
            total += tl.load(part_activity + slot)
        direction = tl.load(W_dec + feature * d + columns, mask=inside, other=0.0)
        tl.store(by_encoder + feature * d + columns, encoder, mask=inside)
        tl.store(by_decoder + feature * d + columns, decoder, mask=inside)
        tl.store(by_bias + feature, bias)
        tl.store(activity + feature, total)
        tl.store(radial + feature, tl.sum(decoder * direction, axis=0))


@on_its_device
def feature_gradients(
    offsets: Tensor,
    tokens: Tensor,
    values: Tensor,
    gates: Tensor,
    W_dec: Tensor,
    error: Tensor,
    centered: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """By W_enc [n, d], b_enc [n], W_dec [n, d], and radial and activity [n], all float32.

    offsets: [n + 1], where each feature's pairs begin. tokens, values, gates: [pairs], sorted by
    feature; a gate of 0 keeps the gradient from the pre-activation. The rest as in
    `bench.sae.codes.SparsePairs.gradients`.
    """
    n, d = W_dec.shape
    pairs, device = len(tokens), values.device
    # Every feature has one piece at least, which writes its zeros.
    pieces = (offsets.diff() + (_PIECE - 1)).div(_PIECE, rounding_mode="floor").clamp_(min=1)
    last = pieces.cumsum(0)
    several = torch.where(pieces > 1, pieces, 0)
    first_slot = several.cumsum(0) - several
    # Sizes that hold whatever the pairs are: how many there are is not known on the host.
    most_pieces, slots = n + pairs // _PIECE, max(1, 2 * pairs // _PIECE)
    numbers = torch.arange(most_pieces, device=device)
    piece_feature = torch.searchsorted(last, numbers, right=True)
    matrix = {"dtype": torch.float32, "device": device}
    out = [torch.empty(shape, **matrix) for shape in ((n, d), (n,), (n, d), (n,), (n,))]  # type: ignore[call-overload]
    parts = [
        torch.empty(shape, **matrix)  # type: ignore[call-overload]
        for shape in ((slots, d), (slots,), (slots, d), (slots,))
    ]
    width = triton.next_power_of_2(d)
    W_dec, error, centered = W_dec.contiguous(), error.contiguous(), centered.contiguous()
    _piece_sums[(most_pieces,)](
        *(piece_feature, last - pieces, pieces, first_slot),
        *(offsets, tokens, values, gates, W_dec, error, centered, *out, *parts, n, d),
        PIECE=_PIECE,
        WIDTH=width,
    )
    _join_pieces[(n,)](*(pieces, first_slot, W_dec, *out, *parts, d), WIDTH=width)
    by_encoder, by_bias, by_decoder, radial, activity = out
    return by_encoder, by_bias, by_decoder, radial, activity
