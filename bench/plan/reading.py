"""What a model reads to give so many tokens: windows, with padding, from its corpus. No torch."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from bench.plan.blocks import Block
from zoo.corpora import EndlessCorpus
from zoo.corpus import Corpus
from zoo.errors import BenchError
from zoo.finite import FiniteCorpus
from zoo.padding import grouped, pass_cost

# Letters of a token. Measured: 3.5 and 3.6 for all-minilm-l6-v2 on two corpora, 2.8 for the small
# vocabulary of tiny-gpt2.
_LETTERS = {"text": 3.6, "protein": 1.0}

# Positions of a window over its tokens where the corpus is not looked at: that is streamed, or not
# there. Measured on the embedded corpora, with all of a batch padded to its longest: 1.17 for
# tiny-gpt2, 1.42 for all-minilm-l6-v2, of which this is the mean, and 1.75 for tiny-esm2. Of cells:
# Genecorpus-104M is said to have 150 billion tokens in 104 million cells; a window has 4,096.
_PADDED = {"text": 1.3, "protein": 1.75, "cell": 2.8}

# Models whose windows begin and end with a token of their own.
_FRAMED = ("hf-masked", "esm2", "esm-package", "antiberty", "geneformer")

# Batches whose lengths are looked at, and the fewest windows.
_BATCHES, _WINDOWS = 8, 256


class Lengths(NamedTuple):
    """Of an average window of the corpus: tokens before any are left out, positions that the model
    passes for it, with padding to the longest that go through it together, and positions that each
    of these attends to: the mean over positions of how long their pass is."""

    tokens: float
    positions: float
    attended: float


@dataclass(frozen=True)
class Reading:
    """What the model reads: tokens that are measured, positions that it passes, windows, and pairs
    of positions of one window, which attend to each other."""

    tokens: float = 0.0
    positions: float = 0.0
    windows: float = 0.0
    position_pairs: float = 0.0

    def __add__(self, other: Reading) -> Reading:
        return Reading(
            self.tokens + other.tokens,
            self.positions + other.positions,
            self.windows + other.windows,
            self.position_pairs + other.position_pairs,
        )


def reading(block: Block, tokens: int, *, skips: bool = True, on_card: bool = False) -> Reading:
    """To get so many tokens: whole batches of windows, with padding and what the card skips.

    skips: whether tokens at the ends are left out where the card says so. on_card: whether the
    model runs on a graphics card, where a pass is worth more padding.
    """
    if not tokens:
        return Reading()
    card = block.card
    windows = max(1, block.protocol.forward_tokens // card.context)
    lengths = lengths_of(block, on_card=on_card)
    skipped = card.tokens.skip_first + card.tokens.skip_last if skips else 0
    batches = math.ceil(tokens / (windows * max(1.0, lengths.tokens - skipped)))
    positions = batches * windows * lengths.positions
    return Reading(tokens, positions, batches * windows, positions * lengths.attended)


def lengths_of(block: Block, *, on_card: bool = False) -> Lengths:
    """Of the windows of a block's corpus: of examples in it, where looking takes no time."""
    card, kind = block.card, block.card.kind
    if kind not in _PADDED:
        return Lengths(card.context, card.context, card.context)
    windows = max(1, block.protocol.forward_tokens // card.context)
    framed = 2 if card.adapter in _FRAMED else 0
    found: list[float] = []
    if isinstance(block.corpus, FiniteCorpus | EndlessCorpus):
        with suppress(BenchError):  # what cannot be read, a run says
            found = _looked_at(block.corpus, kind, card.context, framed, windows)
    found = found or _typical(card.context - framed, kind, windows)
    return _padded(found, framed, windows, pass_cost(card, on_card=on_card))


def _padded(lengths: list[float], framed: int, batch: int, cost: float) -> Lengths:
    """Of windows of so many tokens in batches, each in passes that a batch is best computed in."""
    positions = pairs = 0
    for start in range(0, len(lengths), batch):
        whole = [math.ceil(each) + framed for each in lengths[start : start + batch]]
        groups = grouped(whole, cost)
        for group in groups:
            longest = max(whole[number] for number in group)
            positions += len(group) * longest
            pairs += len(group) * longest**2
    return Lengths(sum(lengths) / len(lengths), positions / len(lengths), pairs / positions)


def _typical(room: int, kind: str, batch: int) -> list[float]:
    """Lengths up to a whole window's, whose mean is as much less as `_PADDED` says."""
    # Means of the slices of the curve room * x^(ratio - 1), whose mean is room / ratio.
    ratio = _PADDED[kind]
    ends = [(number / batch) ** ratio for number in range(batch + 1)]
    return [room * batch * (end - begin) / ratio for begin, end in itertools.pairwise(ends)]


@functools.lru_cache(maxsize=16)
def _looked_at(corpus: Corpus, kind: str, context: int, framed: int, batch: int) -> list[float]:
    """Tokens of the windows of the corpus's first examples, without those at their ends."""
    wanted = max(_WINDOWS, _BATCHES * batch)
    room = context - framed
    examples = (_tokens(example, kind, room) for example in corpus.examples(0))
    return list(itertools.islice(_windows(examples, room), wanted))


def _tokens(example: Any, kind: str, room: int) -> float:
    """Of an example. A cell is tokens already, and what of it has no room is left out."""
    return min(len(example), room) if kind == "cell" else len(str(example)) / _LETTERS[kind]


def _windows(examples: Iterable[float], room: int) -> Iterator[float]:
    """Tokens of the windows of examples of so many tokens, cut where there is no more room."""
    for tokens in examples:
        yield from itertools.repeat(room, int(tokens // room))
        if tokens % room:
            yield max(1.0, tokens % room)
