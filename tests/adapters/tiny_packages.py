"""Tiny checkpoints of architectures whose code is a package of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.adapters.tiny import WIDTH


def dinov3(folder: Path) -> None:
    _timm(folder, "vit_base_patch16_dinov3")


def mae(folder: Path) -> None:
    _timm(folder, "vit_base_patch16_224")


def _timm(folder: Path, name: str) -> None:
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    shape = {"img_size": 32, "embed_dim": WIDTH, "depth": 3, "num_heads": 3}
    model = timm.create_model(name, pretrained=False, num_classes=0, **shape)
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    cfg = {"input_size": [3, 32, 32], "num_classes": 0, "crop_pct": 1.0}
    content = {"architecture": name, "num_classes": 0, "model_args": shape, "pretrained_cfg": cfg}
    (folder / "config.json").write_text(json.dumps(content))


def sd3(folder: Path) -> None:
    from diffusers import AutoencoderKL, SD3Transformer2DModel

    torch.manual_seed(0)
    SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=3,
        num_attention_heads=3, attention_head_dim=16, caption_projection_dim=WIDTH,
        joint_attention_dim=24, pooled_projection_dim=20, pos_embed_max_size=8, qk_norm="rms_norm",
    ).save_pretrained(folder / "transformer")  # fmt: skip
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"), block_out_channels=(8, 8),
        latent_channels=4, norm_num_groups=4, scaling_factor=1.5, shift_factor=0.06,
    ).save_pretrained(folder / "vae")  # fmt: skip
    # Parts of the repository that are not needed and must not be fetched.
    (folder / "text_encoder_3").mkdir()
    (folder / "text_encoder_3" / "model.safetensors").write_bytes(b"large")


def esm_package(kind: str, name: str) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        from types import SimpleNamespace

        from esm.tokenization import EsmSequenceTokenizer

        torch.manual_seed(0)
        shape = {"d_model": 128, "n_heads": 2, "n_layers": 3}
        if kind == "ESMC":
            from esm.models.esmc import ESMC

            model: Any = ESMC(**shape, tokenizer=EsmSequenceTokenizer(), use_flash_attn=False)
        else:
            from esm.models.esm3 import ESM3

            tokenizers = SimpleNamespace(sequence=EsmSequenceTokenizer())
            parts = dict.fromkeys(("structure_encoder", "structure_decoder", "function_decoder"))
            functions = {f"{part}_fn": None for part in parts}
            model = ESM3(**shape, v_heads=4, **functions, tokenizers=tokenizers)
        (folder / "data" / "weights").mkdir(parents=True)
        torch.save(model.state_dict(), folder / "data" / "weights" / name)
        torch.save({}, folder / "data" / "weights" / "another_part.pth")

    return save


def borzoi(folder: Path) -> None:
    from borzoi_pytorch import Borzoi

    torch.manual_seed(0)
    config = {"dim": WIDTH, "depth": 3, "heads": 2, "attn_dim_key": 8, "attn_dim_value": 24,
              "bins_to_return": 4}  # fmt: skip
    Borzoi.from_hparams(**config).save_pretrained(folder)


# 24 channels and 4 more at each of six halvings: WIDTH in the tower.
ALPHAGENOME = {
    **{"max_seq_len": 2048, "num_channels": 24, "channel_increment": 4, "transformer_layers": 3},
    **{"num_q_heads": 2, "qk_head_dim": 8, "v_head_dim": 8, "pair_channels": 8, "pair_heads": 2},
    "pos_channels": 8,
}


def alphagenome(folder: Path) -> None:
    from alphagenome_pt import AlphaGenome, AlphaGenomeConfig, synthetic_metadata
    from safetensors.torch import save_file

    torch.manual_seed(0)
    outputs = synthetic_metadata(num_organisms=2, num_tracks=2)
    model = AlphaGenome(AlphaGenomeConfig(**ALPHAGENOME, metadata=outputs))
    (folder / "v1.0.0").mkdir()
    save_file(model.state_dict(), folder / "v1.0.0" / "alphagenome_all_folds.safetensors")


def spliceai(folder: Path) -> None:
    from openspliceai.train_base.openspliceai import SpliceAI

    torch.manual_seed(0)
    options = SPLICE["options"]
    model = SpliceAI(32, np.array(options["window"]), np.array(options["dilation"]))
    torch.save(model.state_dict(), folder / "model.pt")


# Five units, so that the skip connection's tap lies between them; 16 bases of flank each side.
SPLICE: dict[str, Any] = {"options": {"window": [3] * 5, "dilation": [1, 1, 2, 2, 10]}}
