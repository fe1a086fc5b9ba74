"""Whether an SAE that was written says what the first one said."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.sae.codes import Codes
from bench.sae.model import SAE

# Random tokens on which two SAEs are compared.
_TOKENS = 4096


@dataclass(frozen=True)
class CodeDifference:
    """How far two SAEs differ on `tokens` random tokens.

    selections: (token, feature) pairs that fire in one of them only, of `codes` that fire in the
    first. value: largest difference of a code, over the largest code.
    """

    tokens: int
    codes: int
    selections: int
    value: float

    @property
    def none(self) -> bool:
        """Whether every code is equal bit for bit."""
        return not self.selections and not self.value

    def __str__(self) -> str:
        if self.none:
            return f"codes are equal bit for bit on {self.tokens:,} random tokens"
        return (
            f"on {self.tokens:,} random tokens {self.selections:,} of {self.codes:,} codes are in "
            f"one only, and codes differ by at most {self.value:.1g} of the largest"
        )


@torch.no_grad()
def compare_codes(one: SAE, other: SAE, *, tokens: int = _TOKENS, seed: int = 0) -> CodeDifference:
    """The codes of both on the same random activations, spread around the center of `one`.

    Rows of other norms are not a difference: codes are compared as what they add to x_hat, code
    times the norm of the decoder's row.
    """
    plain = one.folded()
    generator = torch.Generator().manual_seed(seed)
    spread = torch.randn(tokens, one.width, generator=generator) / one.transform.scale
    x = spread + plain.b if plain.transform.norm is None else spread
    selections = codes = 0
    largest = difference = 0.0
    for rows in x.split(max(64, 2**23 // one.n)):
        ours, theirs = contributions(plain, rows), contributions(other.folded(), rows)
        selections += int(((ours > 0) != (theirs > 0)).sum())
        codes += int((ours > 0).sum())
        largest = max(largest, float(ours.max()))
        difference = max(difference, float((ours - theirs).abs().max()))
    return CodeDifference(
        tokens, codes, selections, difference / largest if largest else difference
    )


def contributions(sae: SAE, x: Tensor) -> Tensor:
    """Codes [tokens, n] of raw activations, times the norms of the decoder's rows."""
    found = sae.encode(x)
    if isinstance(found, Codes):
        dense = found.values.new_zeros(len(x), sae.n)
        codes = dense.scatter_(1, found.indices, found.values)
    else:
        codes = found.values
    norms = torch.linalg.vector_norm(sae.W_dec, dim=1)
    # Unit norms are 1 but for rounding, which is not a difference of codes.
    return codes if bool(torch.allclose(norms, torch.ones_like(norms))) else codes * norms
