"""SAELens (6.x): `cfg.json` beside `sae_weights.safetensors`.

W_enc [d, n], b_enc [n], W_dec [n, d], b_dec [d], and threshold [n] of a JumpReLU SAE. Of the
configuration these change the function:

- `rescale_acts_by_decoder_norm` (TopK): the ranking is of pre-activations times the decoder rows'
  norms, and the decoder is used at unit norm.
- `apply_b_dec_to_input`: whether b_dec is subtracted before the encoder.
- `normalize_activations`: `constant_norm_rescale` is our per-token rms; `layer_norm` ours with the
  unbiased deviation. `expected_average_only_in` and `covariance_whitening` are folded into the
  weights when training ends; a checkpoint on the way has them in files beside it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from bench.sae.families import make_family
from bench.sae.families.base import Family
from bench.sae.families.topk import TopK
from bench.sae.interop import CannotSay
from bench.sae.interop.files import (
    NO_K,
    make_sae,
    read_safetensors,
    read_settings,
    take,
    thresholded,
    thresholds_of,
    write_folder,
    write_json,
)
from bench.sae.model import SAE
from bench.sae.origin import Origin, layer_of_hook
from bench.sae.transform import PerTokenNorm, Transform
from zoo.errors import BadWeights

_CONFIG, _WEIGHTS = "cfg.json", "sae_weights.safetensors"
SCALER, WHITENING = "activation_scaler.json", "activation_whitening.safetensors"

# Files of an older version are read by other rules.
_VERSION = "6.54.12"

_ARCHITECTURES = ("topk", "standard", "jumprelu", "batchtopk", "matryoshka_batchtopk")
_NORMS: dict[str, PerTokenNorm | None] = {
    "none": None,
    "constant_norm_rescale": "rms",
    "layer_norm": "layernorm",
    "expected_average_only_in": None,
    "covariance_whitening": None,
}


def matches(place: Path) -> bool:
    return (place / _WEIGHTS).is_file() and (place / _CONFIG).is_file()


# ------------------------------------------------------------------------------------- reading


def read(place: Path) -> tuple[SAE, Origin]:
    config = read_settings(place / _CONFIG)
    sae = build(config, read_safetensors(place / _WEIGHTS), place)
    return sae, _origin(config)


def build(config: dict[str, Any], tensors: dict[str, Tensor], place: Path) -> SAE:
    """The SAE of a configuration and a state dict, which are named `place`. Raises `BadWeights`."""
    where = place / _WEIGHTS
    take(tensors, where, W_enc=(None, None))
    width, n = tensors["W_enc"].shape
    take(tensors, where, W_dec=(n, width), b_enc=(n,), b_dec=(width,))
    architecture = str(config.get("architecture", "standard")).removesuffix("_training")
    if architecture not in _ARCHITECTURES:
        raise BadWeights(
            f"{place / _CONFIG}: SAEs of the architecture {architecture!r} are not known",
            f"Known are {', '.join(_ARCHITECTURES)}.",
        )
    W_enc, b_enc, W_dec, b = (
        tensors[name].double() for name in ("W_enc", "b_enc", "W_dec", "b_dec")
    )
    W_enc = W_enc.T
    if config.get("rescale_acts_by_decoder_norm", False):
        norms = torch.linalg.vector_norm(W_dec, dim=1)
        if not bool((norms > 0).all()):
            raise BadWeights(f"{where}: a row of W_dec is zero, and codes are divided by its norm")
        W_enc, b_enc, W_dec = W_enc * norms[:, None], b_enc * norms, W_dec / norms[:, None]
    if not config.get("apply_b_dec_to_input", True):
        b_enc = b_enc + W_enc @ b
    family, extra, k = _family(architecture, config, tensors, place, n)
    transform, factor = _transform(config, place, width)
    # The unbiased deviation is larger by this factor, going in and coming out.
    W_enc, W_dec, b = W_enc / factor, W_dec * factor, b * factor
    return make_sae(
        W_enc, b_enc, W_dec, b, family, k=k, family_tensors=extra, transform=transform, where=where
    )


def _family(
    architecture: str, config: dict[str, Any], tensors: dict[str, Tensor], place: Path, n: int
) -> tuple[Family, dict[str, Tensor], int]:
    if architecture == "topk":
        return TopK(), {}, int(config.get("k", 100))
    if architecture == "standard":
        return make_family("relu"), {}, NO_K
    # BatchTopK is saved as JumpReLU when training ends; on the way its threshold is a scalar.
    name = "threshold" if architecture == "jumprelu" else "topk_threshold"
    if name not in tensors:
        raise BadWeights(f"{place / _WEIGHTS}: {name} is missing")
    threshold = tensors[name]
    if threshold.ndim:
        take(tensors, place / _WEIGHTS, **{name: (n,)})
    return thresholded(threshold, int(config.get("k", NO_K)))


def _transform(config: dict[str, Any], place: Path, width: int) -> tuple[Transform, float]:
    """What is done to the activations first, and by how much a deviation is larger than ours."""
    name = config.get("normalize_activations", "none")
    if name not in _NORMS:
        raise BadWeights(f"{place / _CONFIG}: normalize_activations {name!r} is not known")
    if name == "expected_average_only_in":
        scale = read_settings(place / SCALER).get("scaling_factor")
        if not isinstance(scale, float | int) or not 0 < scale < math.inf:
            raise BadWeights(
                f"{place / SCALER}: no scaling_factor, which normalize_activations needs"
            )
        return Transform(torch.zeros(width), float(scale)), 1.0
    if name == "covariance_whitening":
        found = read_safetensors(place / WHITENING)
        square = (width, width)
        take(found, place / WHITENING, mean=(width,), matrix=square, inverse_matrix=square)
        whitening = (found["matrix"], found["inverse_matrix"])
        return Transform(found["mean"], 1.0, *whitening), 1.0
    norm = _NORMS[name]
    factor = math.sqrt(width / (width - 1)) if norm == "layernorm" else 1.0
    return Transform.identity(width, norm), factor


def _origin(config: dict[str, Any]) -> Origin:
    metadata = config.get("metadata")
    data: dict[str, Any] = config | (metadata if isinstance(metadata, dict) else {})
    hook = data.get("hook_name", data.get("hook_point"))  # the latter before version 3
    hook = hook if isinstance(hook, str) else None
    # Their layer is the hook's, and a block's input is what ours, the one before it, gives out.
    layer = None if hook is None else layer_of_hook(hook)
    return Origin(
        model=data.get("model_name"),
        layer=data.get("hook_layer", data.get("hook_point_layer")) if layer is None else layer,
        hook_tl=hook,
        **{key: data.get(key) for key in ("revision", "arm", "seed", "corpus", "record")},
    )


# ------------------------------------------------------------------------------------- writing


def write(sae: SAE, place: Path, origin: Origin) -> list[str]:
    plain = sae.folded()
    norm = plain.transform.norm
    names = {value: key for key, value in _NORMS.items() if value is not None}
    config: dict[str, Any] = {
        "architecture": _architecture(plain),
        "d_in": plain.width,
        "d_sae": plain.n,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none" if norm is None else names[norm],
        "reshape_activations": "none",
        "metadata": _metadata(origin),
    }
    if plain.family.name == "topk":
        # True is SAELens' own default in training, and would change the ranking.
        config |= {"k": plain.k, "rescale_acts_by_decoder_norm": False}
    factor = math.sqrt(plain.width / (plain.width - 1)) if norm == "layernorm" else 1.0
    tensors = {
        "W_enc": (plain.W_enc * factor).T,
        "b_enc": plain.b_enc,
        "W_dec": plain.W_dec / factor,
        "b_dec": plain.b / factor,
    }
    if config["architecture"] == "jumprelu":
        tensors["threshold"] = thresholds_of(plain)

    def fill(folder: Path) -> None:
        save_file({k: t.float().contiguous() for k, t in tensors.items()}, folder / _WEIGHTS)
        write_json(folder / _CONFIG, config)

    write_folder(place, fill)
    return _remarks(plain)


def _architecture(sae: SAE) -> str:
    names = {
        "topk": "topk",
        "relu": "standard",
        "jumprelu": "jumprelu",
        "batchtopk": "jumprelu",
        "matryoshka": "jumprelu",
    }
    if sae.family.name not in names:
        raise CannotSay(f"SAELens has no SAEs like the family {sae.family.name}")
    return names[sae.family.name]


def _metadata(origin: Origin) -> dict[str, Any]:
    known = origin.to_dict()
    renamed = {"model": "model_name", "layer": "hook_layer", "hook": "hook_name_hf"}
    named = {renamed.get(key, key): value for key, value in known.items() if key != "hook_tl"}
    hook = origin.hook_tl or origin.hook
    more: dict[str, Any] = {} if hook is None else {"hook_name": hook}
    if hook is not None and hook.endswith(".hook_resid_pre") and origin.layer is not None:
        more["hook_layer"] = origin.layer + 1
    return {"sae_lens_version": _VERSION, **named, **more}


def _remarks(sae: SAE) -> list[str]:
    found = []
    if sae.transform.norm == "layernorm":
        found.append(
            "SAELens' layer_norm adds its eps outside of the root: a few selections per 100,000 "
            "may differ"
        )
    if float(torch.linalg.vector_norm(sae.b)) > 0:
        found.append(
            "load it in float32: with dtype bfloat16 a center that is large beside the spread "
            "costs codes"
        )
    return found
