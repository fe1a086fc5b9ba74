"""InterPLM: `ae_unnormalized.pt`, `ae_normalized.pt` or `ae.pt` in folders such as `layer_24`.

encoder.weight [n, d], encoder.bias [n], decoder.weight [d, n], bias [d], of ReLU SAEs whose decoder
is used as it is. Where `normalize_to_sqrt_d` is true, tokens are divided by their RMS first.
Layer L is hidden_states[L] of the model, the output of block L - 1.
"""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor

from bench.sae.families import make_family
from bench.sae.interop import CannotSay
from bench.sae.interop.files import make_sae, read_torch, take
from bench.sae.model import SAE
from bench.sae.origin import Origin
from bench.sae.transform import Transform

# The preferred first: codes of the normalized one are at most 1, in units of their maximum.
_WEIGHTS = ("ae_unnormalized.pt", "ae_normalized.pt")


def matches(place: Path) -> bool:
    if place.is_file():
        return place.name in _WEIGHTS
    with_settings = (place / "config.yaml").is_file() and (place / "ae.pt").is_file()
    return with_settings or any((place / name).is_file() for name in _WEIGHTS)


def read(place: Path) -> tuple[SAE, Origin]:
    names = [place / name for name in (*_WEIGHTS, "ae.pt")]
    where = place if place.is_file() else next(path for path in names if path.is_file())
    tensors = read_torch(where)
    take(tensors, where, encoder__weight=(None, None))
    n, width = tensors["encoder.weight"].shape
    take(tensors, where, encoder__bias=(n,), decoder__weight=(width, n), bias=(width,))
    sae = make_sae(
        tensors["encoder.weight"],
        tensors["encoder.bias"],
        tensors["decoder.weight"].T,
        tensors["bias"],
        make_family("relu"),
        transform=Transform.identity(width, "rms" if _normalizes(tensors) else None),
        where=where,
    )
    layer = re.fullmatch(r"layer_(\d+)", where.parent.name)
    return sae, Origin(layer=int(layer[1]) - 1 if layer else None)


def _normalizes(tensors: dict[str, Tensor]) -> bool:
    return bool(tensors.get("normalize_to_sqrt_d", False))


def write(sae: SAE, place: Path, origin: Origin) -> list[str]:
    raise CannotSay(
        "InterPLM's files are read here, not written", "--to dictionary_learning is near to them."
    )
