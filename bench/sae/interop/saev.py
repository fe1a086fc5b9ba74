"""saev (0.1): one `.pt` file, a line of JSON and then a state dict; ReLU only.

W_enc [d, n], b_enc [n], W_dec [n, d], b_dec [d]. The mean that saev subtracts from activations lies
outside of the file.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.sae.families import make_family
from bench.sae.interop import CannotSay
from bench.sae.interop.files import make_sae, read_torch, take
from bench.sae.model import SAE
from bench.sae.origin import Origin
from zoo.errors import BadWeights
from zoo.files import open_atomically

# The configuration is a short line.
_LONGEST_LINE = 1 << 16


def matches(place: Path) -> bool:
    return place.is_file() and "d_vit" in _config(place)


def _config(place: Path) -> dict[str, Any]:
    """The first line, empty where it is not a configuration."""
    try:
        with place.open("rb") as file:
            found = json.loads(file.readline(_LONGEST_LINE))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def read(place: Path) -> tuple[SAE, Origin]:
    config = _config(place)
    if "d_vit" not in config:
        raise BadWeights(f"{place}: its first line is not a configuration of saev")
    with place.open("rb") as file:
        file.readline(_LONGEST_LINE)
        tensors = read_torch(place, io.BytesIO(file.read()))
    return build(tensors, place), Origin()


def build(tensors: dict[str, Tensor], place: Path) -> SAE:
    """The SAE of a state dict, which is named `place`. Raises `BadWeights`."""
    take(tensors, place, W_enc=(None, None))
    width, n = tensors["W_enc"].shape
    take(tensors, place, W_dec=(n, width), b_enc=(n,), b_dec=(width,))
    return make_sae(
        tensors["W_enc"].T,
        tensors["b_enc"],
        tensors["W_dec"],
        tensors["b_dec"],
        make_family("relu"),
        where=place,
    )


def write(sae: SAE, place: Path, origin: Origin) -> list[str]:
    if sae.family.name != "relu":
        raise CannotSay(f"saev has ReLU SAEs only, not the family {sae.family.name}")
    plain = sae.folded()
    if plain.transform.norm is not None:
        raise CannotSay(f"saev's files have no per-token {plain.transform.norm} norm")
    if plain.n % plain.width:
        raise CannotSay(
            f"saev writes n as a multiple of the width, and {plain.n} is none of {plain.width}"
        )
    config = {"d_vit": plain.width, "exp_factor": plain.n // plain.width}
    tensors = {
        "W_enc": plain.W_enc.T,
        "b_enc": plain.b_enc,
        "W_dec": plain.W_dec,
        "b_dec": plain.b,
    }
    with open_atomically(place, place="as OUT") as file:
        file.write((json.dumps(config) + "\n").encode())
        buffer = io.BytesIO()
        torch.save({name: t.float().contiguous() for name, t in tensors.items()}, buffer)
        file.write(buffer.getvalue())
    return ["saev subtracts a mean that lies outside of its file: give it none (or zeros)"]
