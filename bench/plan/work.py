"""What a block computes: floating-point operations and bytes, counted from its sizes. No torch.

What a model reads is counted in `bench.plan.reading`, what it computes in `bench.plan.forward`;
here, what is done with it.

A product of [a, b] and [b, c] takes 2abc operations, as torch's `FlopCounterMode` counts. Where a
number follows from the data (how many features are dead), it is assumed here, with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from bench.death.theory import predicted_dead, predicted_relu
from bench.plan.blocks import Block
from bench.plan.forward import between_bytes, forward_flops
from bench.plan.protocol import Protocol
from bench.plan.reading import Reading, reading
from bench.sae.arms import PRESETS, Arm, parse_arm
from bench.sae.families import FAMILIES
from zoo.cards import Card

StepPath = Literal["sparse", "dense"]

# Tokens that a sample is drawn out of, for each of its own (`bench.activations.stream`).
_SPREAD = 4

# Bytes that an update reads and writes for each weight: fused Adam 28, and the gradient written,
# its norm, its part along the decoder's rows, and their unit norm.
_UPDATE = 48

# Passes over the gathered rows of all pairs: decode, products of pairs, and both gradients, less
# what is still in a cache. Measured on a CPU, beside what a pair takes.
_GATHERS = 3

# Passes over arrays [batch, width] in a step: of the transform, the error and the bias.
_BATCH_PASSES = 8

# What is done around a step, as a share of one that is hardly there: batches, clocks, looks.
_AROUND = 0.25

# Passes over an array [batch, n] in a dense step, beside its products. Measured on a CPU.
_PASSES = {"topk": 4, "batchtopk": 6, "matryoshka": 12, "relu": 12, "jumprelu": 26}
_PASSES_OF_OTHERS = 12

# Bytes of an array [batch, n] that what is above one threshold is picked from, in a sparse step:
# compared, the places that are true found, and found again to pick the values.
_PICKED = 24

# Bytes of an array [tokens, n] of codes that differ in number from token to token: masked, compared
# with 0 and counted; and of those alone that are selected in a batch.
_CODES, _FIRINGS = 72, 36

# Bytes of pre-activations [tokens, n] that a census by thresholds compares with 0 and with the
# threshold: each time a margin, a distance, its size, two comparisons, a count, and what is open.
_COMPARED = 2 * 40

# A census by rank ranks what it kept of each row once more.
_RANKED_TWICE = 2

# Dead features that a loss on them is on, as a share of n, where nothing says how severe outliers
# are: of arms without a center, where the layers of the paper die, and of others.
_DEAD, _DEAD_CENTERED = 0.5, 0.1

# Of a loss on the dead, where it is dense: products [batch, dead] x [dead, width], and passes over
# arrays [batch, dead]; an exponential, as ghost gradients take it, is as long as three.
_DEAD_PRODUCTS = {"auxk": 4, "auxk-relu": 4, "ghost": 5, "pre-act": 1}
_DEAD_PASSES = {"auxk": 4, "auxk-relu": 4, "ghost": 11, "pre-act": 6}

# Operations that it begins, as a share of a step's: of a sparse one of topk, which begins 79.
_DEAD_STARTS = {"auxk": 0.7, "auxk-relu": 0.7, "ghost": 0.6, "pre-act": 0.3}

# Bytes of each weight of the dead that such a loss reads and writes: their decoder rows copied, and
# both gradients written, and added to those of all.
_DEAD_ROWS = 40

# As they are where they act, which imports torch: of `bench.sae.dead_features.auxk`,
# `bench.runner.stepping` and `bench.sae.untrained`.
_AUX_DENSE_BELOW, _BANK_BELOW, _FOLLOWED = 10, 1 << 18, 4
_MOST_IN_A_BANK, _FEATURES_OF_A_BANK = 8, 1 << 15

# What a bank begins, over what one SAE by itself does. Measured for 2 to 8.
BEGINS = 1.4

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
    elementwise: bytes that elementwise operations of the SAEs read and write.
    products: operations of the SAEs' products in the protocol's precision; exact: those that are
    float32 in any case. moved: bytes of weights, moments and arrays read and written. gathered:
    bytes of rows picked by index, by so many pairs of a token and a feature. searched:
    pre-activations that codes are selected among, in so many rows; uneven: the same in rows of any
    length, as of the dead features; ranked: pre-activations that codes are selected among over a
    whole batch. starts: of a training step's operations; together: steps of SAEs that step beside
    others, as a share of what one of endlessly many small ones saves by it. tokens, windows: read
    from the corpus. loaded: bytes of weights. layers, blocks: for what is done once for each.
    """

    forward: float = 0.0
    between: float = 0.0
    elementwise: float = 0.0
    products: float = 0.0
    exact: float = 0.0
    moved: float = 0.0
    gathered: float = 0.0
    pairs: float = 0.0
    searched: float = 0.0
    uneven: float = 0.0
    rows: float = 0.0
    ranked: float = 0.0
    starts: float = 0.0
    together: float = 0.0
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


def samples_read(block: Block, *, on_card: bool = False) -> Reading:
    """What is evaluated and fitted on, each drawn out of more; and, where a model has special
    tokens or the card skips some, what the sample is like with them or without."""
    found = reading(block, _SPREAD * block.tokens, on_card=on_card)
    found += reading(block, _SPREAD * block.fit_tokens, on_card=on_card)
    if block.card.parameters:
        found += reading(block, _SPREAD * block.tokens, skips=False, on_card=on_card)
    return found


def training_read(block: Block, *, on_card: bool = False) -> Reading:
    """What is trained on."""
    return reading(block, training_rows(block), on_card=on_card)


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


def forward_work(block: Block, read: Reading) -> Work:
    """The model's passes over what is read."""
    card = block.card
    size = 4 if block.protocol.dtype == "float32" else 2
    long = read.position_pairs / max(1.0, read.positions)
    return Work(
        forward=forward_flops(card, block.depth, long) * read.positions,
        between=between_bytes(card, block.depth) * size / 4 * read.positions,
        tokens=read.tokens,
        windows=read.windows,
    )


# -------------------------------------------------------------------------------------- the SAEs


def step_work(protocol: Protocol, width: int, path: StepPath) -> Work:
    """One training step of one SAE, without a loss on dead features."""
    batch, n, k = protocol.batch, protocol.n, protocol.k
    common = _pre_activations(protocol, width, batch) + _selection(protocol, batch)
    common += Work(
        moved=_UPDATE * 2 * n * width,
        elementwise=_BATCH_PASSES * 8 * batch * width,
        starts=1 + _AROUND,
    )
    if path == "sparse":
        picked = _PICKED * batch * n if _by_threshold(protocol) else 0
        return common + _pairs_work(batch * k, width) + Work(elementwise=picked)
    arrays = _PASSES.get(protocol.family, _PASSES_OF_OTHERS) * 8 * batch * n
    return common + Work(products=8 * batch * n * width, moved=arrays)


def _pairs_work(pairs: float, width: int) -> Work:
    """To decode pairs of a token and a feature, and the gradients that flow through them."""
    return Work(gathered=_GATHERS * 4 * pairs * width, pairs=pairs)


def _by_threshold(protocol: Protocol) -> bool:
    """Whether codes are what is above a threshold, and differ in number from token to token."""
    family = FAMILIES[protocol.family]
    return family.dense or "threshold_rate" in family.keys


def _pre_activations(protocol: Protocol, width: int, tokens: int) -> Work:
    return Work(products=2 * tokens * protocol.n * width, moved=8 * tokens * protocol.n)


def _selection(protocol: Protocol, tokens: int) -> Work:
    """To find a training batch's codes among its pre-activations."""
    if FAMILIES[protocol.family].dense:
        return Work()
    if _by_threshold(protocol):
        return Work(ranked=tokens * protocol.n)
    return Work(searched=tokens * protocol.n, rows=tokens)


def firings_work(protocol: Protocol, width: int, tokens: int) -> Work:
    """On how many tokens of a training batch each feature fires."""
    counted = (
        Work(elementwise=_FIRINGS * tokens * protocol.n) if _by_threshold(protocol) else Work()
    )
    return _pre_activations(protocol, width, tokens) + _selection(protocol, tokens) + counted


def quality_work(protocol: Protocol, width: int, tokens: int) -> Work:
    """To encode so many tokens, decode them, and count their codes."""
    n, encoded = protocol.n, _pre_activations(protocol, width, tokens)
    if _by_threshold(protocol):
        return encoded + Work(products=2 * tokens * n * width, elementwise=_CODES * tokens * n)
    decoded = Work(gathered=4 * tokens * protocol.k * width)
    return encoded + _selection(protocol, tokens) + decoded


def dead_share(card: Card, protocol: Protocol, arm: Arm, tokens: int) -> float:
    """Of an untrained dictionary's features those that do not fire on so many tokens: in closed
    form where made activations state their gamma, else what is assumed."""
    gamma = card.options.get("gamma") if card.adapter == "synthetic" else None
    if gamma is None:
        return _DEAD if arm.center == "none" else _DEAD_CENTERED
    if arm.center != "none" or not gamma > 0:
        return 0.0
    if FAMILIES[protocol.family].dense:
        return predicted_relu(gamma, max(2, tokens))
    return predicted_dead(gamma, max(2, tokens), protocol.k, protocol.n)


def dead_work(
    protocol: Protocol, width: int, arm: Arm, path: StepPath, share: float, *, masked: bool = False
) -> Work:
    """What a loss on dead features adds to a step while it is on.

    share: of the features that are dead. masked: whether they are left out by a mask, as on a
    device: what is computed is as large as with all of them.
    """
    batch, products = protocol.batch, _DEAD_PRODUCTS.get(arm.aux)
    dead = protocol.n if masked else share * protocol.n
    if products is None or not dead:
        return Work()
    taken = Work(moved=8 * batch * dead + _DEAD_ROWS * dead * width, starts=_DEAD_STARTS[arm.aux])
    passes = _DEAD_PASSES[arm.aux]
    dense = Work(products=products * 2 * batch * dead * width, moved=passes * 8 * batch * dead)
    if not arm.aux.startswith("auxk"):
        return taken + dense
    aux_k = min(protocol.aux_k, dead)
    selected = Work(uneven=batch * dead, rows=batch)
    if path == "dense" or (not masked and dead < _AUX_DENSE_BELOW * aux_k):
        return taken + selected + dense
    return taken + selected + _pairs_work(batch * aux_k, width)


def census_work(
    protocol: Protocol, width: int, tokens: int, share: float, *, counts: bool, ends: bool
) -> Work:
    """One census.

    share: of the features that are dead. counts: whether firings are counted. ends: whether it may
    end early, as all features are alive.
    """
    chunk = min(tokens, max(_ALIVE_AFTER, _CHUNK // protocol.n))
    pairs = float(tokens * protocol.n)
    if ends and not counts:
        tokens, pairs = chunk, float(chunk * protocol.n)
    if _by_threshold(protocol):
        if not counts:
            # What has fired is left out of the chunks after.
            pairs = protocol.n * (chunk + share * (tokens - chunk))
        return Work(exact=2 * pairs * width, moved=8 * pairs, elementwise=_COMPARED * pairs)
    found = Work(searched=pairs, rows=_RANKED_TWICE * tokens)
    return found + Work(exact=2 * pairs * width, moved=3 * 8 * pairs)


def layer_work(block: Block) -> Work:
    """A layer's statistics and what is predicted of it; the medians that its arms are fitted on."""
    width, tokens = block.card.tap.width, block.tokens
    arms = {parse_arm(spec.arm) for spec in block.specs}
    medians = len({arm.norm for arm in arms}) * _MEDIAN * 4 * block.fit_tokens * width
    exact = 4 * tokens * width**2 + 2 * _DIRECTIONS * tokens * width
    return Work(exact=exact, moved=medians, layers=1)


def training_work(block: Block, arm: Arm, path: StepPath, *, masked: bool = False) -> Work:
    """The steps of one SAE, and the censuses on the way. masked: as in `dead_work`."""
    protocol, width, steps = block.protocol, block.card.tap.width, block.steps
    if not steps:
        return Work()
    waits = min(steps, -(-protocol.dead_after // protocol.batch))
    training = step_work(protocol, width, path).times(steps)
    dead = dead_share(block.card, protocol, arm, protocol.dead_after)
    added = dead_work(protocol, width, arm, path, dead, masked=masked)
    training += added.times(steps - waits)
    if path == "sparse" and protocol.family == "topk" and protocol.n * width < _BANK_BELOW:
        # Operations begin once for a bank; the larger its SAEs, the less of their time that is.
        alike = sum(parse_arm(spec.arm).aux == arm.aux for spec in block.specs)
        bank = max(1, min(alike, _MOST_IN_A_BANK, _FEATURES_OF_A_BANK // protocol.n))
        small = 1 - protocol.n * width / _BANK_BELOW
        training += Work(together=steps * small * max(0.0, 1 - BEGINS / bank))
    ways = len([step for step in protocol.census_steps() if step < steps])
    return training + _census(block, arm).times(ways)


def last_work(block: Block, arm: Arm) -> Work:
    """The census at the end, and the quality, of one SAE."""
    protocol, width = block.protocol, block.card.tap.width
    last = _census(block, arm, counts=True)
    return last + (quality_work(protocol, width, block.tokens) if block.steps else Work())


def _census(block: Block, arm: Arm, *, counts: bool = False) -> Work:
    """One census of an SAE of that arm; where all are alive and nothing is counted, it ends
    early."""
    protocol, width, tokens = block.protocol, block.card.tap.width, block.tokens
    share, ends = dead_share(block.card, protocol, arm, tokens), arm.center != "none"
    return census_work(protocol, width, tokens, share, counts=counts, ends=ends)


def born_work(block: Block) -> Work:
    """Censuses at birth, which the arms of one layer and seed share."""
    protocol, width = block.protocol, block.card.tap.width
    born = {parse_arm(spec.arm).born for spec in block.specs}
    work = Work()
    for arm in born | {arm.born for arm in PRESETS.values()}:
        work += _census(block, arm)
        if _by_threshold(protocol) and not FAMILIES[protocol.family].dense:
            # The threshold at birth is what the sample gives.
            work += _pre_activations(protocol, width, block.tokens)
            work += _selection(protocol, block.tokens)
    return work


def followed_work(block: Block) -> Work:
    """The untrained dictionaries that are followed over the first steps of training, of one layer
    and seed; those of arms with a center have no dead features, and are not."""
    protocol, width = block.protocol, block.card.tap.width
    arms = {parse_arm(spec.arm) for spec in block.specs}
    dying = {(arm.born, arm.tokens) for arm in arms if arm.center == "none"}
    followed = min(block.steps, _FOLLOWED * -(-block.tokens // protocol.batch))
    looked = firings_work(protocol, width, protocol.batch) + Work(starts=0.25)
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


def work_of(block: Block, path: StepPath, *, on_card: bool = False) -> BlockWork:
    """Everything that a block does, with steps of that path, on a CPU or on a graphics card."""
    arms = [parse_arm(spec.arm) for spec in block.specs]
    pairs = len({(spec.layer, spec.seed) for spec in block.specs})
    before = forward_work(block, samples_read(block, on_card=on_card))
    before += Work(blocks=1, loaded=loaded_bytes(block))
    before += layer_work(block).times(len(block.layers)) + born_work(block).times(pairs)
    training = forward_work(block, training_read(block, on_card=on_card))
    training += followed_work(block).times(pairs)
    after = Work()
    for arm in arms:
        training += training_work(block, arm, path, masked=on_card)
        after += last_work(block, arm)
    return BlockWork(before, training, after)
