"""A tiny random checkpoint of each card's architecture, laid out as its repository is.

`ARCHITECTURES` says how to make one and what changes in the card for it: sizes, and what follows
from them. All else (where the blocks are, which output is the stream, the token rule, the
repository's id, its commit and subfolders) stays as the card has it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from adapters import compat
from tests.adapters import tiny, tiny_cells, tiny_folding, tiny_packages, tiny_remote
from tests.adapters.tiny import PROTEINS, SENTENCES, WIDTH, random_dna, random_images
from zoo.cards import Card

CONTIGS = ["<+>MKTAYIAKQ<->acgtnacgtt<+>RLEERLGLIE", "MKV", "<->ACDEFGH"]


@dataclass(frozen=True)
class Architecture:
    """How to make a tiny checkpoint, and what its card changes."""

    save: Callable[[Path], None]
    examples: Callable[[], list[Any]]
    cards: tuple[str, ...]
    packages: tuple[str, ...] = ()
    needs: str = ""
    width: int = WIDTH
    layers: int = 3
    changes: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    def card(self, card: Card) -> Card:
        """The card, for the tiny checkpoint; kernels for CUDA only are not among the tiny ones."""
        changed = {"context": 16, "device": "any", "parameters": 0}
        content = card.model_dump(exclude_none=True) | changed
        if card.checkpoint.remote_code:
            content["requires"] = ()  # of the code that a stand-in stands for
        content["tap"] = content["tap"] | {"width": self.width, "layers": self.layers}
        content["options"] = content["options"] | self.options
        return Card.model_validate(content | self.changes)


def _save(name: str, config: dict[str, Any], folder: Path, **call: Any) -> None:
    transformers = compat.transformers()
    torch.manual_seed(0)
    settings = getattr(transformers, f"{name.removesuffix('Model')}Config")(**config)
    with compat.quiet():
        getattr(transformers, name)(settings, **call).save_pretrained(folder)


def _decoder(name: str, **more: Any) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        config = {
            "vocab_size": 260, "hidden_size": WIDTH, "num_hidden_layers": 3,
            "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64,
            "head_dim": 12, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
        }  # fmt: skip
        _save(f"{name}Model", config | more, folder)
        tiny.byte_tokenizer(folder, framed=False)

    return save


def _tower(name: str, processor: str) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        transformers = compat.transformers()
        vision = {
            "hidden_size": WIDTH, "num_hidden_layers": 3, "num_attention_heads": 2,
            "intermediate_size": 64, "image_size": 42, "patch_size": 14,
        }  # fmt: skip
        text = {
            "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 32, "vocab_size": 64, "max_position_embeddings": 8,
        }  # fmt: skip
        config = getattr(transformers, f"{name}Config")(text_config=text, vision_config=vision)
        torch.manual_seed(0)
        getattr(transformers, f"{name}Model")(config).save_pretrained(folder)
        settings = tiny.DINOV2_PROCESSOR | {"image_processor_type": processor}
        if name == "Siglip":
            settings |= {"size": {"height": 42, "width": 42}, "do_center_crop": False}
        (folder / "preprocessor_config.json").write_text(json.dumps(settings))

    return save


def _vjepa2(folder: Path) -> None:
    config = {
        "patch_size": 8, "crop_size": 24, "frames_per_clip": 8, "hidden_size": WIDTH,
        "num_hidden_layers": 3, "num_attention_heads": 2, "mlp_ratio": 2.0,
        "pred_hidden_size": 24, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1,
    }  # fmt: skip
    _save("VJEPA2Model", config, folder)
    settings = tiny.DINOV2_PROCESSOR | {
        "video_processor_type": "VJEPA2VideoProcessor",
        "size": {"shortest_edge": 27},
        "crop_size": {"height": 24, "width": 24},
        "resample": 2,
    }
    del settings["image_processor_type"]
    (folder / "video_preprocessor_config.json").write_text(json.dumps(settings))


def _gemma3(folder: Path) -> None:
    """As it is published from 4B on: the decoder beside a vision tower."""
    transformers = compat.transformers()
    vision = {
        "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 32, "image_size": 28, "patch_size": 14, "vision_use_head": False,
    }  # fmt: skip
    text = {
        "vocab_size": 260, "hidden_size": WIDTH, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 64, "head_dim": 12, "sliding_window": 8,
        "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
    }  # fmt: skip
    config = transformers.Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=1,
        boi_token_index=1, eoi_token_index=2, image_token_index=3,
    )  # fmt: skip
    torch.manual_seed(0)
    with compat.quiet():
        transformers.Gemma3ForConditionalGeneration(config).save_pretrained(folder)
    tiny.byte_tokenizer(folder, framed=False)


def _gemma4(folder: Path) -> None:
    """Blocks of both widths of heads, two of which take the keys and values of others."""
    transformers = compat.transformers()
    kinds = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
    text = {
        "vocab_size": 260, "vocab_size_per_layer_input": 260, "hidden_size": WIDTH,
        "hidden_size_per_layer_input": 8, "intermediate_size": 64, "num_hidden_layers": 4,
        "layer_types": kinds, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 12,
        "global_head_dim": 24, "num_kv_shared_layers": 2, "use_double_wide_mlp": True,
        "sliding_window": 8, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
        "rope_parameters": {
            kinds[0]: {"rope_type": "default", "rope_theta": 1e4},
            kinds[1]: {
                "rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.25,
            },
        },
    }  # fmt: skip
    config = transformers.Gemma4Config(text_config=text, vision_config=None, audio_config=None)
    torch.manual_seed(0)
    with compat.quiet():
        transformers.Gemma4ForConditionalGeneration(config).save_pretrained(folder)
    tiny.byte_tokenizer(folder, framed=False)


def _qwen35(folder: Path) -> None:
    """As it is published: the decoder beside a vision tower."""
    transformers = compat.transformers()
    text = {
        "vocab_size": 260, "hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12,
        "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2,
        "linear_num_value_heads": 4, "layer_types": ["linear_attention"] * 3 + ["full_attention"],
        "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
    }  # fmt: skip
    vision = {
        "depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "patch_size": 14,
        "out_hidden_size": WIDTH, "num_position_embeddings": 16,
    }  # fmt: skip
    config = transformers.Qwen3_5Config(text_config=text, vision_config=vision)
    torch.manual_seed(0)
    with compat.quiet():
        transformers.Qwen3_5ForConditionalGeneration(config).save_pretrained(folder)
    tiny.byte_tokenizer(folder, framed=False)


def _t5(folder: Path) -> None:
    config = {"vocab_size": 32, "d_model": WIDTH, "d_kv": 12, "d_ff": 64, "num_layers": 3,
              "num_heads": 4}  # fmt: skip
    transformers = compat.transformers()
    torch.manual_seed(0)
    transformers.T5EncoderModel(transformers.T5Config(**config)).save_pretrained(folder)
    names = ["<pad>", "</s>", "<unk>", *"ALGVSREDTIPKFQNYMHWCX"]
    tiny_remote.letters(
        folder, names, special={"pad": "<pad>", "eos": "</s>", "unk": "<unk>"}, last="</s>"
    )


def _esmc_native(folder: Path) -> None:
    transformers = compat.transformers()
    config = {"hidden_size": WIDTH, "num_hidden_layers": 3, "num_attention_heads": 2}
    _save("EsmcModel", config, folder)
    transformers.EsmcTokenizer().save_pretrained(folder)


def _genome() -> list[str]:
    return [*random_dna(2, 40), *random_dna(1, 5)]


def _proteins() -> list[str]:
    return PROTEINS


def _sentences() -> list[str]:
    return SENTENCES


def _pairformer(
    name: str, package: str, save: Callable[[Path], None], architecture: dict[str, Any]
) -> dict[str, Architecture]:
    """A trunk's single stream and its pair stream, each of which has a card."""
    shared: dict[str, Any] = {"packages": (package,), "options": {"architecture": architecture}}
    pair: dict[str, Any] = {"width": 16, "changes": {"context": 64}}
    return {
        name: Architecture(save, _proteins, (name,), **shared),
        f"{name}-pair": Architecture(save, _proteins, (f"{name}-pair",), **shared, **pair),
    }


ARCHITECTURES: dict[str, Architecture] = {
    "gpt2": Architecture(tiny.gpt2, _sentences, ("gpt2",)),
    "gpt-neox": Architecture(tiny.gpt_neox, _sentences, ("pythia-70m", "pythia-410m")),
    "modernbert": Architecture(
        tiny.modernbert, _sentences, ("modernbert-base", "modernbert-large")
    ),
    "llama": Architecture(_decoder("Llama"), _sentences, ("llama-3.2-1b",)),
    "qwen2": Architecture(_decoder("Qwen2"), _sentences, ("qwen2.5-0.5b",)),
    "gpt-oss": Architecture(
        # Experts of whole blocks of MXFP4, which are 32 long; sliding attention below a window.
        _decoder(
            "GptOss", hidden_size=64, num_local_experts=4, num_experts_per_tok=2, sliding_window=8
        ),
        _sentences,
        ("gpt-oss-20b",),
        needs="GptOssModel",
        width=64,
    ),
    "gemma2": Architecture(_decoder("Gemma2", sliding_window=8), _sentences, ("gemma-2-2b",)),
    "gemma3": Architecture(
        _decoder("Gemma3Text", sliding_window=8),
        _sentences,
        ("gemma-3-1b",),
        needs="Gemma3TextModel",
    ),
    "gemma3-vision": Architecture(
        _gemma3,
        _sentences,
        ("gemma-3-4b", "gemma-3-12b", "gemma-3-27b"),
        needs="Gemma3Model",
    ),
    "gemma4": Architecture(_gemma4, _sentences, ("gemma-4-e2b",), needs="Gemma4Model", layers=4),
    "qwen3.5": Architecture(_qwen35, _sentences, ("qwen3.5-2b",), needs="Qwen3_5Model", layers=4),
    "qwen3": Architecture(
        _decoder("Qwen3"),
        _sentences,
        ("qwen3-0.6b", "qwen3-1.7b", "qwen3-4b", "qwen3-8b"),
        needs="Qwen3Model",
    ),
    "mae": Architecture(
        tiny_packages.mae,
        lambda: random_images(3),
        ("mae-base",),
        packages=("timm", "torchvision"),
    ),
    "dinov2": Architecture(tiny.dinov2, lambda: random_images(3), ("dinov2-base", "dinov2-large")),
    "dinov3": Architecture(
        tiny_packages.dinov3,
        lambda: random_images(3),
        ("dinov3-base", "dinov3-huge-plus", "dinov3-7b"),
        packages=("timm", "torchvision"),
        options={"architecture": "vit_base_patch16_dinov3"},
    ),
    "sd3": Architecture(
        tiny_packages.sd3,
        lambda: random_images(3),
        ("sd3.5-large",),
        packages=("diffusers",),
        options={"size": 16, "text_tokens": 5},
    ),
    "clip": Architecture(
        _tower("CLIP", "CLIPImageProcessor"), lambda: random_images(3), ("clip-vit-l14",)
    ),
    "siglip": Architecture(
        _tower("Siglip", "SiglipImageProcessor"),
        lambda: random_images(3),
        ("siglip-base", "siglip2-base"),
    ),
    "vjepa2": Architecture(
        _vjepa2,
        lambda: random_images(3),
        ("vjepa2-vitl",),
        needs="VJEPA2Model",
        options={"frames": 4},
    ),
    "esm2": Architecture(tiny.esm, _proteins, ("esm2-35m", "esm2-650m", "esm2-3b")),
    "esm3": Architecture(
        tiny_packages.esm_package("ESM3", "esm3_sm_open_v1.pth"),
        _proteins,
        ("esm3-open",),
        packages=("esm",),
        width=128,
        options={"heads": 2, "v_heads": 4},
    ),
    "esmc": Architecture(
        tiny_packages.esm_package("ESMC", "esmc_600m_2024_12_v0.pth"),
        _proteins,
        ("esmc-600m",),
        packages=("esm",),
        width=128,
        options={"heads": 2},
    ),
    "esmc-native": Architecture(
        _esmc_native,
        _proteins,
        ("esmc-300m-native", "esmc-600m-native", "esmc-6b-native"),
        needs="EsmcModel",
    ),
    "t5": Architecture(_t5, _proteins, ("prott5-xl",)),
    "alphafold3": Architecture(
        tiny_folding.alphafold3, lambda: [0, 1, 2], ("alphafold3",), layers=1
    ),
    "alphafold3-pair": Architecture(
        tiny_folding.alphafold3, lambda: [0, 1, 2], ("alphafold3-pair",), layers=1, width=8
    ),
    "boltz2-saved": Architecture(
        tiny_folding.boltz2_saved, lambda: [0, 1, 2], ("boltz2-saved",), layers=1
    ),
    "boltz2-saved-pair": Architecture(
        tiny_folding.boltz2_saved, lambda: [0, 1, 2], ("boltz2-saved-pair",), layers=1, width=8
    ),
    **_pairformer("boltz1", "boltz", tiny_folding.boltz1, tiny_folding.BOLTZ1),
    **_pairformer("boltz2", "boltz", tiny_folding.boltz2, tiny_folding.BOLTZ2),
    **_pairformer("openfold3", "openfold3", tiny_folding.openfold3, tiny_folding.OPENFOLD3),
    "enformer": Architecture(
        tiny.enformer,
        lambda: random_dna(2, 300),
        ("enformer",),
        # TensorFlow's positions are stored for the published length alone.
        options={"bases": 128, "use_tf_gamma": False},
        changes={"tokens": {"skip_first": 2, "skip_last": 1}},
    ),
    "borzoi": Architecture(
        tiny_packages.borzoi,
        lambda: random_dna(2, 2048),
        ("borzoi",),
        packages=("borzoi_pytorch",),
        options={"bases": 2048},
    ),
    "alphagenome": Architecture(
        tiny_packages.alphagenome,
        lambda: random_dna(2, 2048),
        ("alphagenome",),
        packages=("alphagenome_pt",),
        options={"bases": 2048, "architecture": tiny_packages.ALPHAGENOME},
    ),
    "spliceai": Architecture(
        tiny_packages.spliceai,
        lambda: random_dna(2, 200),
        ("openspliceai-10k",),
        packages=("openspliceai",),
        width=32,
        layers=5,
        changes={"context": 64, "tokens": {"skip_first": 16, "skip_last": 16}},
        options=tiny_packages.SPLICE["options"],
    ),
    "progen2": Architecture(
        tiny_remote.remote("ProGenForCausalLM", "AutoModelForCausalLM", tiny_remote.progen),
        _proteins,
        ("progen2-base",),
    ),
    "progen2-large": Architecture(
        # Its config.json names the repository, not the folder, as the home of the code.
        tiny_remote.remote(
            "ProGenForCausalLM",
            "AutoModelForCausalLM",
            tiny_remote.progen,
            "hugohrban/progen2-large",
        ),
        _proteins,
        ("progen2-large",),
    ),
    "glm2": Architecture(
        tiny_remote.remote("gLM2Model", "AutoModel", tiny_remote.glm2),
        lambda: CONTIGS,
        ("glm2-650m",),
    ),
    "stripedhyena": Architecture(
        tiny_remote.remote(
            "StripedHyenaModelForCausalLM", "AutoModelForCausalLM", tiny_remote.bytes_alone
        ),
        _genome,
        ("evo1-8k",),
    ),
    "nt-v2": Architecture(
        tiny_remote.remote("EsmForMaskedLM", "AutoModelForMaskedLM", tiny_remote.dna),
        _genome,
        ("nt-v2-500m",),
    ),
    "dnabert2": Architecture(
        tiny_remote.remote("BertModel", "AutoModel", tiny_remote.dna), _genome, ("dnabert2",)
    ),
    "hyenadna": Architecture(
        tiny_remote.remote("HyenaDNAForCausalLM", "AutoModelForCausalLM", tiny_remote.bytes_alone),
        _genome,
        ("hyenadna-160k",),
    ),
    "carbon": Architecture(
        _decoder("Llama", vocab_size=4224, max_position_embeddings=64),
        # One N hides six bases.
        lambda: [sequence.upper().replace("N", "A") for sequence in random_dna(3, 150)],
        ("carbon-3b",),
        options={"words": 37},
    ),
    "geneformer-v1": Architecture(
        tiny_cells.geneformer("Geneformer-V1-10M"), tiny_cells.cells, ("geneformer-v1-10m",)
    ),
    "geneformer-v2": Architecture(
        tiny_cells.geneformer("Geneformer-V2-104M", "Geneformer-V2-316M"),
        tiny_cells.cells,
        ("geneformer-v2-104m", "geneformer-v2-316m"),
    ),
    "caduceus": Architecture(
        tiny_remote.remote("CaduceusForMaskedLM", "AutoModelForMaskedLM", tiny_remote.bytes_alone),
        _genome,
        ("caduceus-ps",),
    ),
}

OF_CARD = {card: name for name, entry in ARCHITECTURES.items() for card in entry.cards}
