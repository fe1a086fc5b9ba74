"""sparsify (eai-sparsify): `cfg.json` beside `sae.safetensors`.

encoder.weight [n, d], encoder.bias [n], W_dec [n, d], b_dec [d]. Codes are the k largest
pre-activations after a ReLU; there are no thresholds and no per-token norms.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from bench.sae.families import make_family
from bench.sae.families.topk import TopK
from bench.sae.interop import CannotSay
from bench.sae.interop.files import (
    NO_K,
    make_sae,
    peek_json,
    read_safetensors,
    read_settings,
    take,
    write_folder,
    write_json,
)
from bench.sae.model import SAE
from bench.sae.origin import Origin
from zoo.errors import BadWeights

_CONFIG, _WEIGHTS = "cfg.json", "sae.safetensors"


def matches(place: Path) -> bool:
    return (place / _WEIGHTS).is_file() and "d_in" in peek_json(place / _CONFIG)


def read(place: Path) -> tuple[SAE, Origin]:
    config = read_settings(place / _CONFIG)
    sae = build(config, read_safetensors(place / _WEIGHTS), place)
    layer = next((int(p) for p in place.name.split(".") if p.isdigit()), None)
    given = config.get("origin")
    # The folder is named by the hookpoint.
    known = {"layer": layer, "hook": place.name} if layer is not None else {}
    return sae, Origin.of(known | (given if isinstance(given, dict) else {}))


def build(config: dict[str, Any], tensors: dict[str, Tensor], place: Path) -> SAE:
    """The SAE of a configuration and a state dict, which are named `place`. Raises `BadWeights`."""
    where = place / _WEIGHTS
    for key in ("transcode", "skip_connection"):
        if config.get(key):
            raise BadWeights(f"{place / _CONFIG}: {key} is on: a transcoder is not an autoencoder")
    if config.get("activation", "topk") != "topk":
        raise BadWeights(f"{place / _CONFIG}: the activation {config['activation']!r} is not known")
    take(tensors, where, encoder__weight=(None, None))
    n, width = tensors["encoder.weight"].shape
    take(tensors, where, encoder__bias=(n,), W_dec=(n, width), b_dec=(width,))
    k = int(config.get("k", 32))
    return make_sae(
        tensors["encoder.weight"],
        tensors["encoder.bias"],
        tensors["W_dec"],
        tensors["b_dec"],
        # As many codes as there are features: a plain ReLU.
        make_family("relu") if k >= n else TopK(),
        k=NO_K if k >= n else k,
        where=where,
    )


def write(sae: SAE, place: Path, origin: Origin) -> list[str]:
    if sae.family.name not in ("topk", "relu"):
        raise CannotSay(
            f"sparsify's files hold no thresholds, which the family {sae.family.name} needs",
            "--to saelens holds them.",
        )
    plain = sae.folded()
    if plain.transform.norm is not None:
        raise CannotSay(
            f"sparsify's files have no per-token {plain.transform.norm} norm",
            "--to saelens has it.",
        )
    config: dict[str, Any] = {
        "activation": "topk",
        "expansion_factor": plain.n // plain.width,
        "normalize_decoder": True,
        "num_latents": plain.n,
        "k": plain.k if plain.family.name == "topk" else plain.n,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": plain.width,
        "origin": origin.to_dict(),
    }
    tensors = {
        "encoder.weight": plain.W_enc,
        "encoder.bias": plain.b_enc,
        "W_dec": plain.W_dec,
        "b_dec": plain.b,
    }

    def fill(folder: Path) -> None:
        save_file({k: t.float().contiguous() for k, t in tensors.items()}, folder / _WEIGHTS)
        write_json(folder / _CONFIG, config)

    write_folder(place, fill)
    return []
