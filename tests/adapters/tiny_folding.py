"""Tiny checkpoints of Pairformer trunks, and embeddings as their programs save them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from adapters import compat
from tests.adapters.tiny import WIDTH


def alphafold3(folder: Path) -> None:
    random = np.random.default_rng(0)
    for job, tokens in (("one", 21), ("two", 9)):
        below = folder / job / "seed-1_embeddings"
        below.mkdir(parents=True)
        np.savez_compressed(
            below / f"{job}_seed-1_embeddings.npz",
            single_embeddings=random.normal(size=(tokens, WIDTH)).astype(np.float16),
            pair_embeddings=random.normal(size=(tokens, tokens, 8)).astype(np.float16),
        )


def boltz2_saved(folder: Path) -> None:
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


def openfold3(folder: Path) -> None:
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


def boltz2(folder: Path) -> None:
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


# Boltz-1 has neither an argument for its blocks' heads of pairs nor templates.
BOLTZ1: dict[str, Any] = {
    "pairformer_args": {
        name: BOLTZ2["pairformer_args"][name]
        for name in (
            *("num_blocks", "num_heads", "dropout", "pairwise_head_width", "pairwise_num_heads"),
        )
    },
    "msa_args": BOLTZ2["msa_args"] | {"use_paired_feature": False},
}


def boltz1(folder: Path) -> None:
    with compat.quiet():
        from boltz.model.models.boltz1 import Boltz1
        from omegaconf import OmegaConf

        depths = {f"atom_{part}": 1 for part in ("encoder_depth", "encoder_heads")}
        saved: dict[str, Any] = {
            **{"atom_s": 16, "atom_z": 8, "token_s": WIDTH, "token_z": 16, "num_bins": 8},
            "training_args": OmegaConf.create({"max_lr": 0.1, "steps": [1, 2]}),
            "validation_args": OmegaConf.create({}),
            "embedder_args": OmegaConf.create(depths),
            "score_model_args": OmegaConf.create(
                {
                    **{**depths, "atom_decoder_depth": 1, "atom_decoder_heads": 1},
                    **{"token_transformer_depth": 1, "token_transformer_heads": 2},
                    **{"conditioning_transition_layers": 1, "dim_fourier": 8, "sigma_data": 16.0},
                }
            ),
            **{"diffusion_process_args": {}, "diffusion_loss_args": {}},
            **{"confidence_model_args": {}, "atom_feature_dim": 389},
        }
        torch.manual_seed(0)
        model = Boltz1(**saved, **BOLTZ1)
    _spread(model)
    saved["confidence_prediction"] = True  # as published, with a part for it
    weights = {**model.state_dict(), "confidence_module.weight": torch.zeros(1)}
    torch.save({"state_dict": weights, "hyper_parameters": saved}, folder / "boltz1_conf.ckpt")
    _pickle(_residues(), folder / "ccd.pkl")


def _molecules(folder: Path) -> None:
    folder.mkdir()
    for residue, molecule in _residues().items():
        _pickle(molecule, folder / f"{residue}.pkl")


def _pickle(content: Any, path: Path) -> None:
    """With all properties of molecules, their atoms' names among them."""
    import pickle

    from rdkit import Chem

    before = Chem.GetDefaultPickleProperties()
    Chem.SetDefaultPickleProperties(Chem.PropertyPickleOptions.AllProps)
    path.write_bytes(pickle.dumps(content))
    Chem.SetDefaultPickleProperties(before)


def _residues() -> dict[str, Any]:
    """The residues' atoms by name, at random places."""
    from boltz.data import const
    from rdkit import Chem

    found = {}
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
        found[residue] = molecule.GetMol()
    return found


def _spread(model: torch.nn.Module) -> None:
    """Random values where a fresh model has zeros, with which its blocks would do nothing."""
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
