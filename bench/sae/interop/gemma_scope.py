"""Gemma Scope: `params.npz`, JumpReLU SAEs in folders such as `layer_12/width_16k/average_l0_82`.

W_enc [d, n], W_dec [n, d], b_enc [n], b_dec [d], threshold [n]. b_dec is not subtracted before the
encoder. No file says the model; the layer is in the folder's name.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.sae.interop import CannotSay
from bench.sae.interop.files import make_sae, take, thresholded
from bench.sae.model import SAE
from bench.sae.origin import Origin
from zoo.errors import BadWeights
from zoo.files import check_regular

_WEIGHTS = "params.npz"
_KEYS = ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")


def matches(place: Path) -> bool:
    return (place / _WEIGHTS).is_file()


def read(place: Path) -> tuple[SAE, Origin]:
    where = place / _WEIGHTS
    tensors = _arrays(where)
    take(tensors, where, W_enc=(None, None))
    width, n = tensors["W_enc"].shape
    take(tensors, where, W_dec=(n, width), b_enc=(n,), b_dec=(width,), threshold=(n,))
    W_enc, b = tensors["W_enc"].double().T, tensors["b_dec"].double()
    family, extra, k = thresholded(tensors["threshold"])
    b_enc = tensors["b_enc"].double() + W_enc @ b
    sae = make_sae(
        W_enc, b_enc, tensors["W_dec"], b, family, k=k, family_tensors=extra, where=where
    )
    layer = re.search(r"(?:^|/)layer_(\d+)(?:/|$)", place.as_posix())
    return sae, Origin(layer=int(layer[1]) if layer else None)


def _arrays(where: Path) -> dict[str, Tensor]:
    """The arrays that an SAE has, and no others of the file."""
    try:
        check_regular(where)
        with np.load(where, allow_pickle=False) as found:
            return {key: torch.from_numpy(found[key]) for key in _KEYS if key in found.files}
    except (OSError, ValueError, TypeError, zipfile.BadZipFile, EOFError) as error:
        raise BadWeights(f"{where}: cannot be read ({' '.join(str(error).split())})") from None


def write(sae: SAE, place: Path, origin: Origin) -> list[str]:
    raise CannotSay("Gemma Scope's files are read here, not written", "--to saelens holds them.")
