"""Triton kernels against float64 autograd: on a CUDA device, or in Triton's interpreter.

pip install "triton>=3.6" && TRITON_INTERPRET=1 pytest tests/bench/compute/test_kernels.py
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from bench.compute import kernels
from bench.compute.ahead import pretend_device
from bench.compute.precision import rounded
from bench.death.census import census
from bench.sae import codes as codes_module
from bench.sae.arms import parse_arm
from bench.sae.dead_features import auxk
from bench.sae.families import topk
from bench.sae.model import SAE
from bench.sae.recipe import Recipe
from bench.sae.trainer import Trainer
from zoo.errors import TrainingFailed

pytestmark = pytest.mark.gpu

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")

# No multiple of a tile, and small: the interpreter takes a program at a time.
TOKENS, N, D, K = 21, 37, 11, 4


def kernel(name: str) -> ModuleType:
    pytest.importorskip("triton", reason="triton is not installed")
    if not ON_GPU and os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("there is no CUDA device, and TRITON_INTERPRET=1 is not set")
    return importlib.import_module(f"bench.compute.kernels.{name}")


@pytest.fixture
def sparse(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    found = kernel("sparse")
    poison(monkeypatch)
    return found


@pytest.fixture
def encode(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    found = kernel("encode")
    poison(monkeypatch)
    return found


@pytest.fixture
def masked(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    found = kernel("masked")
    poison(monkeypatch)
    return found


def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has fresh memory hold NaN: what a kernel does not write shows."""

    def poisoned(*shape: int, **kinds: object) -> Tensor:
        return torch.full(shape[0] if isinstance(shape[0], tuple) else shape, torch.nan, **kinds)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(torch, "empty", poisoned)


class Problem(NamedTuple):
    """values, indices: [tokens, k] codes. The rest as the kernels take it."""

    values: Tensor
    indices: Tensor
    W_enc: Tensor
    W_dec: Tensor
    error: Tensor
    centered: Tensor


def problem(kind: str) -> Problem:
    generator = torch.Generator().manual_seed(len(kind))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    centered, W_enc = normal(TOKENS, D), normal(N, D)
    if kind == "ties":
        centered, W_enc = centered.sign(), W_enc.sign()
    pre = centered @ W_enc.T
    if kind == "few positive":
        pre -= pre.topk(K, dim=1).values[:, 1:2]
    if kind == "one feature of every token":
        pre[:, 5] = 100.0
    values, indices = pre.topk(K, dim=1, sorted=False)
    tensors = values.clamp(min=0), indices, W_enc, normal(N, D), normal(TOKENS, D), centered
    return Problem(*(tensor.to(DEVICE) for tensor in tensors))


KINDS = ["random", "ties", "few positive", "one feature of every token"]


def array(p: Problem, values: Tensor) -> Tensor:
    return values.new_zeros(TOKENS, N).scatter_(1, p.indices, values).double()


def close(ours: Tensor, exact: Tensor, tolerance: float = 1e-5) -> bool:
    return bool((ours.double() - exact).abs().max() <= tolerance * exact.abs().max())


@pytest.mark.parametrize("kind", KINDS)
def test_decode_equals_float64(sparse: ModuleType, kind: str) -> None:
    p = problem(kind)
    found = sparse.decode(p.values, p.indices, p.W_dec)
    assert close(found, array(p, p.values) @ p.W_dec.double())


@pytest.mark.parametrize("piece", [128, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_equal_float64_autograd(
    sparse: ModuleType, monkeypatch: pytest.MonkeyPatch, kind: str, piece: int
) -> None:
    monkeypatch.setattr(sparse, "_PIECE", piece)
    p = problem(kind)
    W_enc, W_dec = (W.double().requires_grad_() for W in (p.W_enc, p.W_dec))
    b_enc = torch.zeros(N, dtype=torch.float64, device=DEVICE, requires_grad=True)
    # Codes of these values whose slope by the pre-activation is 1 where they are > 0.
    pre = p.centered.double() @ W_enc.T + b_enc
    codes = array(p, p.values)
    codes = codes + (pre - pre.detach()) * (codes > 0)
    ((codes @ W_dec) * p.error.double()).sum().backward()
    found = gradients(sparse, p)
    assert W_dec.grad is not None
    exact = (
        W_enc.grad,
        b_enc.grad,
        W_dec.grad,
        (W_dec.grad * W_dec).sum(1).detach(),
        codes.sum(0).detach(),
    )
    for ours, theirs in zip(found, exact, strict=True):
        assert theirs is not None
        assert close(ours, theirs)
    again = gradients(sparse, p)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, again, strict=True))


def gradients(sparse: ModuleType, p: Problem) -> tuple[Tensor, ...]:
    features, order = p.indices.view(-1).sort(stable=True)
    offsets = torch.searchsorted(features, torch.arange(N + 1, device=DEVICE))
    values = p.values.view(-1)[order]
    pairs = (offsets, order // K, values, (values > 0).float())
    found: tuple[Tensor, ...] = sparse.feature_gradients(*pairs, p.W_dec, p.error, p.centered)
    return found


@pytest.mark.parametrize("n", [33, 200])
@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
def test_the_encoder_selects_exactly_what_it_multiplied(
    encode: ModuleType, precision: str, n: int
) -> None:
    generator = torch.Generator().manual_seed(n)
    x, W = (torch.randn(rows, D, generator=generator).to(DEVICE) for rows in (TOKENS, n))
    W[n - 1] = W[0]  # a tie, one of the two in the last group, which is cut short
    bias = torch.linspace(-1, 0, n, device=DEVICE)
    bias[0] = bias[n - 1]
    pre, maxima = encode.product_and_maxima(x, W, bias, precision)
    if precision == "tf32":
        # A card's tensor cores cut off what does not fit, the interpreter does not round at all.
        assert close(pre, x.double() @ W.double().T + bias, tolerance=2e-3)
    else:
        left, right = (rounded(t, precision).double() for t in (x, W))  # type: ignore[arg-type]
        assert close(pre, left @ right.T + bias)
    values, columns = encode.select_in_groups(pre, maxima, K)
    assert torch.equal(values, pre.gather(1, columns))
    ordered = values.sort(dim=1, descending=True).values
    assert torch.equal(ordered, pre.topk(K, dim=1).values)
    assert all(len(set(row)) == K for row in columns.tolist())


@pytest.mark.parametrize("kind", ["random", "ties", "few", "none"])
@pytest.mark.parametrize("n", [33, 200, 600])
def test_the_largest_under_a_mask_are_selected(masked: ModuleType, n: int, kind: str) -> None:
    pre = torch.randn(TOKENS, n, generator=torch.Generator().manual_seed(n)).to(DEVICE)
    pre = pre.round() if kind == "ties" else pre
    every = {"few": n // 2, "none": n + 1}.get(kind, 3)
    mask = torch.arange(1, n + 1, device=DEVICE) % every == 0
    values, columns = masked.masked_topk(pre, mask, K)
    exact = torch.where(mask, pre, -torch.inf).topk(K, dim=1).values
    assert torch.equal(values.sort(dim=1, descending=True).values, exact)
    assert int(columns.max()) < n
    there = values > -torch.inf
    assert torch.equal(values[there], pre.gather(1, columns)[there])
    assert mask[columns[there]].all()
    assert int(there.sum(1).min()) == min(K, int(mask.sum()))


@pytest.mark.parametrize("kind", ["random", "ties"])
@pytest.mark.parametrize("bias", [False, True])
def test_a_census_by_the_encoders_kernel_is_the_same(
    encode: ModuleType, monkeypatch: pytest.MonkeyPatch, kind: str, bias: bool
) -> None:
    generator = torch.Generator().manual_seed(2)
    n = 400
    x, W = (torch.randn(rows, D, generator=generator) + 0.3 for rows in (90, n))
    if kind == "ties":
        x, W = x.round(), W.round()
    b_enc = torch.linspace(-1, 0.5, n) if bias else None
    given = [None if t is None else t.to(DEVICE) for t in (x, W, b_enc)]
    plain = census(given[0], given[1], k=K, b_enc=given[2], counts=True)  # type: ignore[arg-type]
    used: list[int] = []
    product = encode.product_and_maxima

    def spied(*arguments: Any) -> tuple[Tensor, Tensor]:
        used.append(len(arguments[0]))
        return product(*arguments)  # type: ignore[no-any-return]

    monkeypatch.setattr("bench.death.census.usable", lambda kernel, device: True)
    monkeypatch.setattr(encode, "pays", lambda *size: True)
    monkeypatch.setattr(encode, "product_and_maxima", spied)
    ours = census(given[0], given[1], k=K, b_enc=given[2], counts=True, chunk=40)  # type: ignore[arg-type]
    assert used == [40, 40, 10]
    assert 0 < plain.dead_topk < n
    assert torch.equal(ours.never_positive, plain.never_positive)
    assert torch.equal(ours.never_selected, plain.never_selected)
    assert ours.counts is not None
    assert plain.counts is not None
    assert torch.equal(ours.counts, plain.counts)


@pytest.mark.parametrize("arm", ["raw", "raw+auxk"])
def test_a_trainer_with_kernels_trains_as_one_without(
    sparse: ModuleType,
    encode: ModuleType,
    masked: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    arm: str,
) -> None:
    def made(path: str) -> Trainer:
        recipe = Recipe(n=N, k=K, path=path, aux_k=3, dead_after=2 * TOKENS, lr=1e-3)
        sae = SAE.init(D, N, K, seed=0, device=DEVICE)
        return Trainer(sae, recipe, arm=parse_arm(arm))

    for module in (codes_module, topk, auxk):
        monkeypatch.setattr(module, "usable", lambda kernel, device: True)
    selections: list[int] = []
    select = masked.masked_topk

    def spied(pre: Tensor, mask: Tensor, k: int) -> tuple[Tensor, Tensor]:
        selections.append(k)
        return select(pre, mask, k)  # type: ignore[no-any-return]

    monkeypatch.setattr(masked, "masked_topk", spied)
    monkeypatch.setattr(masked, "masked_pays", lambda *size: True)
    monkeypatch.setattr("bench.sae.step_path.usable", lambda kernel, device: True)
    monkeypatch.setattr(encode, "pays", lambda *size: True)
    plain, ours = made("sparse"), made("kernels")
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        x = (torch.randn(TOKENS, D, generator=generator) + 1).to(DEVICE)
        with pretend_device():  # who is dead is a mask there
            found, expected = ours.step(x), plain.step(x)
        assert close(found.loss, expected.loss.double())
    assert bool(selections) == (arm == "raw+auxk")
    for name, tensor in plain.state_dict()["tensors"].items():
        assert torch.allclose(ours.state_dict()["tensors"][name], tensor, atol=1e-5), name


def test_a_kernel_that_does_not_agree_or_compile_is_left_out(
    monkeypatch: pytest.MonkeyPatch, sparse: ModuleType
) -> None:
    proof = kernel("proof")

    def fails(device: torch.device) -> str:
        raise RuntimeError("no such instruction\nand a long trace")

    proofs = {
        "decode": fails,
        "gradients": lambda device: "it is off by 2.0e-02 on a small problem",
    }
    monkeypatch.setattr(
        proof, "PROOFS", proofs | {"encoder": lambda device: None, "masked": lambda device: None}
    )
    kernels.why_not.cache_clear()
    try:
        assert kernels.kernels_left_out(torch.device("cuda:7")) == [
            "the decode kernel is not used: it fails (RuntimeError: no such instruction)",
            "the gradients kernel is not used: it is off by 2.0e-02 on a small problem",
        ]
    finally:
        kernels.why_not.cache_clear()


def test_the_proofs_pass_and_notice(monkeypatch: pytest.MonkeyPatch, sparse: ModuleType) -> None:
    proof = kernel("proof")
    for name, size in {"_TOKENS": 20, "_N": 30, "_D": 9, "_K": 3}.items():
        monkeypatch.setattr(proof, name, size)
    assert [prove(DEVICE) for prove in proof.PROOFS.values()] == [None] * 4
    decode = sparse.decode
    monkeypatch.setattr(sparse, "decode", lambda *given: decode(*given) * 1.001)
    assert "off by 1.0e-03" in proof.PROOFS["decode"](DEVICE)


def test_a_cpu_has_no_kernels_and_says_so() -> None:
    assert not kernels.usable("decode", torch.device("cpu"))
    assert kernels.kernels_left_out(torch.device("cpu")) == []
    trainer = Trainer(SAE.init(D, N, K, seed=0), Recipe(n=N, k=K, path="kernels"))
    with pytest.raises(TrainingFailed, match="no kernels to train with: it is for CUDA devices"):
        trainer.step(torch.zeros(TOKENS, D))
