"""How much memory a block takes: what `bench plan` announces, and what decides how layers group.

What lasts is counted exactly; what comes and goes is bounded by the largest of it, as only one
thing is done at a time: a training step, a census, a layer's statistics. Measured against blocks in
processes of their own by `ci/bench_memory.py`. Bytes throughout; no torch.
"""

from __future__ import annotations

from bench.plan.forward import arrays_inside
from bench.plan.protocol import Protocol
from bench.sae.arms import Arm, parse_arm
from bench.sae.families import FAMILIES
from bench.sae.recipe import Recipe
from zoo.cards import Card

_MIB = 1 << 20

# The interpreter with torch, numpy and scipy loaded; and the library that builds a model, as
# transformers, with what it imports.
PROCESS, LIBRARY = 310 * _MIB, 110 * _MIB

# Adapters of activations that exist already, and of models that need torch alone.
_WITHOUT_LIBRARY = ("array", "synthetic", "spliceai", "openspliceai")

# Freed memory that is kept for the next step (`bench.compute.heap`), beyond what a step takes.
_KEPT = 16 * _MIB

# Freed memory in pieces that the next phase of a step does not fit in, at most; of a small step no
# more than it takes.
_FRAGMENTS = 64 * _MIB

# A chunk of pre-activations (`_CHUNK`) that a census works on, and what selects among them.
_SELECTION = 96 * _MIB

# The same on a graphics card: elements of a chunk, and bytes for each of them where most features
# are dead; and bytes that the parts of products take (`bench.compute.parts`), of each weight of the
# encoder and of each number of a chunk's tokens.
_CARD_CHUNK, _CARD_SELECTION, _PARTS = 2**28, 9, 10

# Arrays [batch, width] that a step holds at once: inputs, centered ones, errors; and two more that
# a loss on dead features fits: the residual and what it missed.
_BATCH_COPIES, _DEAD_BATCH_COPIES = 3, 2

# Float64 [width, width] that a layer's statistics and prediction hold at once: two covariances, and
# what a factor or a spectrum is computed in.
_SQUARES = 6

# Arrays [batch, dead features] that a loss on these holds at once, where it is dense.
_DEAD_ARRAYS = 2.1

# Bytes of a code as it is selected, and where codes are sorted by feature for the sparse path.
_CODE, _SORTED_CODE = 12, 40

# AuxK takes the sparse path where more features are dead than so many times `aux_k`
# (`bench.sae.dead_features.auxk`).
_AUX_DENSE_BELOW = 10

# Pre-activations that topk selects among at once (`bench.sae.gradients`), and with them what it
# sorts them in.
_CHUNK, _FEWEST_ROWS = 2**22, 64
_SELECTING = 2

# Streams that are kept of a forward pass, in copies of one layer's.
_FORWARD_COPIES = 3


def block_memory(
    card: Card,
    protocol: Protocol,
    *,
    depth: int,
    tokens: int,
    layers: int,
    cells: int,
    on_card: bool = False,
) -> int:
    """Peak of a block of `cells` SAEs over `layers` layers of a model that is loaded up to `depth`
    blocks, with a sample of `tokens` each; every arm has as many of them.

    on_card: on a graphics card a bank holds the gradients of all its SAEs at once, which elsewhere
    follow each other (`bench.sae.bank`).
    """
    transforms = [transform_memory(card.tap.width, parse_arm(name)) for name in protocol.arms]
    return (
        PROCESS
        + (0 if card.adapter in _WITHOUT_LIBRARY else LIBRARY)
        + model_memory(card, protocol, depth)
        + layers * layer_memory(card, protocol, tokens)
        + cells * sae_memory(protocol, card.tap.width)
        + cells * sum(transforms) // len(transforms)
        + (gradient_memory(protocol, card.tap.width, cells) if on_card else 0)
        + scratch_memory(card, protocol, tokens, on_card=on_card)
    )


def shared_memory(
    card: Card,
    protocol: Protocol,
    *,
    depth: int,
    tokens: int,
    processes: int,
    layers: int = 1,
    cells: int = 1,
) -> int:
    """Peak of each of so many processes that divide the rows of a block's dictionaries."""
    part = protocol.model_copy(update={"n": -(-protocol.n // processes)})
    return block_memory(card, part, depth=depth, tokens=tokens, layers=layers, cells=cells)


def model_memory(card: Card, protocol: Protocol, depth: int) -> int:
    """The first `depth` blocks' weights, and what is before them, in the protocol's dtype.

    A block is taken to hold 12 width^2 parameters, as a transformer's does, and all blocks at most
    70 % of the model: what is left out is rather underestimated.
    """
    block = min(12 * card.tap.width**2, 0.7 * card.parameters / card.tap.layers)
    loaded = card.parameters - int((card.tap.layers - depth) * block)
    return (4 if protocol.dtype == "float32" else 2) * loaded


def layer_memory(card: Card, protocol: Protocol, tokens: int) -> int:
    """What a layer holds: its evaluation sample, its buffer, the last forward pass.

    The tokens that its transforms are fitted on are gone before the buffer is filled. On the device
    or on the host: `bench plan` counts both alike.
    """
    buffer = (4 if protocol.buffer_dtype == "float32" else 2) * protocol.buffer
    passing = max(buffer + 4 * protocol.forward_tokens, 4 * fitted_tokens(protocol, tokens))
    return card.tap.width * (4 * tokens + passing)


def fitted_tokens(protocol: Protocol, tokens: int) -> int:
    """Tokens that transforms are fitted on, where the sample has `tokens`."""
    return tokens if protocol.fit_tokens is None else protocol.fit_tokens


def sae_memory(recipe: Recipe, width: int) -> int:
    """What an SAE in training holds: two matrices, Adam's two moments of each, and the encoder as
    it was born (`bench.sae.untrained`)."""
    return 28 * recipe.n * width


def gradient_memory(recipe: Recipe, width: int, cells: int) -> int:
    """Gradients of both matrices that a bank of so many SAEs holds beside those of one, which are
    counted in its step."""
    banked = recipe.family == "topk"
    return 8 * recipe.n * width * max(0, cells - 1) if banked else 0


def training_memory(recipe: Recipe, width: int, arm: Arm) -> int:
    """What an SAE of that arm takes by itself: what it holds, and its step."""
    held = sae_memory(recipe, width) + transform_memory(width, arm)
    return held + step_memory(recipe, width, arm)


def transform_memory(width: int, arm: Arm) -> int:
    """Of an SAE whose inputs are whitened: a matrix [width, width] and its inverse."""
    return 8 * width**2 if arm.norm in ("whiten", "zca") else 0


def scratch_memory(card: Card, protocol: Protocol, tokens: int, *, on_card: bool = False) -> int:
    """The largest of what comes and goes: in a forward pass, a step, a census, the statistics."""
    row = 4 * card.tap.width
    passed = max(protocol.forward_tokens, card.context)
    forward = int((_FORWARD_COPIES + arrays_inside(card)) * row * passed)
    arms = [parse_arm(name) for name in protocol.arms]
    step = max(step_memory(protocol, card.tap.width, arm) for arm in arms)
    census = 2 * row * max(tokens, fitted_tokens(protocol, tokens))
    statistics = _SQUARES * 8 * card.tap.width**2
    looked_at = max(tokens, fitted_tokens(protocol, tokens)) * protocol.n
    selection = int(_SELECTION * min(1.0, looked_at / _CHUNK))
    if on_card:
        selection = max(selection, _CARD_SELECTION * min(looked_at, _CARD_CHUNK))
        chunk = min(looked_at, _CARD_CHUNK) // protocol.n
        census += _PARTS * (protocol.n + chunk) * card.tap.width
    return max(step + min(step, _FRAGMENTS), _KEPT + selection + max(forward, census, statistics))


def step_memory(recipe: Recipe, width: int, arm: Arm) -> int:
    """The largest of what a step does in turn: it selects codes, has a loss on dead features, and
    computes gradients. Dead features are counted as where they take most.

    `tests/bench/plan/test_memory.py` compares it with what torch allocates.
    """
    spec, copies = FAMILIES[recipe.family], 4 * recipe.batch * width
    array, matrix = 4 * recipe.batch * recipe.n, 4 * recipe.n * width
    # The sparse step of topk has no arrays, but the path `auto` tries the dense one too.
    codes = _SORTED_CODE * recipe.batch * recipe.k if _sparse(recipe) else spec.step_arrays * array
    if arm.aux == "resample":  # while the gradients are still there, the batch is encoded again
        codes = max(codes, _DEAD_BATCH_COPIES * copies)
    selection, dead, gradients = _selection(recipe, arm), 0.0, 2 * matrix + codes
    if arm.aux not in ("none", "resample"):
        dead, gradients = _dead_loss(recipe, width, arm), gradients + 2 * matrix
    nested = spec.prefix_copies * int(getattr(recipe, "prefixes", None) or 0) * copies
    return int(_BATCH_COPIES * copies + max(selection, nested / 2 + dead, nested + gradients))


def _sparse(recipe: Recipe) -> bool:
    return recipe.path == "sparse" and "sparse" in FAMILIES[recipe.family].paths


def _selection(recipe: Recipe, arm: Arm) -> float:
    """Where codes are selected; the pre-activations of dead features are kept for some losses."""
    spec, batch, n = FAMILIES[recipe.family], recipe.batch, recipe.n
    kept = 4 * batch * n if arm.aux in ("ghost", "pre-act") else 0
    if spec.selection_arrays:
        return kept + spec.selection_arrays * 4 * batch * n
    rows = min(batch, max(_FEWEST_ROWS, _CHUNK // n))
    return kept + _SELECTING * 4 * rows * n


def _dead_loss(recipe: Recipe, width: int, arm: Arm) -> float:
    """What a loss on dead features computes with, and the codes that are kept meanwhile."""
    batch, n = recipe.batch, recipe.n
    array = 0.0 if _sparse(recipe) else FAMILIES[recipe.family].code_arrays * 4 * batch * n

    def dense(dead: int) -> float:
        return _DEAD_ARRAYS * 4 * batch * dead + 2 * 4 * dead * width

    if arm.aux == "pre-act":
        return array + dense(n)
    residuals = _DEAD_BATCH_COPIES * 4 * batch * width
    rows, codes = 4 * width, batch * min(n, recipe.aux_k)
    if arm.aux == "ghost":
        return array + residuals + rows * n + dense(n)
    few = min(n, _AUX_DENSE_BELOW * recipe.aux_k) if _sparse(recipe) else n
    found = _CODE * codes + rows * few + dense(few)
    if few < n:
        found = max(found, _SORTED_CODE * codes + 3 * rows * n)
    return array + residuals + found
