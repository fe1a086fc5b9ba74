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
from bench.compute import topk as topk_module
from bench.compute.ahead import pretend_device
from bench.death import census as census_module
from bench.death.census import census
from bench.sae import codes as codes_module
from bench.sae import optimizer
from bench.sae.arms import parse_arm
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


def fixture_of(name: str) -> Any:
    """The kernel's module, in memory that holds nothing of use."""

    @pytest.fixture(name=name)
    def found(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
        module = kernel(name)
        poison(monkeypatch)
        return module

    return found


sparse, encode, select, update, pairs = map(
    fixture_of, ("sparse", "encode", "select", "update", "pairs")
)


def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has fresh memory hold NaN, or no index: what a kernel does not write shows."""

    def poisoned(*shape: int, **kinds: object) -> Tensor:
        size = shape[0] if isinstance(shape[0], tuple) else shape
        nothing = torch.nan if kinds["dtype"] == torch.float32 else -(2**40)
        return torch.full(size, nothing, **kinds)  # type: ignore[call-overload, no-any-return]

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
def test_the_encoder_selects_exactly_what_it_multiplied(encode: ModuleType, n: int) -> None:
    generator = torch.Generator().manual_seed(n)
    x, W = (torch.randn(rows, D, generator=generator).to(DEVICE) for rows in (TOKENS, n))
    W[n - 1] = W[0]  # a tie, one of the two in the last group, which is cut short
    bias = torch.linspace(-1, 0, n, device=DEVICE)
    bias[0] = bias[n - 1]
    pre, maxima = encode.product_and_maxima(x, W, bias)
    assert close(pre, x.double() @ W.double().T + bias)
    values, columns = encode.select_in_groups(pre, maxima, K)
    assert torch.equal(values, pre.gather(1, columns))
    ordered = values.sort(dim=1, descending=True).values
    assert torch.equal(ordered, pre.topk(K, dim=1).values)
    assert all(len(set(row)) == K for row in columns.tolist())


@pytest.mark.parametrize("kind", ["random", "ties", "equal", "infinite"])
@pytest.mark.parametrize(("n", "k"), [(7, 7), (33, 1), (200, 64), (600, 200), (1031, 5)])
@pytest.mark.parametrize("masked", [False, True])
def test_the_largest_of_each_row_are_selected(
    select: ModuleType, monkeypatch: pytest.MonkeyPatch, n: int, k: int, kind: str, masked: bool
) -> None:
    if k == 5:
        monkeypatch.setattr(select, "ROW_PIECE", 64)  # in pieces, and of those once more
    generator = torch.Generator().manual_seed(n)
    pre, bias = torch.randn(6, n, generator=generator), torch.randn(2, n, generator=generator)
    if kind in ("ties", "equal"):
        pre, bias = (x.round() if kind == "ties" else x.mul(0) for x in (pre, bias))
    if kind == "infinite":
        pre[:, ::3], pre[:, 1::3] = torch.inf, -torch.inf
    # Fewer than k where k is more than a third of n.
    mask = torch.arange(1, n + 1) % 3 == 0 if masked else None
    whole = pre + bias.repeat_interleave(3, 0)
    whole = whole if mask is None else torch.where(mask, whole, -torch.inf)
    given = [None if x is None else x.to(DEVICE) for x in (bias, mask)]
    values, columns = select.largest(pre.to(DEVICE), k, bias=given[0], mask=given[1])
    values, columns = values.cpu(), columns.cpu()
    assert torch.equal(values.sort(dim=1, descending=True).values, whole.topk(k, dim=1).values)
    assert torch.equal(values, whole.gather(1, columns))
    assert all(len(set(row)) == k for row in columns.tolist())
    again = select.largest(pre.to(DEVICE), k, bias=given[0], mask=given[1])
    assert torch.equal(again[0].cpu(), values)
    assert torch.equal(again[1].cpu(), columns)


@pytest.mark.parametrize(("n", "d"), [(5, 3), (37, 70), (3, 2500)])
@pytest.mark.parametrize("beta1", [0.9, 0.0])
@pytest.mark.parametrize("decoder", [False, True])
def test_updates_equal_float64_adam(
    update: ModuleType, n: int, d: int, beta1: float, decoder: bool
) -> None:
    generator = torch.Generator().manual_seed(n)
    weight = torch.nn.functional.normalize(torch.randn(n, d, generator=generator), dim=1)
    exact = weight.double().requires_grad_()
    adam = torch.optim.Adam([exact], lr=1e-2, betas=(beta1, 0.999))
    weight = weight.to(DEVICE)
    moments = torch.zeros(2, n, d, device=DEVICE)
    updates = torch.zeros((), device=DEVICE)
    for step in range(3):
        gradient = torch.randn(n, d, generator=generator)
        true = gradient.double()
        radial = (true * exact.detach()).sum(1)
        if decoder:
            true = true - radial.unsqueeze(1) * exact.detach()
        along = radial.float().to(DEVICE) if decoder else None
        found = update.row_squares(gradient.to(DEVICE), weight, along)
        assert close(found.cpu(), true.square().sum(1))
        exact.grad = true / (step + 1)
        adam.step()
        if decoder:
            exact.data = torch.nn.functional.normalize(exact.data, dim=1)
        updates += 1
        clip = torch.tensor(step + 1.0, device=DEVICE)
        rates = update.AdamRate(1e-2, beta1, 0.999, 1e-8)
        given = (weight, gradient.to(DEVICE), *moments, along, clip, updates, rates)
        update.adam_rows(*given)
        assert close(weight.cpu(), exact.detach(), tolerance=2e-6)
    state = adam.state[exact]
    assert close(moments[0].cpu(), state["exp_avg"])
    assert close(moments[1].cpu(), state["exp_avg_sq"])


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

    monkeypatch.setattr(census_module, "by_the_fastest", lambda run, x, *of: run(x, "encoder"))
    monkeypatch.setattr(encode, "product_and_maxima", spied)
    ours = census(given[0], given[1], k=K, b_enc=given[2], counts=True, chunk=40)  # type: ignore[arg-type]
    assert used == [40, 40, 10]
    assert 0 < plain.dead_topk < n
    assert torch.equal(ours.never_positive, plain.never_positive)
    assert torch.equal(ours.never_selected, plain.never_selected)
    assert ours.counts is not None
    assert plain.counts is not None
    assert torch.equal(ours.counts, plain.counts)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("d", [D, 300])
def test_products_of_pairs_equal_float64(pairs: ModuleType, d: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(4)
    x, W = (torch.randn(rows, d, generator=generator, dtype=dtype) for rows in (TOKENS, N))
    row, feature = (torch.randint(top, (50,), generator=generator) for top in (TOKENS, N))
    given = [each.to(DEVICE) for each in (x, W, row, feature)]
    found = pairs.pair_products(*given).cpu()
    exact = (x.double()[row] * W.double()[feature]).sum(1)
    assert found.dtype == torch.float64
    assert torch.allclose(found, exact, rtol=0, atol=1e-13 * float(exact.abs().max()))
    # A pair's bits do not depend on those beside it.
    later = pairs.pair_products(*given[:2], given[2][7:], given[3][7:]).cpu()
    assert torch.equal(later, found[7:])
    assert pairs.pair_products(*given[:2], given[2][:0], given[3][:0]).shape == (0,)


def test_a_census_decides_what_is_open_by_the_kernel(
    pairs: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(5)
    # Features in pairs that differ by what float32 cannot tell, so all they fire on is open.
    W = torch.randn(20, D, generator=generator).repeat_interleave(2, dim=0)
    W[1::2] *= 1 + 2**-23
    x = torch.randn(60, D, generator=generator)
    plain = census(x.to(DEVICE), W.to(DEVICE), k=3, counts=True)
    taken: list[int] = []
    ours = pairs.pair_products

    def spied(*given: Tensor) -> Tensor:
        taken.append(len(given[2]))
        return ours(*given)  # type: ignore[no-any-return]

    monkeypatch.setattr(pairs, "pair_products", spied)
    monkeypatch.setattr("bench.death.products.usable", lambda kernel, device: kernel == "pairs")
    found = census(x.to(DEVICE), W.to(DEVICE), k=3, counts=True, chunk=25)
    assert sum(taken) > 60
    assert found.counts is not None
    assert plain.counts is not None
    assert torch.equal(found.counts, plain.counts)


@pytest.mark.parametrize("arm", ["raw", "raw+auxk"])
def test_a_trainer_with_kernels_trains_as_one_without(
    sparse: ModuleType,
    encode: ModuleType,
    select: ModuleType,
    update: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    arm: str,
) -> None:
    def made(path: str) -> Trainer:
        recipe = Recipe(n=N, k=K, path=path, aux_k=3, dead_after=2 * TOKENS, lr=1e-3)
        sae = SAE.init(D, N, K, seed=0, device=DEVICE)
        return Trainer(sae, recipe, arm=parse_arm(arm))

    selections: list[bool] = []
    largest, updated, adam_rows = select.largest, [], update.adam_rows

    def spied(pre: Tensor, k: int, *, bias: Tensor | None, mask: Tensor | None) -> Any:
        selections.append(mask is not None)
        return largest(pre, k, bias=bias, mask=mask)

    def spied_update(*arguments: Any) -> None:
        updated.append(arguments[4] is not None)
        adam_rows(*arguments)

    monkeypatch.setattr(select, "largest", spied)
    monkeypatch.setattr(update, "adam_rows", spied_update)
    modules = [codes_module, topk_module, optimizer]

    def use(kernels: bool) -> None:
        for module in modules:
            monkeypatch.setattr(module, "usable", lambda kernel, device: kernels)

    monkeypatch.setattr("bench.sae.step_path.usable", lambda kernel, device: True)
    plain, ours = made("sparse"), made("kernels")
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        x = (torch.randn(TOKENS, D, generator=generator) + 1).to(DEVICE)
        with pretend_device():  # who is dead is a mask there
            use(False)
            expected = plain.step(x)
            use(True)
            found = ours.step(x)
        assert close(found.loss, expected.loss.double())
    assert (True in selections) == (arm == "raw+auxk")
    assert updated == [False, True] * 4
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
    fine = dict.fromkeys(("encoder", "select", "update", "pairs"), lambda device: None)
    monkeypatch.setattr(proof, "PROOFS", proofs | fine)
    monkeypatch.setattr(kernels, "why_no_parts", lambda device: "no such device")
    kernels.why_not.cache_clear()
    try:
        assert kernels.kernels_left_out(torch.device("cuda:7")) == [
            "the decode kernel is not used: it fails (RuntimeError: no such instruction)",
            "the gradients kernel is not used: it is off by 2.0e-02 on a small problem",
            "products of parts are not used: no such device",
        ]
    finally:
        kernels.why_not.cache_clear()


def test_the_proofs_pass_and_notice(monkeypatch: pytest.MonkeyPatch, sparse: ModuleType) -> None:
    proof = kernel("proof")
    for name, size in {"_TOKENS": 20, "_N": 30, "_D": 9, "_K": 3, "_WIDE": 300}.items():
        monkeypatch.setattr(proof, name, size)
    assert [prove(DEVICE) for prove in proof.PROOFS.values()] == [None] * 6
    decode = sparse.decode
    monkeypatch.setattr(sparse, "decode", lambda *given: decode(*given) * 1.001)
    assert "off by 1.0e-03" in proof.PROOFS["decode"](DEVICE)


def test_a_cpu_has_no_kernels_and_says_so() -> None:
    assert not kernels.usable("decode", torch.device("cpu"))
    assert kernels.kernels_left_out(torch.device("cpu")) == []
    trainer = Trainer(SAE.init(D, N, K, seed=0), Recipe(n=N, k=K, path="kernels"))
    with pytest.raises(TrainingFailed, match="no kernels to train with: it is for CUDA devices"):
        trainer.step(torch.zeros(TOKENS, D))
