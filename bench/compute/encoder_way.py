"""Whether the encoder's kernel is the faster way to the largest pre-activations: tried once."""

from __future__ import annotations

from functools import cache

import torch

from bench.compute.kernels import usable
from bench.compute.precision import Precision, product, product_precision
from bench.compute.timing import fastest
from bench.compute.topk import exact_topk


@cache
def encoder_kernel_pays(n: int, d: int, k: int, precision: Precision, device: torch.device) -> bool:
    """Whether a device has the kernel, and it beats torch's product and a selection here."""
    if not usable("encoder", device):
        return False
    from bench.compute.kernels import encode

    x, W = torch.randn(encode.rows_at_once(n), d, device=device), torch.randn(n, d, device=device)
    bias = torch.zeros(n, device=device)

    def plain() -> object:
        with product_precision(precision, device):
            return exact_topk(product(x, W.T), k, bias=bias.unsqueeze(0))

    def ours() -> object:
        return encode.select_in_groups(*encode.product_and_maxima(x, W, bias, precision), k)

    return fastest({False: plain, True: ours}, device)
