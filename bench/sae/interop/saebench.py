"""sae-bench: dictionary_learning's files, whose decoders must have unit norm.

Its custom loaders refuse any other decoder. A norm can be moved from the decoder into the codes
exactly, but for TopK, where that would change which features are among the k largest.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from bench.sae.interop import CannotSay, dictionary_learning
from bench.sae.model import SAE
from bench.sae.origin import Origin


def matches(place: Path) -> bool:
    """Never: what is read is dictionary_learning's."""
    return False


def read(place: Path) -> tuple[SAE, Origin]:
    return dictionary_learning.read(place)


def write(sae: SAE, place: Path, origin: Origin) -> list[str]:
    plain = sae.folded()
    norms = torch.linalg.vector_norm(plain.W_dec, dim=1)
    if torch.allclose(norms, torch.ones_like(norms), atol=1e-5):
        return dictionary_learning.write(plain, place, origin)
    if plain.family.name in ("topk", "batchtopk", "matryoshka"):
        raise CannotSay(
            "sae-bench wants decoders of unit norm, and these rows have others (a whitened arm): "
            f"rescaling them would change which features {plain.family.name} selects",
            "--to saelens or --to dictionary_learning takes them as they are.",
        )
    scaled = replace(
        plain,
        W_enc=plain.W_enc * norms[:, None],
        b_enc=plain.b_enc * norms,
        W_dec=plain.W_dec / norms[:, None],
        family_tensors={
            name: tensor + norms.log() if name == "log_threshold" else tensor
            for name, tensor in plain.family_tensors.items()
        },
    )
    remarks = dictionary_learning.write(scaled, place, origin)
    return [*remarks, "the decoder's norms are moved into the codes: x_hat stays"]
