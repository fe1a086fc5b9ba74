"""A tiny random checkpoint of each card's architecture, laid out as its repository is.

`ARCHITECTURES` says how to make one and what changes in the card for it: sizes, and what follows
from them. All else (where the blocks are, which output is the stream, the token rule, the
repository's id, its commit and subfolders) stays as the card has it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adapters import compat
from tests.adapters import tiny
from tests.adapters.tiny import PROTEINS, SENTENCES, WIDTH, random_dna, random_images
from zoo.cards import Card

REMOTE = Path(__file__).parent / "remote" / "modeling_standin.py"
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
        content = card.model_dump(exclude_none=True) | {"context": 16, "device": "any"}
        if card.checkpoint.remote_code:
            content["requires"] = ()  # of the code that a stand-in stands for
        content["tap"] = content["tap"] | {"width": self.width, "layers": self.layers}
        content["options"] = content["options"] | self.options
        return Card.model_validate(content | self.changes)


# ------------------------------------------------------------------------------- transformers


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


def _t5(folder: Path) -> None:
    config = {"vocab_size": 32, "d_model": WIDTH, "d_kv": 12, "d_ff": 64, "num_layers": 3,
              "num_heads": 4}  # fmt: skip
    transformers = compat.transformers()
    torch.manual_seed(0)
    transformers.T5EncoderModel(transformers.T5Config(**config)).save_pretrained(folder)
    names = ["<pad>", "</s>", "<unk>", *"ALGVSREDTIPKFQNYMHWCX"]
    letters(folder, names, special={"pad": "<pad>", "eos": "</s>", "unk": "<unk>"}, last="</s>")


def _esmc_native(folder: Path) -> None:
    transformers = compat.transformers()
    config = {"hidden_size": WIDTH, "num_hidden_layers": 3, "num_attention_heads": 2}
    _save("EsmcModel", config, folder)
    transformers.EsmcTokenizer().save_pretrained(folder)


# ------------------------------------------------------------------------------- other packages


def _dinov3(folder: Path) -> None:
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    shape = {"img_size": 32, "embed_dim": WIDTH, "depth": 3, "num_heads": 3}
    name = "vit_base_patch16_dinov3"
    model = timm.create_model(name, pretrained=False, num_classes=0, **shape)
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    cfg = {"input_size": [3, 32, 32], "num_classes": 0, "crop_pct": 1.0}
    content = {"architecture": name, "num_classes": 0, "model_args": shape, "pretrained_cfg": cfg}
    (folder / "config.json").write_text(json.dumps(content))


def _sd3(folder: Path) -> None:
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


def _esm_package(kind: str, name: str) -> Callable[[Path], None]:
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


def _borzoi(folder: Path) -> None:
    from borzoi_pytorch import Borzoi

    torch.manual_seed(0)
    config = {"dim": WIDTH, "depth": 3, "heads": 2, "attn_dim_key": 8, "attn_dim_value": 24,
              "bins_to_return": 4}  # fmt: skip
    Borzoi.from_hparams(**config).save_pretrained(folder)


def _spliceai(folder: Path) -> None:
    from openspliceai.train_base.openspliceai import SpliceAI

    torch.manual_seed(0)
    options = SPLICE["options"]
    model = SpliceAI(32, np.array(options["window"]), np.array(options["dilation"]))
    torch.save(model.state_dict(), folder / "model.pt")


# Five units, so that the skip connection's tap lies between them; 16 bases of flank each side.
SPLICE: dict[str, Any] = {"options": {"window": [3] * 5, "dilation": [1, 1, 2, 2, 10]}}


def _alphafold3(folder: Path) -> None:
    random = np.random.default_rng(0)
    for job, tokens in (("one", 21), ("two", 9)):
        below = folder / job / "seed-1_embeddings"
        below.mkdir(parents=True)
        np.savez_compressed(
            below / f"{job}_seed-1_embeddings.npz",
            single_embeddings=random.normal(size=(tokens, WIDTH)).astype(np.float16),
            pair_embeddings=random.normal(size=(tokens, tokens, 8)).astype(np.float16),
        )


def _boltz2_saved(folder: Path) -> None:
    random = np.random.default_rng(0)
    for job, tokens in (("one", 21), ("two", 9)):
        below = folder / "boltz_results_all" / "predictions" / job
        below.mkdir(parents=True)
        np.savez_compressed(
            below / f"embeddings_{job}.npz",
            s=random.normal(size=(1, tokens, WIDTH)).astype(np.float32),
            z=random.normal(size=(1, tokens, tokens, 8)).astype(np.float32),
        )
        np.savez_compressed(below / f"plddt_{job}_model_0.npz", plddt=random.normal(size=tokens))


OPENFOLD3 = {
    "shared": {"c_s": WIDTH, "c_z": 16},
    "input_embedder": {
        "atom_attn_enc": {
            **{"c_atom": 16, "c_atom_pair": 4, "c_hidden": 4, "no_blocks": 1, "c_token": WIDTH}
        }
    },
    "template": {
        "c_t": 8,
        "template_pair_embedder": {"c_out": 8},
        "template_pair_stack": {
            **{
                "c_t": 8,
                "c_hidden_tri_att": 4,
                "c_hidden_tri_mul": 8,
                "no_blocks": 1,
                "no_heads": 2,
            }
        },
    },
    "msa": {
        "msa_module_embedder": {"c_m": 8},
        "msa_module": {
            **{"c_m": 8, "c_hidden_opm": 4, "c_hidden_mul": 8, "c_hidden_pair_att": 4},
            **{"no_heads_msa": 2, "no_heads_pair": 2, "no_blocks": 1},
        },
    },
    "pairformer": {
        **{"c_hidden_pair_bias": 12, "no_heads_pair_bias": 4, "c_hidden_mul": 8},
        **{"c_hidden_pair_att": 4, "no_heads_pair": 2, "no_blocks": 3},
    },
    "diffusion_module": {
        name: {"no_blocks": 1}
        for name in ("diffusion_transformer", "atom_attn_enc", "atom_attn_dec")
    },
}


def _openfold3(folder: Path) -> None:
    with compat.quiet():
        from openfold3.projects.of3_all_atom.model import OpenFold3
        from openfold3.projects.of3_all_atom.project_entry import OF3ProjectEntry

        config = OF3ProjectEntry().get_model_config_with_presets()
        config.update({"architecture": OPENFOLD3})
        torch.manual_seed(0)
        model = OpenFold3(config)
    _spread(model)
    torch.save(model.state_dict(), folder / "of3-ob-2025-06-30-174k.pt")


# What the program sets itself, and a card may change.
BOLTZ2: dict[str, Any] = {
    "pairformer_args": {
        **{"num_blocks": 3, "num_heads": 4, "dropout": 0.0, "v2": True},
        **{"pairwise_head_width": 4, "pairwise_num_heads": 2},
    },
    "msa_args": {
        **{"msa_s": 8, "msa_blocks": 1, "msa_dropout": 0.0, "z_dropout": 0.0},
        **{"pairwise_head_width": 4, "pairwise_num_heads": 2},
    },
}


def _boltz2(folder: Path) -> None:
    with compat.quiet():
        from boltz.model.models.boltz2 import Boltz2
        from omegaconf import OmegaConf

        depths = {f"atom_{part}": 1 for part in ("encoder_depth", "encoder_heads")}
        saved: dict[str, Any] = {
            **{"atom_s": 16, "atom_z": 8, "token_s": WIDTH, "token_z": 16, "num_bins": 8},
            "training_args": OmegaConf.create({"max_lr": 0.1, "steps": [1, 2]}),
            "validation_args": OmegaConf.create({}),
            "embedder_args": OmegaConf.create(
                depths
                | dict.fromkeys((f"add_{name}_flag" for name in ("modified", "cyclic")), True)
                | {"add_method_conditioning": True, "add_mol_type_feat": True}
            ),
            "score_model_args": OmegaConf.create(
                {
                    **{**depths, "atom_decoder_depth": 1, "atom_decoder_heads": 1},
                    **{"token_transformer_depth": 1, "token_transformer_heads": 2},
                    **{"conditioning_transition_layers": 1, "dim_fourier": 8},
                }
            ),
            **{"diffusion_process_args": {}, "diffusion_loss_args": {}},
            **{"atom_feature_dim": 388, "confidence_prediction": False},
            **{"bond_type_feature": True, "use_templates": True, "use_templates_v2": True},
            "template_args": OmegaConf.create(
                {
                    **{"template_dim": 8, "template_blocks": 1},
                    **{"pairwise_head_width": 4, "pairwise_num_heads": 2},
                }
            ),
        }
        torch.manual_seed(0)
        model = Boltz2(**saved, **BOLTZ2, validate_structure=False)
    _spread(model)
    weights = {**model.state_dict(), "confidence_module.weight": torch.zeros(1)}
    torch.save({"state_dict": weights, "hyper_parameters": saved}, folder / "boltz2_conf.ckpt")
    _molecules(folder / "mols")


def _molecules(folder: Path) -> None:
    """The residues' atoms by name, at random places."""
    import pickle

    from boltz.data import const
    from rdkit import Chem

    folder.mkdir()
    random = np.random.default_rng(0)
    for residue in const.prot_letter_to_token.values():
        molecule = Chem.RWMol()
        conformer = Chem.Conformer(len(const.ref_atoms[residue]))
        for number, name in enumerate(const.ref_atoms[residue]):
            atom = Chem.Atom(name[0])
            atom.SetProp("name", name)
            molecule.AddAtom(atom)
            conformer.SetAtomPosition(number, random.normal(size=3).tolist())
        molecule.AddConformer(conformer)
        before = Chem.GetDefaultPickleProperties()
        Chem.SetDefaultPickleProperties(Chem.PropertyPickleOptions.AllProps)
        (folder / f"{residue}.pkl").write_bytes(pickle.dumps(molecule.GetMol()))
        Chem.SetDefaultPickleProperties(before)


def _spread(model: torch.nn.Module) -> None:
    """Random values where a fresh model has zeros, with which its blocks would do nothing."""
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)


# ---------------------------------------------------------------------------------- remote code


def letters(
    folder: Path,
    names: list[str],
    *,
    special: dict[str, str],
    first: str = "",
    last: str = "",
    alone: bool = False,
) -> None:
    """A tokenizer of single letters. `alone`: tokenizer.json and nothing else."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

    vocabulary = {name: number for number, name in enumerate(names)}
    rules = Tokenizer(models.WordLevel(vocabulary, unk_token=special.get("unk", names[0])))
    split = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex("<[+-]>|."), "isolated")]
    rules.pre_tokenizer = pre_tokenizers.Sequence(split)
    if first or last:
        frame = [name for name in (first, last) if name]
        rules.post_processor = processors.TemplateProcessing(
            single=" ".join(part for part in (first, "$A", last) if part),
            special_tokens=[(name, vocabulary[name]) for name in frame],
        )
    if alone:
        rules.save(str(folder / "tokenizer.json"))
        return
    named = {f"{kind}_token": name for kind, name in special.items()}
    compat.transformers().PreTrainedTokenizerFast(tokenizer_object=rules, **named).save_pretrained(
        folder
    )


BASES = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *"ACGTN"]
FRAMED = {"pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "unk": "[UNK]"}
RESIDUES = list("ACDEFGHIKLMNPQRSTVWYXBZUO")


def _dna(folder: Path) -> None:
    letters(folder, BASES, special=FRAMED, first="[CLS]", last="[SEP]")


def _bytes_alone(folder: Path) -> None:
    letters(folder, BASES, special=FRAMED)


def _progen(folder: Path) -> None:
    letters(folder, ["<|pad|>", "<|bos|>", "<|eos|>", "1", "2", *RESIDUES], special={}, alone=True)


def _glm2(folder: Path) -> None:
    names = ["<unk>", "<pad>", *RESIDUES, *"acgt", "<+>", "<->"]
    letters(folder, names, special={"unk": "<unk>", "pad": "<pad>"})


def remote(
    name: str, auto: str, tokenizer: Callable[[Path], None], hub: str = ""
) -> Callable[[Path], None]:
    """A repository with code of its own: class `name` after the auto class `auto`."""

    def save(folder: Path) -> None:
        from safetensors.torch import save_file

        from tests.adapters.remote import modeling_standin

        torch.manual_seed(0)
        model = getattr(modeling_standin, name)(modeling_standin.Config())
        own = dict(model.named_parameters())  # what is tied is stored once
        save_file({key: tensor.detach() for key, tensor in own.items()},
                  folder / "model.safetensors", metadata={"format": "pt"})  # fmt: skip
        model.config.save_pretrained(folder)
        config = json.loads((folder / "config.json").read_text())
        where = f"{hub}--modeling_standin" if hub else "modeling_standin"
        config["auto_map"] = {"AutoConfig": f"{where}.Config", auto: f"{where}.{name}"}
        (folder / "config.json").write_text(json.dumps(config))
        shutil.copy(REMOTE, folder)
        tokenizer(folder)

    return save


def _genome() -> list[str]:
    return [*random_dna(2, 40), *random_dna(1, 5)]


def _proteins() -> list[str]:
    return PROTEINS


def _sentences() -> list[str]:
    return SENTENCES


ARCHITECTURES: dict[str, Architecture] = {
    "gpt2": Architecture(tiny.gpt2, _sentences, ("gpt2",)),
    "gpt-neox": Architecture(tiny.gpt_neox, _sentences, ("pythia-70m", "pythia-410m")),
    "modernbert": Architecture(
        tiny.modernbert, _sentences, ("modernbert-base", "modernbert-large")
    ),
    "llama": Architecture(_decoder("Llama"), _sentences, ("llama-3.2-1b",)),
    "qwen2": Architecture(_decoder("Qwen2"), _sentences, ("qwen2.5-0.5b",)),
    "gemma2": Architecture(_decoder("Gemma2", sliding_window=8), _sentences, ("gemma-2-2b",)),
    "dinov2": Architecture(tiny.dinov2, lambda: random_images(3), ("dinov2-base", "dinov2-large")),
    "dinov3": Architecture(
        _dinov3,
        lambda: random_images(3),
        ("dinov3-base", "dinov3-huge-plus", "dinov3-7b"),
        packages=("timm", "torchvision"),
        options={"architecture": "vit_base_patch16_dinov3"},
    ),
    "sd3": Architecture(
        _sd3,
        lambda: random_images(3),
        ("sd3.5-large",),
        packages=("diffusers",),
        options={"size": 16, "text_tokens": 5},
    ),
    "clip": Architecture(
        _tower("CLIP", "CLIPImageProcessor"), lambda: random_images(3), ("clip-vit-l14",)
    ),
    "siglip": Architecture(
        _tower("Siglip", "SiglipImageProcessor"), lambda: random_images(3), ("siglip-base",)
    ),
    "esm2": Architecture(tiny.esm, _proteins, ("esm2-35m", "esm2-650m", "esm2-3b")),
    "esm3": Architecture(
        _esm_package("ESM3", "esm3_sm_open_v1.pth"),
        _proteins,
        ("esm3-open",),
        packages=("esm",),
        width=128,
        options={"heads": 2, "v_heads": 4},
    ),
    "esmc": Architecture(
        _esm_package("ESMC", "esmc_600m_2024_12_v0.pth"),
        _proteins,
        ("esmc-600m",),
        packages=("esm",),
        width=128,
        options={"heads": 2},
    ),
    "esmc-native": Architecture(_esmc_native, _proteins, ("esmc-600m-native",), needs="EsmcModel"),
    "t5": Architecture(_t5, _proteins, ("prott5-xl",)),
    "alphafold3": Architecture(_alphafold3, lambda: [0, 1, 2], ("alphafold3",), layers=1),
    "alphafold3-pair": Architecture(
        _alphafold3, lambda: [0, 1, 2], ("alphafold3-pair",), layers=1, width=8
    ),
    "boltz2-saved": Architecture(_boltz2_saved, lambda: [0, 1, 2], ("boltz2-saved",), layers=1),
    "boltz2-saved-pair": Architecture(
        _boltz2_saved, lambda: [0, 1, 2], ("boltz2-saved-pair",), layers=1, width=8
    ),
    "boltz2": Architecture(
        _boltz2, _proteins, ("boltz2",), packages=("boltz",), options={"architecture": BOLTZ2}
    ),
    "boltz2-pair": Architecture(
        _boltz2,
        _proteins,
        ("boltz2-pair",),
        packages=("boltz",),
        width=16,
        changes={"context": 64},
        options={"architecture": BOLTZ2},
    ),
    "openfold3": Architecture(
        _openfold3,
        _proteins,
        ("openfold3",),
        packages=("openfold3",),
        options={"architecture": OPENFOLD3},
    ),
    "openfold3-pair": Architecture(
        _openfold3,
        _proteins,
        ("openfold3-pair",),
        packages=("openfold3",),
        width=16,
        changes={"context": 64},
        options={"architecture": OPENFOLD3},
    ),
    "enformer": Architecture(
        tiny.enformer,
        lambda: random_dna(2, 300),
        ("enformer",),
        # TensorFlow's positions are stored for the published length alone.
        options={"bases": 128, "use_tf_gamma": False},
        changes={"tokens": {"skip_first": 2, "skip_last": 1}},
    ),
    "borzoi": Architecture(
        _borzoi,
        lambda: random_dna(2, 2048),
        ("borzoi",),
        packages=("borzoi_pytorch",),
        options={"bases": 2048},
    ),
    "spliceai": Architecture(
        _spliceai,
        lambda: random_dna(2, 200),
        ("openspliceai-10k",),
        packages=("openspliceai",),
        width=32,
        layers=5,
        changes={"context": 64, "tokens": {"skip_first": 16, "skip_last": 16}},
        options=SPLICE["options"],
    ),
    "progen2": Architecture(
        remote("ProGenForCausalLM", "AutoModelForCausalLM", _progen),
        _proteins,
        ("progen2-base",),
    ),
    "progen2-large": Architecture(
        # Its config.json names the repository, not the folder, as the home of the code.
        remote("ProGenForCausalLM", "AutoModelForCausalLM", _progen, "hugohrban/progen2-large"),
        _proteins,
        ("progen2-large",),
    ),
    "glm2": Architecture(remote("gLM2Model", "AutoModel", _glm2), lambda: CONTIGS, ("glm2-650m",)),
    "stripedhyena": Architecture(
        remote("StripedHyenaModelForCausalLM", "AutoModelForCausalLM", _bytes_alone),
        _genome,
        ("evo1-8k",),
    ),
    "nt-v2": Architecture(
        remote("EsmForMaskedLM", "AutoModelForMaskedLM", _dna), _genome, ("nt-v2-500m",)
    ),
    "dnabert2": Architecture(remote("BertModel", "AutoModel", _dna), _genome, ("dnabert2",)),
    "hyenadna": Architecture(
        remote("HyenaDNAForCausalLM", "AutoModelForCausalLM", _bytes_alone),
        _genome,
        ("hyenadna-160k",),
    ),
    "caduceus": Architecture(
        remote("CaduceusForMaskedLM", "AutoModelForMaskedLM", _bytes_alone),
        _genome,
        ("caduceus-ps",),
    ),
}

OF_CARD = {card: name for name, entry in ARCHITECTURES.items() for card in entry.cards}
