"""Tiny random checkpoints of real architectures, saved as the hub holds them, and their cards."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adapters import compat
from zoo.cards import Card

WIDTH = 48
SENTENCES = [
    "The quick brown fox jumps over the lazy dog, twice.",
    "a short one",
    "Something of medium length.",
]
PROTEINS = ["MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDGTQDNLSGAEKAVQ", "MKV", "ACDEFGHIKXBZUO"]


def make_card(**changes: Any) -> Card:
    """A card with sensible values for what a test does not care about."""
    content: dict[str, Any] = {
        "id": "tiny",
        "summary": "A tiny model",
        "domain": "language",
        "adapter": "hf-causal",
        "checkpoint": {"source": "folder", "path": "nowhere"},
        "tap": {"blocks": "h.{i}", "layers": 3, "width": WIDTH},
        "corpus": "some",
        "context": 16,
        "parameters": 0,
    }
    return Card.model_validate(content | changes)


def random_images(count: int, seed: int = 0) -> list[np.ndarray]:
    """Images of different sizes, uint8 [height, width, 3]."""
    random = np.random.default_rng(seed)
    sizes = [(40, 56), (56, 41), (30, 30)]
    return [random.integers(0, 256, (*sizes[i % 3], 3), dtype=np.uint8) for i in range(count)]


def random_dna(count: int, length: int, seed: int = 0) -> list[str]:
    """Sequences over A, C, G, T and N, some in lower case."""
    random = np.random.default_rng(seed)
    return ["".join(random.choice(list("ACGTNacgt"), length)) for _ in range(count)]


# ------------------------------------------------------------------------------------ tokenizers


def byte_tokenizer(folder: Path, *, framed: bool) -> None:
    """Bytes as tokens; [CLS] and [SEP] around a sequence where `framed`, else GPT-2's one."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    from_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"] if framed else ["<|endoftext|>"]
    letters = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    rules = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=special[-1]))
    rules.pre_tokenizer = from_bytes
    names = dict.fromkeys(("bos_token", "eos_token", "unk_token"), special[0])
    if framed:
        names = {f"{token[1:-1].lower()}_token": token for token in special}
        rules.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
        )
    fast = compat.transformers().PreTrainedTokenizerFast(tokenizer_object=rules, **names)
    fast.save_pretrained(folder)


def _esm_tokenizer(folder: Path) -> None:
    letters = list("LAGVSERTIDPKQNFYMHWCXBUZO.-")
    names = ["<cls>", "<pad>", "<eos>", "<unk>", *letters, "<null_1>", "<mask>"]
    (folder / "vocab.txt").write_text("\n".join(names))
    compat.transformers().EsmTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)


# --------------------------------------------------------------------------------------- models


def gpt2(folder: Path) -> None:
    transformers = compat.transformers()
    config = transformers.GPT2Config(
        vocab_size=260, n_positions=64, n_embd=WIDTH, n_layer=3, n_head=2,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    _save(transformers.GPT2LMHeadModel, config, folder)
    byte_tokenizer(folder, framed=False)


def gpt_neox(folder: Path) -> None:
    transformers = compat.transformers()
    config = transformers.GPTNeoXConfig(
        vocab_size=260, max_position_embeddings=64, hidden_size=WIDTH, num_hidden_layers=3,
        num_attention_heads=2, intermediate_size=64, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    _save(transformers.GPTNeoXForCausalLM, config, folder)
    byte_tokenizer(folder, framed=False)


def bert(folder: Path) -> None:
    transformers = compat.transformers()
    config = transformers.BertConfig(
        vocab_size=262, max_position_embeddings=64, hidden_size=WIDTH, num_hidden_layers=3,
        num_attention_heads=2, intermediate_size=64, pad_token_id=0,
    )  # fmt: skip
    _save(transformers.BertForMaskedLM, config, folder)
    byte_tokenizer(folder, framed=True)


def modernbert(folder: Path) -> None:
    transformers = compat.transformers()
    config = transformers.ModernBertConfig(
        vocab_size=262, max_position_embeddings=64, hidden_size=WIDTH, num_hidden_layers=3,
        num_attention_heads=2, intermediate_size=48, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, cls_token_id=1, sep_token_id=2, local_attention=8,
    )  # fmt: skip
    with compat.quiet():
        _save(transformers.ModernBertForMaskedLM, config, folder)
    byte_tokenizer(folder, framed=True)


def esm(folder: Path) -> None:
    transformers = compat.transformers()
    config = transformers.EsmConfig(
        vocab_size=33, mask_token_id=32, pad_token_id=1, hidden_size=WIDTH, num_hidden_layers=3,
        num_attention_heads=2, intermediate_size=64, max_position_embeddings=130,
        position_embedding_type="rotary", token_dropout=True,
    )  # fmt: skip
    _save(transformers.EsmForMaskedLM, config, folder)
    _esm_tokenizer(folder)


def dinov2(folder: Path) -> None:
    _dinov2(folder, "Dinov2")


def dinov2_registers(folder: Path) -> None:
    _dinov2(folder, "Dinov2WithRegisters", num_register_tokens=4)


def _dinov2(folder: Path, family: str, **more: Any) -> None:
    transformers = compat.transformers()
    config = getattr(transformers, f"{family}Config")(
        hidden_size=WIDTH, num_hidden_layers=3, num_attention_heads=2, image_size=42,
        patch_size=14, mlp_ratio=2, **more,
    )  # fmt: skip
    _save(getattr(transformers, f"{family}Model"), config, folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(DINOV2_PROCESSOR))


DINOV2_PROCESSOR = {
    "image_processor_type": "BitImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 48},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 42, "width": 42},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "do_convert_rgb": True,
}


def enformer(folder: Path) -> None:
    from enformer_pytorch import Enformer
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = Enformer.from_hparams(
        dim=WIDTH, depth=3, heads=2, output_heads={"human": 2}, target_length=4,
        attn_dim_key=8, dim_divisible_by=4, num_downsamples=3,
    )  # fmt: skip
    # The trunk holds the same modules under a second name; safetensors refuses shared tensors.
    weights = {key: t for key, t in model.state_dict().items() if not key.startswith("_trunk")}
    weights |= {key: t for key, t in model.state_dict().items() if key.startswith("_trunk.6")}
    save_file({k: t.contiguous().clone() for k, t in weights.items()}, folder / "model.safetensors",
              metadata={"format": "pt"})  # fmt: skip
    model.config.save_pretrained(folder)


def timm_vit(folder: Path) -> None:
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    shape: dict[str, Any] = {"img_size": 42, "embed_dim": WIDTH, "depth": 3, "num_heads": 2}
    name = "vit_small_patch14_reg4_dinov2"
    model = timm.create_model(name, pretrained=False, num_classes=0, **shape)
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architecture": name,
        "num_classes": 0,
        "model_args": shape,
        "pretrained_cfg": {"input_size": [3, 42, 42], "num_classes": 0, "crop_pct": 1.0},
    }
    (folder / "config.json").write_text(json.dumps(config))


def _save(model_class: Any, config: Any, folder: Path) -> None:
    torch.manual_seed(0)
    model_class(config).save_pretrained(folder)


# -------------------------------------------------------------------------------------- families


@dataclass(frozen=True)
class Family:
    """A kind of checkpoint: how to make one, its card, and examples for it."""

    save: Callable[[Path], None]
    card: Card
    examples: Callable[[], list[Any]]
    packages: tuple[str, ...] = ()


def _encoder(adapter: str, blocks: str, **changes: Any) -> Card:
    tap = {"blocks": blocks, "layers": 3, "width": WIDTH}
    return make_card(adapter=adapter, tap=tap, **changes)


FAMILIES: dict[str, Family] = {
    "gpt2": Family(gpt2, make_card(tokens={"skip_first": 1}), lambda: SENTENCES),
    "gpt-neox": Family(gpt_neox, _encoder("hf-causal", "layers.{i}"), lambda: SENTENCES),
    "bert": Family(bert, _encoder("hf-masked", "encoder.layer.{i}"), lambda: SENTENCES),
    "modernbert": Family(modernbert, _encoder("hf-masked", "layers.{i}"), lambda: SENTENCES),
    "esm": Family(esm, _encoder("esm2", "encoder.layer.{i}", domain="protein"), lambda: PROTEINS),
    "dna-bert": Family(
        bert,
        _encoder("dna-lm", "encoder.layer.{i}", domain="genomic"),
        lambda: random_dna(2, 40) + random_dna(1, 5),
    ),
    "dinov2": Family(
        dinov2,
        _encoder("hf-vit", "encoder.layer.{i}", domain="vision"),
        lambda: random_images(3),
    ),
    "dinov2-registers": Family(
        dinov2_registers,
        _encoder("hf-vit", "encoder.layer.{i}", domain="vision", tokens={"registers": 4}),
        lambda: random_images(3),
    ),
    "timm-vit": Family(
        timm_vit,
        _encoder("timm-vit", "blocks.{i}", domain="vision", tokens={"registers": 4}),
        lambda: random_images(3),
        packages=("timm", "torchvision"),
    ),
    "enformer": Family(
        enformer,
        _encoder(
            "enformer",
            "transformer.{i}",
            domain="genomic",
            options={"bases": 128},
            tokens={"skip_first": 2, "skip_last": 1},
        ),
        lambda: random_dna(2, 300),
    ),
}
