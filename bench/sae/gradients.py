"""Loss and gradients of one training step, written out by hand; what the families share.

    pre   = (y - b) @ W_enc.T + b_enc
    codes = the family's choice among the positive pre-activations    (bench.sae.families)
    y_hat = codes @ W_dec + b
    loss  = mean over tokens and dimensions of (y_hat - y)^2

to which a family may add a sparsity loss, and an arm a loss on dead features
(`bench.sae.dead_features`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from bench.compute.precision import affine
from bench.compute.profiling import mark, marked
from bench.compute.row_shards import summed
from bench.sae.codes import ArrayPairs, DensePairs, SparsePairs, StepMethod
from bench.sae.dead_features.base import DeadLossPass

# Elements of the pre-activations held at once: they stay in a CPU's cache between the product and
# the selection; an accelerator wants them larger.
_CPU_ELEMENTS = 2**22
_DEVICE_ELEMENTS = 2**28


class Weights(NamedTuple):
    """W_enc [n, d], b_enc [n], W_dec [n, d], b [d]; or their gradients."""

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b: Tensor


class Backward(NamedTuple):
    """What one step yields before the optimizer.

    loss: mean squared error. sparsity_loss, aux_loss: with their weights; None where not in use.
    radial: [n], the inner product of each row of the W_dec gradient with its row of W_dec.
    activity: [n], the sum of each feature's codes; > 0 just where it fired.
    family_gradients: of the family's own trained tensors, by name.
    family_values: new values of the family's own tensors that are not trained, by name.
    """

    loss: Tensor
    aux_loss: Tensor | None
    gradients: Weights
    radial: Tensor
    activity: Tensor
    sparsity_loss: Tensor | None = None
    family_gradients: Mapping[str, Tensor] = MappingProxyType({})
    family_values: Mapping[str, Tensor] = MappingProxyType({})


def row_slices(tokens: int, n: int, device: torch.device) -> list[slice]:
    """Slices of rows whose pre-activations are worked on at once."""
    elements = _CPU_ELEMENTS if device.type == "cpu" else _DEVICE_ELEMENTS
    rows = max(64, elements // n)
    return [slice(start, min(start + rows, tokens)) for start in range(0, tokens, rows)]


@marked("product")
def pre_activations(centered: Tensor, weights: Weights) -> Tensor:
    """(y - b) @ W_enc.T + b_enc, [tokens, n], of centered = y - b [tokens, d]."""
    return affine(weights.b_enc, centered, weights.W_enc.T)


def backward(
    pairs: SparsePairs | DensePairs | ArrayPairs,
    weights: Weights,
    centered: Tensor,
    path: StepMethod,
    dead_loss: DeadLossPass | None,
) -> Backward:
    """Loss and gradients, given the codes `pairs` of centered = y - b [tokens, d]."""
    # y_hat - y, as b is in both.
    with mark("decode"):
        error = summed(pairs.decode(weights.W_dec)).sub_(centered)
    loss = torch.linalg.vector_norm(error).square() / error.numel()
    aux_loss = added = None
    if dead_loss is not None:
        aux_loss, added = dead_loss.gradients(weights.W_dec, error, loss, centered, path)
    error.mul_(2.0 / error.numel())
    with mark("gradients"):
        features = pairs.gradients(weights.W_dec, error, centered, gate=True)
    if dead_loss is not None and added is not None:
        dead_loss.add(features, added)
    b = error.sum(0) - summed(features.b_enc @ weights.W_enc)
    gradients = Weights(features.W_enc, features.b_enc, features.W_dec, b)
    return Backward(loss, aux_loss, gradients, features.radial, features.activity)
