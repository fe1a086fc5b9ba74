"""Stand-ins for the code that repositories bring along, served by the tests' hub as such code.

Not the repositories' code: small layers at the same module paths, whose blocks return what the
real ones return. One file holds them all; config.json names the class.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel


class Config(PretrainedConfig):
    model_type = "standin"

    def __init__(self, width: int = 48, layers: int = 3, vocab_size: int = 64, **more: Any) -> None:
        super().__init__(**more)
        self.width, self.layers, self.vocab_size = width, layers, vocab_size


class Rotary(nn.Module):
    """Keeps its frequencies in a buffer that no checkpoint holds, as most such code does."""

    inv_freq: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        frequencies = 1 / 100 ** (torch.arange(0, width, 2).float() / width)
        self.register_buffer("inv_freq", frequencies, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        angles = torch.outer(torch.arange(x.shape[1], device=x.device).float(), self.inv_freq)
        one, two = x.float().chunk(2, dim=-1)
        cos, sin = angles.cos(), angles.sin()
        return torch.cat((one * cos - two * sin, one * sin + two * cos), dim=-1).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, width: int, causal: bool) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm, self.rotary, self.causal = nn.LayerNorm(width), Rotary(width), causal

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)
        scores = self.rotary(q) @ self.rotary(k).mT / x.shape[-1] ** 0.5
        length = x.shape[1]
        allowed = torch.ones(length, length, dtype=torch.bool, device=x.device)
        allowed = allowed.tril() if self.causal else allowed
        allowed = allowed if mask is None else allowed & mask.bool()[:, None, :]
        return self.out(scores.masked_fill(~allowed, -1e9).softmax(-1) @ v)


class Block(nn.Module):
    """`gives` says what it returns: the stream, a tuple of it, or branch and residual apart."""

    def __init__(self, width: int, gives: str, causal: bool) -> None:
        super().__init__()
        self.attention, self.gives = Attention(width, causal), gives

    def forward(self, x: Tensor, residual: Tensor | None = None, mask: Tensor | None = None) -> Any:
        if self.gives == "apart":
            residual = x if residual is None else x + residual
            return self.attention(residual, mask), residual
        x = x + self.attention(x, mask)
        return {"stream": x, "tuple": (x,), "cache": (x, None)}[self.gives]


class Base(PreTrainedModel):
    config_class = Config

    def _init_weights(self, module: nn.Module) -> None:
        """Leaves buffers alone, as the real code does."""
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.2)

    def build(self, path: str, gives: str, causal: bool) -> None:
        """Blocks at `path`, the embedding beside the root's first part."""
        config = self.config
        self.embed = nn.Embedding(config.vocab_size, config.width)
        parts = path.split(".")
        root: nn.Module = self
        for part in parts[:-1]:
            setattr(root, part, nn.Module())
            root = getattr(root, part)
        blocks = nn.ModuleList(Block(config.width, gives, causal) for _ in range(config.layers))
        setattr(root, parts[-1], blocks)
        self.path = path
        self.post_init()

    def run(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        x, residual = self.embed(ids), None
        for block in self.get_submodule(self.path):
            output = block(x, residual=residual, mask=mask)
            x = output if isinstance(output, Tensor) else output[0]
            residual = output[1] if block.gives == "apart" else None
        return x if residual is None else x + residual


def family(path: str, gives: str, causal: bool) -> type[Base]:
    class Model(Base):
        def __init__(self, config: Config) -> None:
            super().__init__(config)
            self.build(path, gives, causal)

    return Model


class ProGenForCausalLM(family("transformer.h", "cache", causal=True)):  # type: ignore[misc]
    def forward(self, input_ids: Tensor, attention_mask: Any = None, use_cache: Any = None) -> Any:
        assert use_cache is False
        return self.run(input_ids, attention_mask)


class gLM2Model(family("encoder.layers", "stream", causal=False)):  # type: ignore[misc]  # noqa: N801
    def forward(self, input_ids: Tensor, attention_mask: Any = None) -> Any:
        return self.run(input_ids, attention_mask)


class StripedHyenaModelForCausalLM(family("backbone.blocks", "cache", causal=True)):  # type: ignore[misc]
    def forward(self, input_ids: Tensor, attention_mask: Any = None, use_cache: Any = None) -> Any:
        return self.run(input_ids, attention_mask)


class EsmForMaskedLM(family("esm.encoder.layer", "tuple", causal=False)):  # type: ignore[misc]
    def forward(self, input_ids: Tensor, attention_mask: Any = None) -> Any:
        return self.run(input_ids, attention_mask)


class HyenaDNAForCausalLM(family("hyena.backbone.layers", "stream", causal=True)):  # type: ignore[misc]
    def forward(self, input_ids: Tensor, inputs_embeds: Any = None) -> Any:
        return self.run(input_ids)


class CaduceusForMaskedLM(family("caduceus.backbone.layers", "apart", causal=False)):  # type: ignore[misc]
    """Reads both ways, with projections that are one parameter: files hold them once."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        for block in self.get_submodule(self.path):
            attention = block.attention
            attention.both = Attention(config.width, causal=True)
            attention.both.qkv.weight = attention.qkv.weight
            attention.both.out.weight = attention.out.weight
            attention.register_forward_hook(self.both_ways)

    @staticmethod
    def both_ways(attention: nn.Module, taken: tuple[Any, ...], given: Tensor) -> Tensor:
        both: Any = attention.both
        return given + both(taken[0].flip(1), taken[1]).flip(1)

    def forward(self, input_ids: Tensor, inputs_embeds: Any = None) -> Any:
        return self.run(input_ids)


class UnpaddedBlock(nn.Module):
    """Takes and gives [valid tokens, width], and pads within."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = Attention(width, causal=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        padded = x.new_zeros(*mask.shape, x.shape[-1])
        padded[mask.bool()] = x
        return x + self.attention(padded, mask)[mask.bool()]


class BertModel(Base):
    """As DNABERT-2: padding is taken out before the blocks."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, config.width)
        self.encoder = nn.ModuleDict(
            {"layer": nn.ModuleList(UnpaddedBlock(config.width) for _ in range(config.layers))}
        )
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.embed(input_ids)[attention_mask.bool()]
        for block in self.encoder["layer"].children():
            x = block(x, attention_mask)
        return x
