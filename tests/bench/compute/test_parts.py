"""Products of parts in bfloat16: what they are off by, at most, and where they are used."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.compute import parts
from bench.compute.parts import left_parts, product_of_parts, right_parts, slack_of_parts

CPU = torch.device("cpu")


def sizes(x: Tensor, W: Tensor) -> Tensor:
    """|x||w| of each pair."""
    norms = [torch.linalg.vector_norm(each.double(), dim=1) for each in (x, W)]
    return norms[0][:, None] * norms[1]


def drawn(kind: str, rows: int, d: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, d, generator=generator)
    if kind == "one sign":
        return x.abs() + 1
    if kind == "scales":
        return x * torch.logspace(-12, 12, d)
    return x


@pytest.mark.parametrize("kind", ["random", "one sign", "scales"])
@pytest.mark.parametrize("d", [1, 7, 300])
def test_is_off_by_no_more_than_the_bound(kind: str, d: int) -> None:
    x, W = drawn(kind, 40, d, 0), drawn(kind, 50, d, 1)
    found = product_of_parts(left_parts(x), right_parts(W))
    error = (found.double() - x.double() @ W.double().T).abs()
    assert bool((error <= slack_of_parts(d) * sizes(x, W)).all())
    assert found.dtype == torch.float32


@pytest.mark.parametrize("block", [1, 4, 16])
@pytest.mark.parametrize("kind", ["random", "one sign"])
def test_the_bound_holds_where_sums_are_cut_off(kind: str, block: int) -> None:
    """As on tensor cores, which add up some terms and drop what does not fit."""
    d = 256
    x, W = drawn(kind, 8, d, 2), drawn(kind, 9, d, 3)
    left, right = (p.double().numpy() for p in (left_parts(x), right_parts(W)))
    total = np.zeros((8, 9))
    for start in range(0, 3 * d, block):
        inner = slice(start, start + block)
        total = cut_off(total + left[:, inner] @ right[:, inner].T)
    error = np.abs(total - (x.double() @ W.double().T).numpy())
    assert (error <= slack_of_parts(d) * sizes(x, W).numpy()).all()
    assert error.max() > 0


def cut_off(x: np.ndarray) -> np.ndarray:
    """Towards 0, to the 24 bits that float32 has."""
    mantissa, exponent = np.frexp(x)
    return np.ldexp(np.trunc(mantissa * 2**24), exponent - 24)


def test_parts_add_up_and_do_not_overflow() -> None:
    largest = torch.finfo(torch.float32).max
    x = torch.tensor([[largest, -largest, 1.0, 0.0, 1 + 2**-16, 1e-20]])
    low, high, again = left_parts(x).float().chunk(3, dim=1)
    assert torch.equal(high, again)
    assert bool(torch.isfinite(low).all() and torch.isfinite(high).all())
    left_out = (high.double() + low.double() - x.double()).abs()
    assert bool((left_out <= 2**-16 * x.double().abs()).all())
    high, low, again = right_parts(x).float().chunk(3, dim=1)
    assert torch.equal(high, again)
    assert not torch.equal(low, high)


def test_a_device_proves_itself_or_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parts.why_no_parts(CPU) == "it is for CUDA devices"

    class Card:
        """Has no memory of its own, and multiplies like a card."""

        type = "cuda"

        def __hash__(self) -> int:
            return 0

    prove = parts.why_no_parts.__wrapped__
    monkeypatch.setattr(Tensor, "to", lambda x, device: x)
    assert prove(Card()) is None
    for rounded in (rounded_sums, one_part):
        monkeypatch.setattr(parts, "product_of_parts", rounded)
        assert prove(Card()) == "it is less exact than it should be on a small problem"

    def missing(left: Tensor, right: Tensor) -> Tensor:
        raise TypeError("mm() got an unexpected keyword argument 'out_dtype'\nand more")

    monkeypatch.setattr(parts, "product_of_parts", missing)
    assert prove(Card()) == (
        "it fails (TypeError: mm() got an unexpected keyword argument 'out_dtype')"
    )


def rounded_sums(left: Tensor, right: Tensor) -> Tensor:
    return product_of_parts(left, right).bfloat16().float()


def one_part(left: Tensor, right: Tensor) -> Tensor:
    d = left.shape[1] // 3
    return left[:, d : 2 * d].float() @ right[:, :d].float().T
