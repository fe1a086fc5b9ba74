"""What a card says of a model, held against the checkpoint: its task, layers and parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from adapters import compat
from adapters.base import Adapter
from adapters.checkpoints import weight_files
from adapters.stored_tensors import stored_tensors
from zoo.files import read_json

# Libraries differ in tables that a model does not use, and a head may be counted or not.
_COUNTING = 0.01

# What the two adapters of language models are for, and how heads of the other are called.
_TASKS = {
    "hf-causal": ("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", ("ForMaskedLM",)),
    "hf-masked": ("MODEL_FOR_MASKED_LM_MAPPING_NAMES", ("ForCausalLM", "LMHeadModel")),
}


def disagreements(adapter: Adapter) -> list[str]:
    """What the card says that is not so, a phrase each. The model is loaded."""
    found = [_wrong_parameters(adapter), *_wrong_config(adapter)]
    return [each for each in found if each is not None]


def wrong_task(kind: str, model_type: object, architectures: Sequence[str]) -> str | None:
    """What a model is, where it is not what the adapter `kind` is for; None where it is.

    What a window's tokens see would be misunderstood.
    """
    if kind not in _TASKS:
        return None
    compat.prepare()
    from transformers.models.auto import modeling_auto

    table, endings = _TASKS[kind]
    heads = [name for name in architectures if name.endswith(endings)]
    if heads:
        return f"it is {heads[0]}, not what {kind} is for"
    if model_type not in getattr(modeling_auto, table):
        return f"it is a {model_type}, not what {kind} is for"
    return None


def _wrong_config(adapter: Adapter) -> list[str | None]:
    """Of config.json, where the checkpoint has one and the library's own classes read it."""
    card = adapter.card
    if card.checkpoint.source == "none" or card.checkpoint.remote_code:
        return []
    try:
        config = read_json(adapter.folder / "config.json")
    except (OSError, ValueError):
        return []
    if not isinstance(config, dict):
        return []
    names = [name for name in config.get("architectures") or () if isinstance(name, str)]
    # A class that the card names says what is read of the model, and how.
    task = (
        None
        if "class" in card.options
        else wrong_task(card.adapter, config.get("model_type"), names)
    )
    return [task, *_wrong_sizes(adapter, config)]


def _wrong_sizes(adapter: Adapter, config: dict[str, Any]) -> list[str]:
    tap = adapter.card.tap
    stated = {"num_hidden_layers": tap.layers, "hidden_size": tap.width}
    return [
        f"config.json says {key} = {config[key]}, the card {value}"
        for key, value in stated.items()
        if isinstance(config.get(key), int) and config[key] != value
    ]


def _wrong_parameters(adapter: Adapter) -> str | None:
    """The card's count is of what is loaded, or of that and what else the checkpoint stores."""
    said = adapter.card.parameters
    loaded = sum(parameter.numel() for parameter in adapter.model.parameters())
    if said == 0 or abs(said - loaded) <= _COUNTING * loaded:
        return None
    stored = 0
    if adapter.card.checkpoint.source != "none":
        files = weight_files(adapter.card, adapter.folder)
        stored = sum(math.prod(each.shape) for each in stored_tensors(files))
    low, high = min(loaded, stored or loaded), max(loaded, stored)
    if low * (1 - _COUNTING) <= said <= high * (1 + _COUNTING):
        return None
    return f"the model has {loaded:,} parameters, the card says {said:,}"
