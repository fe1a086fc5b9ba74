"""Where a saved SAE comes from: stands in `sae.json`, and in what other libraries' files say."""

from __future__ import annotations

import re
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


_TL_HOOK = re.compile(r"blocks\.(\d+)\.(.+)")


def layer_of_hook(hook: str) -> int | None:
    """The block whose output a hook of TransformerLens or of transformers takes, from 0.

    `hook_resid_pre` of a block is the output of the one before it. None of a hook that names no
    block, and -1 of the stream before the first one.
    """
    named = _TL_HOOK.fullmatch(hook)
    if named is not None:
        return int(named[1]) - (named[2] == "hook_resid_pre")
    return next((int(part) for part in hook.split(".") if part.isdigit()), None)


def takes_stream(hook: str) -> bool:
    """Whether a hook takes the residual stream between blocks, not what is inside of a block."""
    named = _TL_HOOK.fullmatch(hook)
    if named is not None and named[2].startswith("hook_"):
        return named[2] in ("hook_resid_pre", "hook_resid_post")
    # A module's path ends with its number where it is a block: `h.3`, not `h.3.mlp`.
    return hook.rpartition(".")[2].isdigit()
