"""Where a saved SAE comes from: stands in `sae.json`, and in what other libraries' files say."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Self


@dataclass(frozen=True)
class Origin:
    """What an SAE was trained on; None where it is not known.

    model: what the activations are of: a hub id, or the id of a card.
    revision: the commit of the weights.
    layer: number of the block, from 0, whose output the SAE takes.
    hook: that block as a module of the model in transformers, such as `h.3`.
    hook_tl: the same in TransformerLens' words, such as `blocks.3.hook_resid_post`.
    arm, seed, corpus: of the run. record: hash of its record.
    """

    model: str | None = None
    revision: str | None = None
    layer: int | None = None
    hook: str | None = None
    hook_tl: str | None = None
    arm: str | None = None
    seed: int | None = None
    corpus: str | None = None
    record: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """What is known, JSON-able."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @classmethod
    def of(cls, data: dict[str, Any]) -> Self:
        """From `to_dict`; keys that are not known are left out."""
        known = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in data.items() if key in known})


def residual_hook(layer: int) -> str:
    """TransformerLens' name of a block's output, which is the residual stream after it."""
    return f"blocks.{layer}.hook_resid_post"
