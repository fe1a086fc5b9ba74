"""ESM Cambrian's SAEs: `config.json` of the type esmc_sae beside a `layer_23.safetensors` a layer.

W_enc [d, n], W_dec [n, d], b_dec [d], TopK after a ReLU, no encoder bias; `idf` and `max` scale
codes for display. Tokens are standardised one by one with the unbiased deviation. Layer N is
hidden_states[N] of the model, of which 0 is the embedding: the output of block N - 1.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

from bench.sae.families.topk import TopK
from bench.sae.interop import CannotSay
from bench.sae.interop.files import make_sae, peek_json, read_safetensors, read_settings, take
from bench.sae.model import SAE
from bench.sae.origin import Origin
from bench.sae.transform import Transform
from zoo.errors import BadWeights

_CONFIG = "config.json"
_NAME = re.compile(r"layer_(\d+)\.safetensors")


def matches(place: Path) -> bool:
    folder = place.parent if place.is_file() else place
    return peek_json(folder / _CONFIG).get("model_type") == "esmc_sae" and bool(_files(place))


def _files(place: Path) -> list[Path]:
    names = [place] if place.is_file() else sorted(place.glob("layer_*.safetensors"))
    return [path for path in names if _NAME.fullmatch(path.name)]


def read(place: Path) -> tuple[SAE, Origin]:
    files = _files(place)
    if len(files) != 1:
        raise BadWeights(
            f"{place}: SAEs of {len(files)} layers", "Give the file of one, layer_N.safetensors."
        )
    where = files[0]
    config, tensors = read_settings(where.parent / _CONFIG), read_safetensors(where)
    take(tensors, where, W_enc=(None, None))
    width, n = tensors["W_enc"].shape
    take(tensors, where, W_dec=(n, width), b_dec=(width,))
    # The unbiased deviation is larger than ours by this factor.
    factor = math.sqrt(width / (width - 1))
    W_enc = tensors["W_enc"].double().T / factor
    sae = make_sae(
        W_enc,
        W_enc.new_zeros(n),
        tensors["W_dec"].double() * factor,
        tensors["b_dec"].double() * factor,
        TopK(),
        k=int(config["k"]),
        transform=Transform.identity(width, "layernorm"),
        where=where,
    )
    found = _NAME.fullmatch(where.name)
    return sae, Origin(layer=int(found[1]) - 1 if found else None)


def write(sae: SAE, place: Path, origin: Origin) -> list[str]:
    raise CannotSay("ESMC's SAE files are read here, not written", "--to saelens holds them.")
