"""dictionary_learning: `config.json` beside `ae.pt`, read with `weights_only=True`.

Its classes differ in their tensors: encoder.weight [n, d], encoder.bias [n], decoder.weight [d, n]
and b_dec [d] (`bias` in AutoEncoder); W_enc [d, n], b_enc [n], W_dec [n, d], b_dec [d] in
JumpReluAutoEncoder, which does not subtract b_dec before the encoder, and in the Matryoshka one,
which does. A threshold of -1 was never trained.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.sae.families import make_family
from bench.sae.families.base import Family
from bench.sae.families.batchtopk import BatchTopK
from bench.sae.families.topk import TopK
from bench.sae.interop import CannotSay
from bench.sae.interop.files import (
    NO_K,
    make_sae,
    peek_json,
    read_settings,
    read_torch,
    take,
    thresholded,
    thresholds_of,
    write_folder,
    write_json,
)
from bench.sae.model import SAE
from bench.sae.origin import Origin
from zoo.errors import BadWeights

_CONFIG, _WEIGHTS = "config.json", "ae.pt"

_CLASSES = (
    "AutoEncoder",
    "AutoEncoderTopK",
    "BatchTopKSAE",
    "MatryoshkaBatchTopKSAE",
    "JumpReluAutoEncoder",
)


def matches(place: Path) -> bool:
    return (place / _WEIGHTS).is_file() and "trainer" in peek_json(place / _CONFIG)


# ------------------------------------------------------------------------------------- reading


def read(place: Path) -> tuple[SAE, Origin]:
    trainer = read_settings(place / _CONFIG).get("trainer")
    if not isinstance(trainer, dict):
        raise BadWeights(f"{place / _CONFIG}: trainer is not an object")
    sae = build(trainer, read_torch(place / _WEIGHTS), place)
    origin = trainer.get("origin")
    layer, model = trainer.get("layer"), trainer.get("lm_name")
    known = {"model": model, "layer": layer if isinstance(layer, int) else None}
    return sae, Origin.of(known | (origin if isinstance(origin, dict) else {}))


def build(trainer: dict[str, Any], tensors: dict[str, Tensor], place: Path) -> SAE:
    """The SAE of a trainer's configuration and a state dict, which are named `place`.

    Raises:
        BadWeights: the class is not known, or the tensors do not fit it.
    """
    name = trainer.get("dict_class")
    if name not in _CLASSES:
        raise BadWeights(
            f"{place / _CONFIG}: dictionaries of the class {name!r} are not known",
            f"Known are {', '.join(_CLASSES)}.",
        )
    where = place / _WEIGHTS
    W_enc, b_enc, W_dec, b = _weights(name, tensors, where)
    family, extra, k = _family(name, tensors, trainer, len(W_enc), where)
    return make_sae(W_enc, b_enc, W_dec, b, family, k=k, family_tensors=extra, where=where)


def _weights(
    name: str, tensors: dict[str, Tensor], where: Path
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if "W_enc" in tensors:
        take(tensors, where, W_enc=(None, None))
        width, n = tensors["W_enc"].shape
        take(tensors, where, W_dec=(n, width), b_enc=(n,), b_dec=(width,))
        W_enc, b_enc, b = tensors["W_enc"].T, tensors["b_enc"], tensors["b_dec"]
        if name == "JumpReluAutoEncoder":
            b_enc = b_enc.double() + W_enc.double() @ b.double()
        return W_enc, b_enc, tensors["W_dec"], b
    take(tensors, where, encoder__weight=(None, None))
    n, width = tensors["encoder.weight"].shape
    bias = "bias" if name == "AutoEncoder" else "b_dec"
    take(tensors, where, encoder__bias=(n,), decoder__weight=(width, n), **{bias: (width,)})
    W_enc, b_enc, W_dec = (
        tensors["encoder.weight"],
        tensors["encoder.bias"],
        tensors["decoder.weight"].T,
    )
    if name == "AutoEncoder":
        # The library gives the decoder unit norm when it loads one.
        norms = torch.linalg.vector_norm(W_dec.double(), dim=1)
        if not torch.allclose(norms, torch.ones_like(norms)) and bool((norms > 0).all()):
            W_enc, b_enc = W_enc.double() * norms[:, None], b_enc.double() * norms
            W_dec = W_dec.double() / norms[:, None]
    return W_enc, b_enc, W_dec, tensors[bias]


def _family(
    name: str, tensors: dict[str, Tensor], trainer: dict[str, Any], n: int, where: Path
) -> tuple[Family, dict[str, Tensor], int]:
    if name == "AutoEncoder":
        return make_family("relu"), {}, NO_K
    k = int(tensors["k"]) if "k" in tensors else int(trainer.get("k") or NO_K)
    if name == "AutoEncoderTopK":
        return TopK(), {}, k
    if "threshold" not in tensors:
        raise BadWeights(f"{where}: threshold is missing")
    threshold = tensors["threshold"]
    if threshold.ndim:
        take(tensors, where, threshold=(n,))
    return thresholded(threshold, k)


# ------------------------------------------------------------------------------------- writing


def write(sae: SAE, place: Path, origin: Origin) -> list[str]:
    plain = sae.folded()
    if plain.transform.norm is not None:
        raise CannotSay(
            f"dictionary_learning's files have no per-token {plain.transform.norm} norm",
            "--to saelens has it.",
        )
    dict_class, trainer_class, tensors, remarks = _tensors(plain)
    config = {
        "trainer": {
            "trainer_class": trainer_class,
            "dict_class": dict_class,
            "activation_dim": plain.width,
            "dict_size": plain.n,
            "k": plain.k,
            "layer": origin.layer,
            "lm_name": origin.model,
            "origin": origin.to_dict(),
        }
    }

    def fill(folder: Path) -> None:
        torch.save({name: t.contiguous() for name, t in tensors.items()}, folder / _WEIGHTS)
        write_json(folder / _CONFIG, config)

    write_folder(place, fill)
    return remarks


def _tensors(sae: SAE) -> tuple[str, str, dict[str, Tensor], list[str]]:
    """The class, its trainer, its tensors, and what is not exactly as it was."""
    linear = {
        "encoder.weight": sae.W_enc.float(),
        "encoder.bias": sae.b_enc.float(),
        "decoder.weight": sae.W_dec.T.float(),
    }
    name = sae.family.name
    if name == "relu":
        remarks = []
        norms = torch.linalg.vector_norm(sae.W_dec, dim=1)
        if not torch.allclose(norms, torch.ones_like(norms)):
            remarks = ["the library gives the decoder unit norm: codes rescale, x_hat stays"]
        return "AutoEncoder", "StandardTrainer", linear | {"bias": sae.b.float()}, remarks
    if isinstance(sae.family, (TopK, BatchTopK)):
        threshold = torch.tensor(-1.0)
        if isinstance(sae.family, BatchTopK):
            threshold = sae.family_tensors["threshold"].float()
        more = {
            "b_dec": sae.b.float(),
            "k": torch.tensor(sae.k, dtype=torch.int),
            "threshold": threshold,
        }
        topk = ("AutoEncoderTopK", "TopKTrainer"), ("BatchTopKSAE", "BatchTopKTrainer")
        dict_class, trainer_class = topk[isinstance(sae.family, BatchTopK)]
        return dict_class, trainer_class, linear | more, []
    if name != "jumprelu":
        raise CannotSay(f"dictionary_learning has no dictionaries like the family {name}")
    b_enc = sae.b_enc.double() - sae.W_enc.double() @ sae.b.double()
    jumprelu = {
        "W_enc": sae.W_enc.T.float(),
        "b_enc": b_enc.float(),
        "W_dec": sae.W_dec.float(),
        "b_dec": sae.b.float(),
        "threshold": thresholds_of(sae).float(),
    }
    remarks = ["b_dec is folded into b_enc, as this class does not subtract it: codes move by 1e-5"]
    return "JumpReluAutoEncoder", "JumpReluTrainer", jumprelu, remarks
