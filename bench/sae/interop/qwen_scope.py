"""Qwen-Scope: files such as `layer6.sae.pt`, TopK SAEs of the residual stream.

W_enc [n, d], W_dec [d, n], b_enc [n], b_dec [d], which is not subtracted before the encoder. k is
in the repository's name (`L0_50`) alone, the layer in the file's.
"""

from __future__ import annotations

import re
from pathlib import Path

from bench.sae.families.topk import TopK
from bench.sae.interop import CannotSay
from bench.sae.interop.files import make_sae, read_torch, take
from bench.sae.model import SAE
from bench.sae.origin import Origin, residual_hook
from zoo.errors import BadWeights

_NAME = re.compile(r"layer(\d+)\.sae\.pt")


def matches(place: Path) -> bool:
    return place.is_file() and bool(_NAME.fullmatch(place.name))


def read(place: Path) -> tuple[SAE, Origin]:
    k = re.findall(r"L0_(\d+)", place.as_posix())
    if not k:
        raise BadWeights(
            f"{place}: its k is in the name of its repository alone",
            "Keep it in a folder whose name ends as the repository's, such as W32K-L0_50.",
        )
    tensors = read_torch(place)
    take(tensors, place, W_enc=(None, None))
    n, width = tensors["W_enc"].shape
    take(tensors, place, W_dec=(width, n), b_enc=(n,), b_dec=(width,))
    W_enc, b = tensors["W_enc"].double(), tensors["b_dec"].double()
    sae = make_sae(
        W_enc,
        tensors["b_enc"].double() + W_enc @ b,
        tensors["W_dec"].T,
        b,
        TopK(),
        k=int(k[-1]),
        where=place,
    )
    found = _NAME.fullmatch(place.name)
    layer = int(found[1]) if found else 0
    return sae, Origin(layer=layer, hook_tl=residual_hook(layer))


def write(sae: SAE, place: Path, origin: Origin) -> list[str]:
    raise CannotSay("Qwen-Scope's files are read here, not written", "--to saelens holds them.")
