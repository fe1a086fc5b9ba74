"""Products in less than single precision: what is rounded, and what is not."""

from __future__ import annotations

import pytest
import torch

from bench.compute.precision import Precision, affine, product, product_precision, rounded

# Bits after the leading one.
BITS: dict[Precision, int] = {"float32": 23, "tf32": 10, "bf16": 7}


def factors(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(40, 200, generator=generator, dtype=dtype),
        torch.randn(200, 30, generator=generator, dtype=dtype),
    )


@pytest.mark.parametrize("precision", BITS)
def test_an_element_is_rounded_to_the_nearest(precision: Precision) -> None:
    x = torch.randn(10_000, generator=torch.Generator().manual_seed(1)) * 100
    mantissa, exponent = torch.frexp(x.double())
    steps = mantissa * 2 ** (BITS[precision] + 1)
    exact = torch.ldexp(torch.round(steps), exponent - BITS[precision] - 1)
    assert torch.equal(rounded(x, precision).double(), exact)


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_what_is_not_finite_stays_so(precision: Precision) -> None:
    x = torch.tensor([torch.inf, -torch.inf, torch.nan, 0.0, -0.0])
    found = rounded(x, precision)
    assert torch.equal(found.nan_to_num(nan=7), x.nan_to_num(nan=7))


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_factors_are_rounded_and_sums_are_float32(precision: Precision) -> None:
    left, right = factors()
    exact = rounded(left, precision).double() @ rounded(right, precision).double()
    with product_precision(precision, "cpu"):
        found = product(left, right)
        shifted = affine(torch.ones(30), left, right)
    assert found.dtype == torch.float32
    assert (found - exact).norm() / exact.norm() < 1e-6
    assert torch.equal(shifted, found + 1)
    plain = left.double() @ right.double()
    error = (found - plain).norm() / plain.norm()
    assert 2.0 ** -(BITS[precision] + 3) < error < 2.0 ** -BITS[precision]


def test_float32_and_float64_products_are_those_of_torch() -> None:
    left, right = factors()
    assert torch.equal(product(left, right), left @ right)
    assert torch.equal(affine(right[0], left, right), torch.addmm(right[0], left, right))
    left, right = factors(torch.float64)
    with product_precision("bf16", "cpu"):
        assert torch.equal(product(left, right), left @ right)


def test_the_former_precision_comes_back_after_an_error() -> None:
    left, right = factors()
    with pytest.raises(RuntimeError, match="shapes"), product_precision("bf16", "cpu"):
        product(left, left)
    assert torch.equal(product(left, right), left @ right)
