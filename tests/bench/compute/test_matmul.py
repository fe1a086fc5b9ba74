from __future__ import annotations

import pytest
import torch

from bench.compute import matmul
from bench.compute.matmul import MAX_RELATIVE_ERROR, fast_matmul, measured_error


@pytest.fixture
def _fresh():
    matmul._choose.cache_clear()
    yield
    matmul._choose.cache_clear()


@pytest.mark.parametrize("before", ["highest", "high", "medium"])
def test_the_setting_comes_back_even_after_an_error(before):
    initial = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(before)
    try:
        with fast_matmul() as choice:
            assert torch.get_float32_matmul_precision() == choice.precision
        assert torch.get_float32_matmul_precision() == before
        with pytest.raises(RuntimeError, match="shapes"), fast_matmul():
            torch.ones(2, 3) @ torch.ones(2, 3)
        assert torch.get_float32_matmul_precision() == before
    finally:
        torch.set_float32_matmul_precision(initial)


def test_products_inside_are_accurate():
    left, right = torch.randn(300, 700), torch.randn(700, 400)
    exact = left.double() @ right.double()
    with fast_matmul() as choice:
        error = (left @ right - exact).norm() / exact.norm()
    assert error < 2 * MAX_RELATIVE_ERROR
    assert choice.relative_error is not None
    assert choice.relative_error <= MAX_RELATIVE_ERROR


@pytest.mark.usefixtures("_fresh")
def test_an_inaccurate_fast_path_is_not_used(monkeypatch):
    # What a processor does whose fast setting means bfloat16.
    errors = {"medium": 2e-3, "highest": 3e-7}
    monkeypatch.setattr(matmul, "measured_error", errors.__getitem__)
    with fast_matmul() as choice:
        assert choice.precision == "highest"
        assert choice.relative_error == 3e-7


@pytest.mark.usefixtures("_fresh")
def test_an_accurate_fast_path_is_used(monkeypatch):
    monkeypatch.setattr(matmul, "measured_error", {"medium": 4e-7}.__getitem__)
    with fast_matmul() as choice:
        assert choice.precision == "medium"


def test_the_measure_notices_bfloat16():
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(64, 64, generator=generator) for _ in range(2))
    rounded = left.bfloat16().float() @ right.bfloat16().float()
    exact = left.double() @ right.double()
    assert (rounded - exact).norm() / exact.norm() > 100 * MAX_RELATIVE_ERROR
    assert measured_error("highest") <= MAX_RELATIVE_ERROR


def test_off_the_cpu_full_precision_is_set():
    with fast_matmul("cuda") as choice:
        assert choice.precision == "highest"
        assert torch.get_float32_matmul_precision() == "highest"


def test_convolutions_are_in_full_precision_and_the_setting_comes_back():
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    try:
        with fast_matmul("cuda"):
            assert not torch.backends.cudnn.allow_tf32
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32 = before
