"""Buffers that no checkpoint holds, and that transformers 5 loses for classes not its own.

Version 5 builds every model without memory and then fills what the checkpoint does not hold from
the class's `_init_weights`. Code written for version 4 computes such buffers (rotary frequencies,
constants of norms) in its constructor and says nothing of them there: they come out as whatever
was in memory, without a warning, and the activations are finite and wrong (transformers issue
48892).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adapters import compat
from zoo.cards import Card
from zoo.errors import BadWeights


def restore(card: Card, model: nn.Module) -> list[str]:
    """Computes such buffers again and puts right those that differ; returns their names.

    The class is built once more, with buffers but without memory for parameters. Does nothing
    under version 4, nor for the library's own classes, which keep to its rules.

    Raises:
        BadWeights: they cannot be computed again; the model is refused, not measured.
    """
    own = type(model).__module__.startswith("transformers.")
    if own or compat.major(compat.transformers()) < 5:
        return []
    return recompute(card, model)


def recompute(card: Card, model: nn.Module) -> list[str]:
    """`restore`, whatever the version and the class."""
    saved = set(model.state_dict())
    unsaved = {name: b for name, b in model.named_buffers() if name not in saved}
    if not unsaved:
        return []
    fresh = _fresh_buffers(card, model)
    changed = []
    for name, found in unsaved.items():
        expected = fresh.get(name)
        if expected is None or expected.is_meta or expected.shape != found.shape:
            raise _refusal(card, f"its buffer {name} cannot be computed again")
        expected = expected.to(found.dtype)
        if not torch.equal(found.cpu().nan_to_num(), expected.nan_to_num()):
            found.copy_(expected)
            changed.append(name)
    return changed


def _fresh_buffers(card: Card, model: nn.Module) -> dict[str, Tensor]:
    from accelerate import init_empty_weights

    try:
        with init_empty_weights(include_buffers=False):
            return dict(type(model)(model.config).named_buffers())
    except Exception as error:  # whatever a foreign constructor raises
        raise _refusal(
            card, f"it cannot be built again ({type(error).__name__}: {error})"
        ) from error


def _refusal(card: Card, reason: str) -> BadWeights:
    version = compat.transformers().__version__
    return BadWeights(
        f"model {card.id!r}: transformers {version} does not keep the buffers that this model's "
        f"class computes, and {reason}",
        "Use an environment with transformers below 5.",
    )
