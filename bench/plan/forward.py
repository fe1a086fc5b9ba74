"""What a model's passes read and compute: counted from its card and from its corpus. No torch.

A product of [a, b] and [b, c] takes 2abc operations, as in `bench.plan.work`.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from zoo.cards import KIND_OF_DOMAIN, Card
from zoo.corpora import EndlessCorpus
from zoo.corpus import Corpus
from zoo.finite import FiniteCorpus

if TYPE_CHECKING:
    from bench.plan.blocks import Block

# A transformer block holds 12 width^2 parameters (attention 4, a feed-forward of four times the
# width 8). A gated one of another width, as in Llama's successors, holds up to a half more; those
# of Enformer and Borzoi have a feed-forward of twice the width and narrow queries and keys.
_TRANSFORMER = 12
_TRANSFORMERS = {"enformer": 7, "borzoi": 7}

# Adapters of stacks of convolutions: their blocks hold all that the model does, and no attention.
_CONVOLUTIONS = ("spliceai", "openspliceai")


class _Stem(NamedTuple):
    """Convolutions over single bases before a trunk's blocks, which halve the positions again and
    again: one of 15 bases, then at each length one of five positions.

    first: channels of the first, as a share of the width. pointwise: convolutions of one position
    beside each.
    """

    first: float
    pointwise: int


_STEMS = {"enformer": _Stem(1 / 2, 2), "borzoi": _Stem(1 / 3, 0)}

# Bytes that the operations between a block's products read and write, for each position and
# dimension of its width in float32. Norms, biases, residual sums and an activation in one operation
# are 150 of them, an activation made of several (GPT-2, ESM-2) 200 more, rotations of positions
# 100; attention's rows and masks are the rest. Measured: 210 for all-minilm-l6-v2, 200 for
# tiny-dinov2, 415 for tiny-gpt2 and tiny-esm2, 310 for tiny-enformer. Of a convolution's channels:
# its norm, its activation and the sum after it; measured 70 for SpliceAI and Enformer's stem.
_BETWEEN, _BETWEEN_FUSED, _BETWEEN_CONVOLUTIONS = 400, 200, 70
_FUSED = ("hf-masked", "hf-vit", "hf-video", "timm-vit")

# Arrays [positions, width] that a block holds at once: its stream, queries, keys and values, four
# of its feed-forward and, where an activation is made of several operations or positions are
# rotated, as many again for each. Measured in a pass: 28 for a GPT-2 512 wide, of which 3 are its
# streams; ESM-2's attention adds its scores, which depend on how long its proteins are. Of a stem:
# 194 of Enformer's, whose longest is 64.
_HELD, _HELD_FUSED, _HELD_OF_STEM = 25, 10, 3

# Letters of a token. Measured: 3.5 and 3.6 for all-minilm-l6-v2 on two corpora, 2.8 for the small
# vocabulary of tiny-gpt2.
_LETTERS = {"text": 3.6, "protein": 1.0}

# Positions that a model passes for each token where the corpus is not looked at: that is streamed,
# or not there. Measured on the embedded corpora: 1.17 for tiny-gpt2, 1.42 for all-minilm-l6-v2, of
# which this is the mean, and 1.75 for tiny-esm2.
_PADDED = {"text": 1.3, "protein": 1.75}

# Models whose windows begin and end with a token of their own.
_FRAMED = ("hf-masked", "esm2", "esm-package", "antiberty")

# Batches whose lengths are looked at, and the fewest windows.
_BATCHES, _WINDOWS = 8, 256


class Lengths(NamedTuple):
    """Of an average window of the corpus: tokens before any are left out, and positions that the
    model passes for it, with padding to the longest of its batch."""

    tokens: float
    positions: float


@dataclass(frozen=True)
class Reading:
    """What the model reads: tokens that are measured, positions that it passes, and windows, each
    with that many positions."""

    tokens: float = 0.0
    positions: float = 0.0
    windows: float = 0.0

    def __add__(self, other: Reading) -> Reading:
        return Reading(
            self.tokens + other.tokens,
            self.positions + other.positions,
            self.windows + other.windows,
        )


def reading(block: Block, tokens: int, *, skips: bool = True) -> Reading:
    """To get so many tokens: whole batches of windows, with padding and what the card skips.

    skips: whether tokens at the ends are left out where the card says so.
    """
    if not tokens:
        return Reading()
    card = block.card
    windows = max(1, block.protocol.forward_tokens // card.context)
    lengths = lengths_of(block)
    skipped = card.tokens.skip_first + card.tokens.skip_last if skips else 0
    batches = math.ceil(tokens / (windows * max(1.0, lengths.tokens - skipped)))
    return Reading(tokens, batches * windows * lengths.positions, batches * windows)


def lengths_of(block: Block) -> Lengths:
    """Of the windows of a block's corpus: of examples in it, where looking takes no time."""
    card, kind = block.card, KIND_OF_DOMAIN[block.card.domain]
    windows = max(1, block.protocol.forward_tokens // card.context)
    looked_at = isinstance(block.corpus, FiniteCorpus | EndlessCorpus)
    if kind not in _LETTERS:
        return Lengths(card.context, card.context)
    if block.corpus is None or not looked_at:
        return Lengths(card.context / _PADDED[kind], card.context)
    framed = 2 if card.adapter in _FRAMED else 0
    return _looked_at(block.corpus, kind, card.context, framed, windows)


@functools.lru_cache(maxsize=16)
def _looked_at(corpus: Corpus, kind: str, context: int, framed: int, batch: int) -> Lengths:
    wanted = max(_WINDOWS, _BATCHES * batch)
    examples = (len(str(example)) / _LETTERS[kind] for example in corpus.examples(0))
    found = list(itertools.islice(_windows(examples, context - framed), wanted))
    batches = [found[start : start + batch] for start in range(0, len(found), batch)]
    positions = sum(len(each) * (max(each) + framed) for each in batches)
    return Lengths(sum(found) / len(found), positions / len(found))


def _windows(examples: Iterable[float], room: int) -> Iterator[float]:
    """Tokens of the windows of examples of so many tokens, cut where there is no more room."""
    for tokens in examples:
        yield from itertools.repeat(room, int(tokens // room))
        if tokens % room:
            yield max(1.0, tokens % room)


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
    return max(inside, _HELD_OF_STEM * stem / card.tap.width)


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
    dimension = _BETWEEN_FUSED if card.adapter in _FUSED else _BETWEEN
    if card.adapter in _CONVOLUTIONS:
        dimension = _BETWEEN_CONVOLUTIONS
    stem = sum(length * channels for length, channels, _ in _stem(card))
    return dimension * card.tap.width * depth + _BETWEEN_CONVOLUTIONS * stem
