"""What a model's passes compute and hold: counted from its card. No torch.

A product of [a, b] and [b, c] takes 2abc operations, as in `bench.plan.work`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from zoo.cards import Card

# A transformer block holds 12 width^2 parameters (attention 4, a feed-forward of four times the
# width 8). A gated one of another width, as in Llama's successors, holds up to a half more; those
# of Enformer and Borzoi have a feed-forward of twice the width and narrow queries and keys;
# AlphaGenome's keys and values are of one head. What it does with pairs of bins is not counted:
# they are pairs of 16 bins each.
_TRANSFORMER = 12
_TRANSFORMERS = {"enformer": 7, "borzoi": 7, "alphagenome": 6}

# Adapters of stacks of convolutions: their blocks hold all that the model does, and no attention.
_CONVOLUTIONS = ("spliceai", "openspliceai")


class _Stem(NamedTuple):
    """Convolutions over single bases before a trunk's blocks, which halve the positions again and
    again: one of 15 bases, then at each length one of five positions.

    first: channels of the first, as a share of the width. pointwise: convolutions of one position
    beside each, or what else multiplies so much.
    """

    first: float
    pointwise: int


_STEMS = {"enformer": _Stem(1 / 2, 2), "borzoi": _Stem(1 / 3, 0), "alphagenome": _Stem(1 / 2, 5)}

# Bytes that the operations between a block's products read and write, for each position and
# dimension of its width in float32. Norms, biases, residual sums and an activation in one operation
# are 150 of them, an activation made of several (GPT-2, ESM-2) 200 more, rotations of positions
# 100; attention's rows and masks are the rest. Measured: 210 for all-minilm-l6-v2, 200 for
# tiny-dinov2, 415 for tiny-gpt2 and tiny-esm2, 310 for tiny-enformer. Of a convolution's channels:
# its norm, its activation and the sum after it; measured 70 for SpliceAI and Enformer's stem.
COMPOSED, _FUSED_BYTES, _BETWEEN_CONVOLUTIONS = 400, 200, 70
_FUSED = ("hf-masked", "hf-vit", "hf-video", "timm-vit")

# Arrays [positions, width] that a block holds at once: its stream, queries, keys and values, four
# of its feed-forward and, where an activation is made of several operations or positions are
# rotated, as many again for each. Measured in a pass: 28 for a GPT-2 512 wide, of which 3 are its
# streams; ESM-2's attention adds its scores, which depend on how long its proteins are. Of a stem:
# 194 of Enformer's, whose longest is 64.
_HELD, _HELD_FUSED, _HELD_OF_STEM = 25, 10, 3


# Families whose attention writes its scores [heads, positions, positions], and their heads; None of
# those of ESM-2, which has 20, and twice as many from 2560 dimensions on.
_HEADS = {"esm2": None, "esm-package": None, "progen2": 16, "enformer": 8, "borzoi": 8}

# Copies of the scores at once: these and what softmax makes of them; with positions that are
# relative to each other, what these add too, twice as wide before it is shifted.
_SCORES, _SCORES_RELATIVE = 2, 4


def forward_flops(card: Card, depth: int, positions: float | None = None) -> float:
    """Operations per position of the first `depth` blocks, and of convolutions before them: 2 for
    each parameter, and attention over windows of so many positions, or of the card's context."""
    if not card.parameters:
        return 0.0
    width, share = card.tap.width, card.parameters / card.tap.layers
    if card.adapter in _CONVOLUTIONS:
        return depth * 2 * share
    held = _TRANSFORMERS.get(card.adapter, _TRANSFORMER) * width**2
    before = sum(length * operations for length, _, operations in _stem(card))
    before += 2 * _patch_parameters(card)
    return depth * (2 * min(held, share) + 4 * width * (positions or card.context)) + before


def _stem(card: Card) -> list[tuple[int, float, float]]:
    """Of the convolutions before a trunk's blocks, from the longest: positions for each bin,
    channels, and operations for each position."""
    stem = _STEMS.get(card.adapter)
    if stem is None:
        return []
    halvings = int(math.log2(card.options.get("bases", 128 * card.context) / card.context))
    first = stem.first * card.tap.width
    growth = (1 / stem.first) ** (1 / max(1, halvings - 1))
    found = [(2**halvings, first, 2 * (15 * 4 * first + stem.pointwise * first**2))]
    before = first
    for number in range(1, halvings):
        # Enformer's grows from the second of these on.
        channels = first * growth**number if number > 1 or not stem.pointwise else first
        operations = 2 * (5 * before * channels + stem.pointwise * channels**2)
        found.append((2 ** (halvings - number), channels, operations))
        before = channels
    return found


def arrays_inside(card: Card) -> float:
    """What the model holds at once within a pass, in arrays of a float for each position and
    dimension of its width. Of a stem, whose first convolutions are over single bases, that is its
    longest array with what is made of it."""
    if not card.parameters:
        return 0.0
    stem = max((length * channels for length, channels, _ in _stem(card)), default=0.0)
    inside = _HELD_FUSED if card.adapter in (*_FUSED, *_CONVOLUTIONS) else _HELD
    return max(inside + _scores(card), _HELD_OF_STEM * stem / card.tap.width)


def _scores(card: Card) -> float:
    """Of attention that writes them, of windows as long as the card's context, as an array."""
    if card.adapter not in _HEADS:
        return 0.0
    heads = _HEADS[card.adapter] or (40 if card.tap.width >= 2560 else 20)
    copies = _SCORES_RELATIVE if card.adapter in _STEMS else _SCORES
    return copies * heads * card.context / card.tap.width


def _patch_parameters(card: Card) -> float:
    """Of a vision transformer, what is before the blocks, but the embeddings of positions."""
    if card.domain != "vision" or card.adapter == "sd3":
        return 0.0
    width, context = card.tap.width, card.context
    left = card.parameters - card.tap.layers * _TRANSFORMER * width**2 - context * width
    return min(max(0.0, left), 3 * 16**2 * width)


def between_bytes(card: Card, depth: int) -> float:
    """Bytes in float32 that operations between the products of a position read and write."""
    if not card.parameters:
        return 0.0
    dimension = _FUSED_BYTES if card.adapter in _FUSED else COMPOSED
    if card.adapter in _CONVOLUTIONS:
        dimension = _BETWEEN_CONVOLUTIONS
    stem = sum(length * channels for length, channels, _ in _stem(card))
    return dimension * card.tap.width * depth + _BETWEEN_CONVOLUTIONS * stem
