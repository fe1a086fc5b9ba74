"""Run by a library's own Python: encodes with SAEs that were converted, and saves some of its own.

python -m peers.foreign LIBRARY TOKENS.npy < tasks

A task is a line of JSON: {"place": ..., "kind": null, "out": ...}. With a kind an SAE of random
weights is made there, and saved by the library's own code; else the one there is loaded. Codes and
reconstruction go to the .npz file `out`. Nothing of this project is imported here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

N, K = 192, 8


def load(library: str, place: Path) -> nn.Module:
    """The SAE, by the library's own loader."""
    if library == "saelens":
        from sae_lens import SAE

        return SAE.load_from_disk(place)
    if library == "sparsify":
        from sparsify import SparseCoder

        return SparseCoder.load_from_disk(place)
    if library == "saev":
        import saev.nn

        return saev.nn.load(str(place))
    from dictionary_learning.utils import load_dictionary

    return load_dictionary(str(place), "cpu")[0]


def encode(library: str, sae: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Codes [tokens, n] and reconstruction [tokens, d]."""
    if library == "saelens":
        codes = sae.encode(x)
        return codes, sae.decode(codes)
    if library == "sparsify":
        found = sae.encode(x)
        values, indices = found.top_acts, found.top_indices
        codes = torch.zeros(len(x), sae.num_latents).scatter_(1, indices.long(), values)
        return codes, sae.decode(values, indices)
    if library == "saev":
        x_hat, codes, _ = sae(x)
        return codes, x_hat
    codes = sae.encode(x)
    return codes, sae.decode(codes)


def make(library: str, place: Path, kind: str, width: int) -> nn.Module:
    """An SAE of the library with random weights, saved by its own code."""
    torch.manual_seed(0)
    if library == "saelens":
        return _saelens(place, kind, width)
    if library == "sparsify":
        from sparsify import SparseCoder, SparseCoderConfig

        sae = SparseCoder(width, SparseCoderConfig(num_latents=N, k=K))
        _disturb(sae)
        sae.save_to_disk(place)
        return sae
    if library == "saev":
        import saev.config
        import saev.nn

        config = saev.config.SparseAutoencoder(d_vit=width, exp_factor=N // width)
        sae = saev.nn.SparseAutoencoder(config)
        _disturb(sae)
        saev.nn.dump(str(place), sae)
        return sae
    return _dictionary_learning(place, kind, width)


def _saelens(place: Path, kind: str, width: int) -> nn.Module:
    from sae_lens import saes

    classes = {
        "topk": (saes.TopKSAE, saes.TopKSAEConfig),
        "topk-rescaled": (saes.TopKSAE, saes.TopKSAEConfig),
        "standard": (saes.StandardSAE, saes.StandardSAEConfig),
        "standard-layer_norm": (saes.StandardSAE, saes.StandardSAEConfig),
        "jumprelu": (saes.JumpReLUSAE, saes.JumpReLUSAEConfig),
        "jumprelu-unapplied": (saes.JumpReLUSAE, saes.JumpReLUSAEConfig),
    }
    sae_class, config_class = classes[kind]
    more: dict[str, Any] = {"d_in": width, "d_sae": N}
    if kind.startswith("topk"):
        more |= {"k": K, "rescale_acts_by_decoder_norm": kind.endswith("rescaled")}
    if kind.endswith("layer_norm"):
        more["normalize_activations"] = "layer_norm"
    if kind.endswith("unapplied"):
        more["apply_b_dec_to_input"] = False
    sae = sae_class(config_class(**more))
    _disturb(sae)
    sae.save_model(place)
    return sae


def _dictionary_learning(place: Path, kind: str, width: int) -> nn.Module:
    from dictionary_learning import dictionary
    from dictionary_learning.trainers import batch_top_k, top_k

    makers = {
        "AutoEncoder": lambda: dictionary.AutoEncoder(width, N),
        "AutoEncoderTopK": lambda: top_k.AutoEncoderTopK(width, N, K),
        "BatchTopKSAE": lambda: batch_top_k.BatchTopKSAE(width, N, K),
        "JumpReluAutoEncoder": lambda: dictionary.JumpReluAutoEncoder(width, N),
    }
    sae = makers[kind]()
    _disturb(sae)
    if kind == "BatchTopKSAE":
        sae.threshold.fill_(0.3)
    place.mkdir(parents=True)
    torch.save(sae.state_dict(), place / "ae.pt")
    trainer = {"dict_class": kind, "k": K, "activation_dim": width, "dict_size": N}
    (place / "config.json").write_text(json.dumps({"trainer": trainer}))
    return load("dictionary_learning", place)


@torch.no_grad()
def _disturb(sae: nn.Module) -> None:
    """Moves every parameter away from where it begins; thresholds stay positive."""
    for name, parameter in sae.named_parameters():
        noise = 0.1 * torch.randn_like(parameter)
        parameter.add_(noise.abs() + 0.1 if name == "threshold" else noise)


@torch.no_grad()
def main() -> None:
    library, tokens = sys.argv[1:]
    x = torch.from_numpy(np.load(tokens))
    for line in sys.stdin:
        task = json.loads(line)
        place = Path(task["place"])
        if task["kind"]:
            sae = make(library, place, task["kind"], x.shape[1])
        else:
            sae = load(library, place)
        codes, x_hat = encode(library, sae, x)
        np.savez(task["out"], codes=codes.numpy(), x_hat=x_hat.numpy())


if __name__ == "__main__":
    main()
