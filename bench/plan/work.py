"""What a block computes: floating-point operations and bytes, counted from its sizes. No torch.

A product of [a, b] and [b, c] takes 2abc operations, as torch's `FlopCounterMode` counts. Where a
number follows from the data (how many features are dead), it is assumed here, with the reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

from bench.plan.blocks import Block
from bench.plan.protocol import Protocol
from bench.sae.arms import PRESETS, Arm, parse_arm
from bench.sae.families import FAMILIES
from zoo.cards import KIND_OF_DOMAIN, Card

StepPath = Literal["sparse", "dense"]

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

# Positions that a model passes for each token, where a batch's sequences are padded to its longest.
# Measured on the embedded corpora, which are not sorted by length: 1.17 for tiny-gpt2 and 1.42 for
# all-minilm-l6-v2, of which this is the mean, and 1.75 for tiny-esm2.
_PADDED = {"text": 1.3, "protein": 1.75}

# Tokens that a sample is drawn out of, for each of its own (`bench.activations.stream`).
_SPREAD = 4

# Bytes that an update reads and writes for each weight: fused Adam 28, and the gradient written,
# its norm, its part along the decoder's rows, and their unit norm.
_UPDATE = 48

# Passes over the gathered rows of all pairs: decode, products of pairs (two rows each), and both
# gradients.
_GATHERS = 5

# Passes over arrays [batch, width] in a step: of the transform, the error and the bias.
_BATCH_PASSES = 8

# What is done around a step, as a share of one that is hardly there: batches, clocks, looks.
_AROUND = 0.25

# Passes over an array [batch, n] in a dense step, beside its products. Measured on a CPU.
_PASSES = {"topk": 4, "batchtopk": 6, "matryoshka": 12, "relu": 12, "jumprelu": 26}
_PASSES_OF_OTHERS = 12

# To select among all of a batch at once takes so many times as long as row by row. Measured.
_WHOLE_BATCH = 6

# Dead features that a loss on them is on, as a share of n: of arms without a center, where the
# layers of the paper die, and of others.
_DEAD, _DEAD_CENTERED = 0.5, 0.1

# Products [batch, dead] x [dead, width] of a loss on the dead, where it is dense.
_DEAD_PRODUCTS = {"auxk": 4, "auxk-relu": 4, "ghost": 5, "pre-act": 1}

# As they are where they act, which imports torch: of `bench.sae.dead_features.auxk`,
# `bench.runner.stepping` and `bench.sae.untrained`.
_AUX_DENSE_BELOW, _BANK_BELOW, _FOLLOWED = 10, 1 << 18, 4
_MOST_IN_A_BANK, _FEATURES_OF_A_BANK = 8, 1 << 15

# Tokens that the census of a dictionary without dead features ends after, or one chunk: of so many
# pre-activations.
_ALIVE_AFTER, _CHUNK = 2048, 1 << 22

# Random directions on which a layer's reach is measured (`bench.death.prediction`).
_DIRECTIONS = 512

# Passes over the tokens that a geometric median takes.
_MEDIAN = 40


@dataclass(frozen=True)
class Work:
    """What is computed, by what bounds its time; each has a rate on a device.

    forward: operations of the model's products; between: bytes read and written between them.
    products: operations of the SAEs' products in the protocol's precision; exact: those that are
    float32 in any case. moved: bytes of weights, moments and arrays read and written. gathered:
    bytes of rows picked by index. searched: pre-activations that codes are selected among, in so
    many rows. starts: of a training step's operations. tokens, windows: read from the corpus.
    loaded: bytes of weights. layers, blocks: for what is done once for each.
    """

    forward: float = 0.0
    between: float = 0.0
    products: float = 0.0
    exact: float = 0.0
    moved: float = 0.0
    gathered: float = 0.0
    searched: float = 0.0
    rows: float = 0.0
    starts: float = 0.0
    tokens: float = 0.0
    windows: float = 0.0
    loaded: float = 0.0
    layers: float = 0.0
    blocks: float = 0.0

    def __add__(self, other: Work) -> Work:
        names = (field.name for field in fields(self))
        return Work(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def times(self, number: float) -> Work:
        """So many times as much."""
        return Work(**{each.name: number * getattr(self, each.name) for each in fields(self)})

    @property
    def sae_flops(self) -> float:
        """Operations of the SAEs' products, and of those that measure them."""
        return self.products + self.exact


# ------------------------------------------------------------------------------------- the model


@dataclass(frozen=True)
class Reading:
    """What the model reads: tokens that are measured, positions that it passes, and windows."""

    tokens: float
    positions: float
    windows: float

    def __add__(self, other: Reading) -> Reading:
        return Reading(
            self.tokens + other.tokens,
            self.positions + other.positions,
            self.windows + other.windows,
        )


def reading(card: Card, protocol: Protocol, tokens: int, *, skips: bool = True) -> Reading:
    """To get so many tokens: whole batches of windows, with padding and what the card skips.

    skips: whether tokens at the ends are left out where the card says so.
    """
    if not tokens:
        return Reading(0, 0, 0)
    context = card.context
    skipped = card.tokens.skip_first + card.tokens.skip_last if skips else 0
    padded = _PADDED.get(KIND_OF_DOMAIN[card.domain], 1.0)
    windows = max(1, protocol.forward_tokens // context)
    measured = windows * max(1.0, context / padded - skipped)
    batches = math.ceil(tokens / measured)
    return Reading(tokens, batches * windows * context, batches * windows)


def samples_read(block: Block) -> Reading:
    """What is evaluated and fitted on, each drawn out of more; and, where a model has special
    tokens or the card skips some, what the sample is like with them or without."""
    card, protocol = block.card, block.protocol
    found = reading(card, protocol, _SPREAD * block.tokens)
    found += reading(card, protocol, _SPREAD * block.fit_tokens)
    if card.parameters:
        found += reading(card, protocol, _SPREAD * block.tokens, skips=False)
    return found


def training_read(block: Block) -> Reading:
    """What is trained on."""
    return reading(block.card, block.protocol, training_rows(block))


def loaded_bytes(block: Block) -> float:
    """Of the weights of the blocks that are read, in float32 as most are stored."""
    return 4.0 * block.card.parameters * block.depth / block.card.tap.layers


def training_rows(block: Block) -> int:
    """Rows that a block's training takes out of the stream: the buffer and its refills."""
    if not block.steps:
        return 0
    protocol = block.protocol
    per_cycle = protocol.buffer // 2 // protocol.batch
    return protocol.buffer + (block.steps - 1) // per_cycle * per_cycle * protocol.batch


def cache_bytes(block: Block) -> int:
    """Bytes that the cache of a block takes on disk."""
    rows = block.tokens + block.fit_tokens + training_rows(block)
    return 4 * block.card.tap.width * rows * len(block.layers)


def forward_flops(card: Card, depth: int) -> float:
    """Operations per position of the first `depth` blocks, and of convolutions before them: 2 for
    each parameter, and attention over windows of the card's context."""
    if not card.parameters:
        return 0.0
    width, share = card.tap.width, card.parameters / card.tap.layers
    if card.adapter in _CONVOLUTIONS:
        return depth * 2 * share
    held = _TRANSFORMERS.get(card.adapter, _TRANSFORMER) * width**2
    before = sum(length * operations for length, _, operations in _stem(card))
    before += 2 * _patch_parameters(card)
    return depth * (2 * min(held, share) + 4 * width * card.context) + before


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


def forward_work(block: Block, read: Reading) -> Work:
    """The model's passes over what is read."""
    card = block.card
    size = 4 if block.protocol.dtype == "float32" else 2
    return Work(
        forward=forward_flops(card, block.depth) * read.positions,
        between=between_bytes(card, block.depth) * size / 4 * read.positions,
        tokens=read.tokens,
        windows=read.windows,
    )


# -------------------------------------------------------------------------------------- the SAEs


def step_work(protocol: Protocol, width: int, path: StepPath) -> Work:
    """One training step of one SAE, without a loss on dead features."""
    batch, n, k = protocol.batch, protocol.n, protocol.k
    common = encode_work(protocol, width, batch)
    common += Work(
        moved=_UPDATE * 2 * n * width,
        between=_BATCH_PASSES * 8 * batch * width,
        starts=1 + _AROUND,
    )
    if path == "sparse":
        return common + Work(gathered=_GATHERS * 4 * batch * k * width)
    arrays = _PASSES.get(protocol.family, _PASSES_OF_OTHERS) * 8 * batch * n
    return common + Work(products=8 * batch * n * width, moved=arrays)


def encode_work(protocol: Protocol, width: int, tokens: int) -> Work:
    """The codes of so many tokens."""
    product = Work(products=2 * tokens * protocol.n * width, moved=8 * tokens * protocol.n)
    return product + _selection(protocol, tokens)


def _selection(protocol: Protocol, tokens: int) -> Work:
    """To find so many tokens' codes among their pre-activations."""
    family = FAMILIES[protocol.family]
    if family.dense:
        return Work()
    if "threshold_rate" in family.keys:
        return Work(searched=_WHOLE_BATCH * tokens * protocol.n)
    return Work(searched=tokens * protocol.n, rows=tokens)


def dead_work(protocol: Protocol, width: int, arm: Arm) -> Work:
    """What a loss on dead features adds to a step while it is on."""
    batch, products = protocol.batch, _DEAD_PRODUCTS.get(arm.aux)
    if products is None:
        return Work()
    dead = (_DEAD if arm.center == "none" else _DEAD_CENTERED) * protocol.n
    taken = Work(moved=8 * batch * dead, starts=0.5)
    dense = Work(products=products * 2 * batch * dead * width, moved=3 * 8 * batch * dead)
    if not arm.aux.startswith("auxk"):
        return taken + dense
    aux_k = min(protocol.aux_k, dead)
    selected = Work(searched=batch * dead, rows=batch)
    if protocol.family != "topk" or dead < _AUX_DENSE_BELOW * aux_k:
        return taken + selected + dense
    return taken + selected + Work(gathered=_GATHERS * 4 * batch * aux_k * width)


def census_work(protocol: Protocol, width: int, tokens: int, arm: Arm, *, counts: bool) -> Work:
    """One census; where all are alive and nothing is counted, it ends early."""
    if not counts and arm.center != "none":
        tokens = min(tokens, max(_ALIVE_AFTER, _CHUNK // protocol.n))
    exact = Work(exact=2 * tokens * protocol.n * width, moved=3 * 8 * tokens * protocol.n)
    return exact + _selection(protocol, tokens)


def layer_work(block: Block) -> Work:
    """A layer's statistics and what is predicted of it; the medians that its arms are fitted on."""
    width, tokens = block.card.tap.width, block.tokens
    arms = {parse_arm(spec.arm) for spec in block.specs}
    medians = len({arm.norm for arm in arms}) * _MEDIAN * 4 * block.fit_tokens * width
    exact = 4 * tokens * width**2 + 2 * _DIRECTIONS * tokens * width
    return Work(exact=exact, moved=medians, layers=1)


def training_work(block: Block, arm: Arm, path: StepPath) -> Work:
    """The steps of one SAE, and the censuses on the way."""
    protocol, width, steps = block.protocol, block.card.tap.width, block.steps
    if not steps:
        return Work()
    waits = min(steps, -(-protocol.dead_after // protocol.batch))
    training = step_work(protocol, width, path).times(steps)
    training += dead_work(protocol, width, arm).times(steps - waits)
    if path == "sparse" and protocol.family == "topk" and protocol.n * width < _BANK_BELOW:
        # A bank begins half of the operations once for all of its SAEs.
        alike = sum(parse_arm(spec.arm).aux == arm.aux for spec in block.specs)
        bank = max(1, min(alike, _MOST_IN_A_BANK, _FEATURES_OF_A_BANK // protocol.n))
        training += Work(starts=-steps * (1 - 1 / bank) / 2)
    ways = len([step for step in protocol.census_steps() if step < steps])
    return training + census_work(protocol, width, block.tokens, arm, counts=False).times(ways)


def last_work(block: Block, arm: Arm) -> Work:
    """The census at the end, and the quality, of one SAE."""
    protocol, width = block.protocol, block.card.tap.width
    last = census_work(protocol, width, block.tokens, arm, counts=True)
    return last + (encode_work(protocol, width, block.tokens) if block.steps else Work())


def born_work(block: Block) -> Work:
    """Censuses at birth, which the arms of one layer and seed share."""
    protocol, width = block.protocol, block.card.tap.width
    born = {parse_arm(spec.arm).born for spec in block.specs}
    work = Work()
    for arm in born | {arm.born for arm in PRESETS.values()}:
        work += census_work(protocol, width, block.tokens, arm, counts=False)
    return work


def followed_work(block: Block) -> Work:
    """The untrained dictionaries that are followed over the first steps of training, of one layer
    and seed; those of arms with a center have no dead features, and are not."""
    protocol, width = block.protocol, block.card.tap.width
    arms = {parse_arm(spec.arm) for spec in block.specs}
    dying = {(arm.born, arm.tokens) for arm in arms if arm.center == "none"}
    followed = min(block.steps, _FOLLOWED * -(-block.tokens // protocol.batch))
    looked = encode_work(protocol, width, protocol.batch) + Work(starts=0.25)
    return looked.times(followed * len(dying))


@dataclass(frozen=True)
class BlockWork:
    """A block's work by when it is done: before the training, in it, and after it."""

    before: Work
    training: Work
    after: Work

    @property
    def whole(self) -> Work:
        """All of it."""
        return self.before + self.training + self.after


def work_of(block: Block, path: StepPath) -> BlockWork:
    """Everything that a block does, with steps of that path."""
    arms = [parse_arm(spec.arm) for spec in block.specs]
    pairs = len({(spec.layer, spec.seed) for spec in block.specs})
    before = forward_work(block, samples_read(block)) + Work(blocks=1, loaded=loaded_bytes(block))
    before += layer_work(block).times(len(block.layers)) + born_work(block).times(pairs)
    training = forward_work(block, training_read(block)) + followed_work(block).times(pairs)
    after = Work()
    for arm in arms:
        training += training_work(block, arm, path)
        after += last_work(block, arm)
    return BlockWork(before, training, after)
