"""Float32 products by tensor cores: of parts in bfloat16, with a bound on their error.

To 2^-16 of itself a number x is high + low, its nearest in bfloat16 and the nearest to what is
left. So a dot product x . w is low . high + high . low + high . high of the two, to 3 * 2^-16 of
|x||w|; and the three are one dot product of three times the length, whose terms float32 holds
exactly. That is three products at the rate of bfloat16, which on an H200 was measured at 14 times
that of float32 (`results/device.md`).
"""

from __future__ import annotations

from functools import cache
from itertools import product

import torch
from torch import Tensor

# What rounding to bfloat16 changes a number by, at most, relative to it.
_PART = 2.0**-8

# Larger ones would be rounded to infinity.
_LARGEST = torch.finfo(torch.bfloat16).max

# What an addition rounds by: tensor cores cut off what does not fit, where others round.
_ADDITION = 2.0**-23

# The problems on which a device proves itself: no multiple of a tile, and one that kernels for rows
# which begin at whole lines of memory are taken for.
_PROBLEMS = ((333, 517, 811), (256, 512, 1024))


def left_parts(x: Tensor) -> Tensor:
    """The parts of x [rows, d], bfloat16 [rows, 3 d], in the order of a left factor."""
    high, low = _parts(x)
    return torch.cat([low, high, high], dim=1)


def right_parts(W: Tensor) -> Tensor:
    """The parts of W [n, d], bfloat16 [n, 3 d], in the order of a right factor."""
    high, low = _parts(W)
    return torch.cat([high, low, high], dim=1)


def _parts(x: Tensor) -> tuple[Tensor, Tensor]:
    high = x.clamp(-_LARGEST, _LARGEST).bfloat16()
    return high, (x - high.float()).bfloat16()


def product_of_parts(left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    """left @ right.T of `left_parts` and `right_parts`: about x @ W.T, float32 [rows, n].

    out: to write it to. Off a CUDA device the same terms are summed in float32, in another order.
    """
    if left.device.type != "cuda":
        return torch.mm(left.float(), right.float().T, out=out)
    given = {} if out is None else {"out": out}
    return torch.mm(left, right.T, out_dtype=torch.float32, **given)


def slack_of_parts(d: int) -> float:
    """A bound on |computed - exact| of a dot product of length d, relative to |x||w|.

    The sum of m terms, in any order, is off by m u / (1 - m u) of the sum of their sizes (Higham,
    Accuracy and Stability of Numerical Algorithms, section 4.2), which is (1 + 4 * 2^-8) |x||w| at
    most; what the parts leave out is 3 * 2^-16 of it.
    """
    rounded = (3 * d + 8) * _ADDITION
    return (1 + 4 * _PART) * (rounded / (1 - rounded) + 3 * _PART**2)


@cache
def why_no_parts(device: torch.device) -> str | None:
    """Why a device does not multiply so; None where it does, and kept to the bound when tried."""
    if device.type != "cuda":
        return "it is for CUDA devices"
    generator = torch.Generator().manual_seed(0)
    try:
        # Of one sign no error of a sum is made good by another.
        for (tokens, n, d), least in product(_PROBLEMS, (-0.5, 0.0)):
            x, W = (torch.rand(rows, d, generator=generator) + least for rows in (tokens, n))
            found = product_of_parts(left_parts(x.to(device)), right_parts(W.to(device)))
            worst = (found.cpu().double() - x.double() @ W.double().T).abs()
            sizes = torch.linalg.vector_norm(x, dim=1)[:, None] * torch.linalg.vector_norm(W, dim=1)
            if not float((worst / sizes).max()) <= slack_of_parts(d) / 2:
                return "it is less exact than it should be on a small problem"
    except Exception as error:
        # What a torch does not have, or a card, is told in many types.
        return f"it fails ({type(error).__name__}: {(str(error).splitlines() or [''])[0]})"
    return None
