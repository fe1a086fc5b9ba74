"""Makes the sizes in a model's configuration small, whatever the architecture calls them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

# Enough for one block of each kind where kinds take turns.
BLOCKS = 4

# What configurations call the same thing.
_DEPTHS = (
    *("num_hidden_layers", "n_layer", "n_layers", "num_layers", "depth", "layers"),
    *("num_decoder_layers", "decoder_layers", "encoder_layers", "max_window_layers"),
)
_WIDTHS = ("hidden_size", "n_embd", "d_model", "embed_dim", "dim", "hidden_dim", "width")
_INNER = (
    *("intermediate_size", "n_inner", "d_inner", "d_ff", "ffn_dim", "ffn_hidden_size"),
    *("inner_mlp_size", "mlp_dim", "moe_intermediate_size"),
)
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "heads", "num_filters")
_SHARED_HEADS = ("num_key_value_heads", "n_kv_heads", "kv_heads")
_AT_MOST = {
    **dict.fromkeys(_DEPTHS, BLOCKS),
    **{"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2},
}
_NARROWEST = 16


def divisors(config: dict[str, Any]) -> list[int]:
    """By what all widths and heads of a configuration can be divided, the largest first.

    Powers of two that leave two heads and a width of 16; 1 is always among them.
    """
    parts = list(_parts(config))
    powers = [2**power for power in range(10, 0, -1)] if parts else []
    return [*(d for d in powers if all(_divides(part, d) for part in parts)), 1]


def shrunken(config: dict[str, Any], divisor: int) -> dict[str, Any]:
    """The configuration with at most `BLOCKS` blocks, and with widths and heads divided.

    A head keeps its width. What is said per block is cut to the blocks that are left.
    """
    depth = _first(config, _DEPTHS) or 0
    small: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            small[key] = shrunken(value, divisor)
        elif isinstance(value, list):
            small[key] = _of_blocks(key, value, depth)
        elif not _is_size(value):
            small[key] = value
        elif key in _AT_MOST:
            small[key] = min(value, _AT_MOST[key])
        elif key in (*_WIDTHS, *_INNER, *_HEADS, *_SHARED_HEADS):
            small[key] = max(1, value // divisor)
        else:
            small[key] = value
    return small


def _parts(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The configuration, and those within it (of a text, of a vision tower), that have a width."""
    if _first(config, _WIDTHS):
        yield config
    for value in config.values():
        if isinstance(value, dict):
            yield from _parts(value)


def _first(config: dict[str, Any], keys: Iterable[str]) -> int | None:
    return next((config[key] for key in keys if _is_size(config.get(key))), None)


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _divides(part: dict[str, Any], divisor: int) -> bool:
    width, heads = _first(part, _WIDTHS) or 0, _first(part, _HEADS)
    if width // divisor < _NARROWEST or (heads and heads // divisor < 2):
        return False
    sizes = [part[key] for key in (*_WIDTHS, *_INNER, *_HEADS) if _is_size(part.get(key))]
    return all(size % divisor == 0 for size in sizes)


def _of_blocks(key: str, values: list[Any], depth: int) -> list[Any]:
    """A list: what it says block by block, or the numbers of the blocks that it names."""
    if depth > BLOCKS and len(values) == depth:
        return values[:BLOCKS]
    named = any(word in key for word in ("idx", "idxs", "layers", "indices", "indexes"))
    if named and all(isinstance(value, int) and 0 <= value < depth for value in values):
        return [value for value in values if value < BLOCKS]
    return values
