"""How much memory a block takes: what `bench plan` announces, and what decides how layers group.

What lasts is counted exactly; what comes and goes is bounded by the largest of it, as only one
thing is done at a time: a training step, a census, a layer's statistics. Measured against blocks in
processes of their own by `ci/bench_memory.py`. Bytes throughout; no torch.
"""

from __future__ import annotations

from bench.plan.protocol import Protocol
from bench.sae.arms import Arm, parse_arm
from bench.sae.families import FAMILIES
from bench.sae.recipe import Recipe
from zoo.cards import Card

_MIB = 1 << 20

# The interpreter with torch, numpy, scipy and transformers loaded.
PROCESS = 350 * _MIB

# Freed memory that is kept for the next step (`bench.compute.heap`), beyond what a step takes.
_KEPT = 16 * _MIB

# Pre-activations worked on at once, in a step as in a census, and what selects among them.
_SELECTION = 96 * _MIB

# Tensors of the size of a batch that a step holds at once: inputs, outputs, errors.
_BATCH_COPIES = 6

# Float64 [width, width] that a layer's statistics and prediction hold at once: two covariances, and
# what a factor or a spectrum is computed in.
_SQUARES = 6

# Arrays [batch, dead features] that a loss on these holds at once.
_DEAD_ARRAYS = {"ghost": 3.0, "pre-act": 3.0}

# Of AuxK: bytes of each of its codes and what sorts them; arrays [batch, dead features] where fewer
# features are dead than so many times `aux_k` (`bench.sae.dead_features.auxk`).
_AUX_CODE = 60
_AUX_ARRAYS, _AUX_DENSE_BELOW = 3, 10

# Streams inside a model during a forward pass, in copies of one layer's.
_FORWARD_COPIES = 3
_INSIDE_COPIES = 10


def block_memory(
    card: Card, protocol: Protocol, *, depth: int, tokens: int, layers: int, cells: int
) -> int:
    """Peak of a block of `cells` SAEs over `layers` layers of a model that is loaded up to `depth`
    blocks, with a sample of `tokens` each; every arm has as many of them."""
    transforms = [transform_memory(card.tap.width, parse_arm(name)) for name in protocol.arms]
    return (
        PROCESS
        + model_memory(card, protocol, depth)
        + layers * layer_memory(card, protocol, tokens)
        + cells * sae_memory(protocol, card.tap.width)
        + cells * sum(transforms) // len(transforms)
        + scratch_memory(card, protocol, tokens)
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


def training_memory(recipe: Recipe, width: int, arm: Arm) -> int:
    """What an SAE of that arm takes by itself: what it holds, and its step."""
    held = sae_memory(recipe, width) + transform_memory(width, arm)
    return held + step_memory(recipe, width, arm) + step_arrays(recipe, arm)


def transform_memory(width: int, arm: Arm) -> int:
    """Of an SAE whose inputs are whitened: a matrix [width, width] and its inverse."""
    return 8 * width**2 if arm.norm in ("whiten", "zca") else 0


def scratch_memory(card: Card, protocol: Protocol, tokens: int) -> int:
    """The largest of what comes and goes: in a forward pass, a step, a census, the statistics."""
    row = 4 * card.tap.width
    copies = _FORWARD_COPIES + (_INSIDE_COPIES if card.parameters else 0)
    forward = copies * row * protocol.forward_tokens
    arms = [parse_arm(name) for name in protocol.arms]
    step = max(step_memory(protocol, card.tap.width, arm) for arm in arms)
    arrays = max(step_arrays(protocol, arm) for arm in arms)
    census = 2 * row * max(tokens, fitted_tokens(protocol, tokens))
    statistics = _SQUARES * 8 * card.tap.width**2
    return max(_SELECTION, arrays) + _KEPT + max(forward, step, census, statistics)


def step_memory(recipe: Recipe, width: int, arm: Arm) -> int:
    """Gradients of the weights, those of a loss on dead features too, and copies of a batch."""
    gradients = 2 if arm.aux in ("none", "resample") else 4
    return 4 * width * (gradients * recipe.n + _BATCH_COPIES * recipe.batch)


def step_arrays(recipe: Recipe, arm: Arm) -> int:
    """Pre-activations, codes and their gradients as arrays [batch, n], where a step has such.

    The sparse step of topk has none, but the path `auto` tries the dense one too. A loss on dead
    features is counted as where nearly all are dead.
    """
    sparse = recipe.family == "topk" and recipe.path == "sparse"
    arrays = 0.0 if sparse else FAMILIES[recipe.family].step_arrays
    arrays += _DEAD_ARRAYS.get(arm.aux, 0.0)
    counted = int(arrays * 4 * recipe.batch * recipe.n)
    if not arm.aux.startswith("auxk"):
        return counted
    few = min(recipe.n, _AUX_DENSE_BELOW * recipe.aux_k)
    dense, pairs = _AUX_ARRAYS * 4 * few, _AUX_CODE * min(recipe.n, recipe.aux_k)
    return counted + recipe.batch * max(dense, pairs)
