from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch

from bench.compute import matmul
from bench.compute.matmul import MAX_RELATIVE_ERROR, fast_matmul, measured_error
from bench.sae.model import SAE
from bench.sae.recipe import Recipe
from bench.sae.trainer import Trainer


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
@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        pytest.param({"medium": 1.0, "highest": 1.9}, "medium", id="faster"),
        # As on a Xeon, where it makes what is small slower.
        pytest.param({"medium": 1.0, "highest": 1.03}, "highest", id="as-fast"),
    ],
)
def test_an_accurate_path_is_used_where_it_is_faster(monkeypatch, seconds, chosen):
    errors = {"medium": 4e-7, "highest": 3e-7}
    monkeypatch.setattr(matmul, "measured_error", errors.__getitem__)
    monkeypatch.setattr(matmul, "measured_seconds", lambda: seconds)
    with fast_matmul() as choice:
        assert (choice.precision, choice.relative_error) == (chosen, errors[chosen])


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


@pytest.mark.parametrize("before", [False, True])
def test_what_is_below_full_precision_is_taken_as_0_inside(before):
    subnormal = torch.tensor(1e-39)
    torch.set_flush_denormal(before)
    try:
        with fast_matmul():
            assert float(subnormal * 1) == 0
            with fast_matmul():
                assert float(subnormal * 1) == 0
            assert float(subnormal * 1) == 0
        assert (float(subnormal * 1) == 0) == before
    finally:
        torch.set_flush_denormal(False)


def test_what_dies_is_trained_to_the_same_bits_with_and_without_such_numbers(monkeypatch):
    def trained() -> tuple[SAE, float]:
        sae = SAE.init(8, 64, 4, seed=0)
        sae.b_enc[:32] = -100.0
        trainer = Trainer(sae, Recipe(n=64, k=4, batch=32, steps=20, path="sparse"))
        first = trainer.optimizer.moments["W_enc"].first
        first.fill_(3e-38)
        generator = torch.Generator().manual_seed(1)
        for _ in range(20):
            trainer.step(torch.randn(32, 8, generator=generator))
        return trainer.sae, float(first[:32].abs().max())

    flushed, of_dead = trained()
    assert of_dead == 0
    monkeypatch.setattr(matmul, "_without_subnormals", nullcontext)
    kept, of_dead = trained()
    assert 0 < of_dead < torch.finfo(torch.float32).tiny
    for one, other in zip(flushed.weights, kept.weights, strict=True):
        assert torch.equal(one, other)


def test_so_it_is_in_all_of_torchs_threads() -> None:
    code = (
        "import torch; from bench.compute.matmul import fast_matmul; torch.set_num_threads(2)\n"
        "with fast_matmul():\n"
        "    print(bool((torch.full((1 << 20,), 1e-39) * 1 == 0).all()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


NEWER = ("cuda.matmul", "mkldnn.matmul", "cudnn.conv", "cudnn", "")


@pytest.mark.parametrize("name", NEWER)
def test_a_setting_by_torchs_newer_names_is_no_hindrance_and_comes_back(name: str) -> None:
    """In a process of its own, as what torch takes these names for lasts."""
    script = f"""
from operator import attrgetter
import torch
from bench.compute.matmul import fast_matmul, matmul_precision
from bench.compute.precision import product_precision
names = ["cuda.matmul", "mkldnn.matmul", "cudnn.conv", "cudnn.rnn", "cudnn"]
settings = [torch.backends, *(attrgetter(name)(torch.backends) for name in names)]
def all_of_them():
    return [setting.fp32_precision for setting in settings]
setting = attrgetter({name!r})(torch.backends) if {name!r} else torch.backends
setting.fp32_precision = {"bf16" if name.startswith("mkldnn") else "tf32"!r}
before = all_of_them()
for device in ("cpu", "cuda"):
    for precision in ("float32", "tf32"):
        with fast_matmul(device), product_precision(precision, device):
            inside = all_of_them()
        assert all_of_them() == before, (before, all_of_them())
        assert "tf32" not in inside[3:5], inside
        if device == "cuda" and precision == "float32":
            assert inside[1] == "ieee", inside
for precision in ("highest", "high", "medium", "highest"):
    with matmul_precision(precision):
        pass
    assert all_of_them() == before, (precision, before, all_of_them())
"""
    subprocess.run([sys.executable, "-c", script], check=True)
