"""The hand-written step against dense autograd in float64."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from bench.compute.topk import exact_topk
from bench.sae.codes import StepMethod
from bench.sae.dead_features.auxk import AuxK
from bench.sae.families import make_family
from bench.sae.families.base import Family
from bench.sae.families.batchtopk import BatchTopK
from bench.sae.families.jumprelu import JumpReLU
from bench.sae.families.relu import ReLU
from bench.sae.families.topk import TopK, topk_codes
from bench.sae.gradients import Weights, pre_activations
from bench.sae.model import SAE
from tests.bench.autograd import losses

TOKENS, WIDTH, N, K = 40, 10, 64, 5
PATHS: list[StepMethod] = ["sparse", "dense"]


class Case(NamedTuple):
    weights: Weights
    y: Tensor


def plain(seed: int) -> Case:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    sae = SAE.init(WIDTH, N, K, seed=seed, dtype=torch.float64)
    weights = Weights(
        sae.W_enc + 0.3 * random(N, WIDTH), 0.1 * random(N), sae.W_dec, 0.2 * random(WIDTH)
    )
    return Case(weights, random(TOKENS, WIDTH))


def few_positives(seed: int) -> Case:
    """Most tokens have fewer than K positive pre-activations, some none."""
    weights, y = plain(seed)
    return Case(weights._replace(b_enc=weights.b_enc - 4.0), y)


def ties(seed: int) -> Case:
    """Every feature exists twice, so that the k-th place is often tied."""
    weights, y = plain(seed)
    half = N // 2
    twice = [torch.cat([w[:half], w[:half]]) for w in (weights.W_enc, weights.b_enc)]
    return Case(weights._replace(W_enc=twice[0], b_enc=twice[1]), y)


def all_zero(seed: int) -> Case:
    """Pre-activations of exactly 0, the kink of the ReLU, for every token."""
    weights, y = plain(seed)
    return Case(weights._replace(b=y[0].clone(), b_enc=torch.zeros_like(weights.b_enc)), y)


MakeCase = Callable[[int], Case]
CASES: list[MakeCase] = [plain, few_positives, ties, all_zero]


# Large steps and thresholds, so that many pre-activations are near them.
FAMILIES: list[Family] = [
    TopK(),
    make_family("batchtopk"),
    make_family("matryoshka", {"prefixes": 3}),
    ReLU(l1=3.0),
    JumpReLU(l0=0.05, threshold=0.3, bandwidth=0.4),
]
WAYS = [(family, path) for family in FAMILIES for path in family.paths]


STEERED: list[Family] = [
    ReLU(l1=3.0, target_l0=4.0),
    JumpReLU(l0=0.7, threshold=0.3, bandwidth=0.4, target_l0=4.0),
]


def none_positive(seed: int) -> Case:
    """No token has a positive pre-activation."""
    weights, y = plain(seed)
    return Case(weights._replace(b_enc=weights.b_enc - 100.0), y)


def own_of(family: Family, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    family_tensors = {name: t.double() for name, t in family.family_tensors(WIDTH, N).items()}
    noise = {
        name: torch.randn(t.shape, generator=generator).double()
        for name, t in family_tensors.items()
    }
    return {name: t + 0.3 * noise[name] if t.ndim else t for name, t in family_tensors.items()}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{way[0].name}-{way[1]}")
@pytest.mark.parametrize("case", [*CASES, none_positive])
@pytest.mark.parametrize("dead", [None, 0, 1, 7, N - 3])
@pytest.mark.parametrize("relu", [False, True], ids=["raw", "relu"])
def test_gradients_equal_autograd(
    way: tuple[Family, StepMethod], case: MakeCase, dead: int | None, relu: bool
) -> None:
    family, path = way
    seed = secrets.randbelow(10**6)
    print(f"seed {seed}")
    weights, y = case(seed)
    family_tensors = own_of(family, seed)
    aux = None
    if dead is not None:
        drawn = torch.randperm(N, generator=torch.Generator().manual_seed(seed))[:dead]
        aux = AuxK(drawn.sort().values, 6, 0.25, relu)
    result = family.step(weights, family_tensors, y, K, path=path, aux=aux)
    chosen = {"indices": topk_codes(y - weights.b, weights, K).indices}
    if aux is not None and dead:
        pre = pre_activations(y - weights.b, weights)
        chosen["aux_indices"] = exact_topk(pre[:, aux.dead], min(6, dead))[1]
    leaves = {name: w.clone().requires_grad_() for name, w in weights._asdict().items()}
    leaves |= {name: family_tensors[name].clone().requires_grad_() for name in family.trained}
    expected = losses(family, leaves, y, K, aux=aux, **chosen)
    expected.total.backward()
    assert torch.allclose(result.loss, expected.loss, rtol=1e-12)
    for ours, theirs in (
        (result.aux_loss, expected.aux),
        (result.sparsity_loss, expected.sparsity),
    ):
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            assert torch.allclose(ours, theirs, rtol=1e-12)
    gradients = result.gradients._asdict() | dict(result.family_gradients)
    assert gradients.keys() == leaves.keys()
    for name, leaf in leaves.items():
        theirs = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        largest = max(1.0, float(theirs.abs().max()))
        assert float((gradients[name] - theirs).abs().max()) <= 1e-10 * largest, name
    assert torch.equal(result.activity > 0, (expected.codes > 0).any(0))
    radial = (result.gradients.W_dec * weights.W_dec).sum(1)
    assert torch.allclose(result.radial, radial, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("family", STEERED, ids=lambda family: family.name)
@pytest.mark.parametrize("case", [plain, few_positives])
def test_gradients_of_a_price_that_aims_at_an_l0_equal_autograd(
    family: Family, case: MakeCase
) -> None:
    weights, y = case(17)
    family_tensors = own_of(family, 17)
    if "price" in family_tensors:
        family_tensors["price"] = torch.tensor(0.6, dtype=torch.float64)
    result = family.step(weights, family_tensors, y, K, path="dense")
    leaves = {name: w.clone().requires_grad_() for name, w in weights._asdict().items()}
    leaves |= {name: t.clone().requires_grad_() for name, t in family_tensors.items()}
    expected = losses(family, leaves, y, K)
    expected.total.backward()
    assert expected.sparsity is not None
    assert result.sparsity_loss is not None
    assert torch.allclose(result.sparsity_loss, expected.sparsity, rtol=1e-12)
    gradients = result.gradients._asdict() | dict(result.family_gradients)
    for name, gradient in gradients.items():
        theirs = leaves[name].grad
        assert theirs is not None
        assert float((gradient - theirs).abs().max()) <= 1e-10 * max(1.0, float(theirs.abs().max()))


def test_relus_price_rises_where_there_are_too_many_codes_and_waits_for_its_warm_up() -> None:
    weights, y = plain(seed=18)
    codes = float(((y - weights.b) @ weights.W_enc.T + weights.b_enc > 0).sum(1).double().mean())

    def following(target: float, number: int = 9) -> float:
        family = ReLU(l1=3.0, warmup_steps=4, target_l0=target)
        prices = {"price": torch.tensor(2.0, dtype=torch.float64)}
        found = family.step(weights, prices, y, K, path="dense", number=number).family_values
        return float(found["price"]) if found else 2.0

    assert following(codes / 1.5) == pytest.approx(2 * 1.5**0.01)
    assert following(codes * 1.5) == pytest.approx(2 / 1.5**0.01)
    assert following(codes / 1e3) == pytest.approx(2 * math.exp(0.01))
    assert following(codes / 1.5, number=3) == 2.0


@pytest.mark.parametrize("family", FAMILIES[3:], ids=lambda family: family.name)
def test_a_price_rises_over_the_warm_up(family: Family) -> None:
    weights, y = plain(seed=11)
    family_tensors = own_of(family, 11)
    warming = replace(family, warmup_steps=4)  # type: ignore[call-arg]
    prices = [
        warming.step(weights, family_tensors, y, K, path="dense", number=number).sparsity_loss
        for number in range(6)
    ]
    full = family.step(weights, family_tensors, y, K, path="dense").sparsity_loss
    assert full is not None
    shares = [float(price / full) for price in prices if price is not None]
    assert shares == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])


def test_batchtopk_takes_the_largest_of_the_whole_batch() -> None:
    weights, y = plain(seed=12)
    y[0] *= 20.0  # one token takes more than its k
    pre = (y - weights.b) @ weights.W_enc.T + weights.b_enc
    family = make_family("batchtopk")
    result = family.step(weights, own_of(family, 0), y, K, path="sparse")
    kept = pre.flatten().sort(descending=True).values[: TOKENS * K]
    assert float(result.activity.sum()) == pytest.approx(float(kept.sum()), rel=1e-12)
    assert float(result.family_values["threshold"]) == float(kept[-1])


def test_batchtopks_threshold_follows_its_batches_and_waits_where_nothing_is_positive() -> None:
    family = BatchTopK(threshold_rate=0.25)
    weights, y = plain(seed=13)
    family_tensors = {"threshold": torch.tensor(2.0, dtype=torch.float64)}
    first = family.step(weights, {"threshold": torch.zeros(()).double()}, y, K, path="sparse")
    smallest = float(first.family_values["threshold"])
    moved = family.step(weights, family_tensors, y, K, path="sparse").family_values["threshold"]
    assert float(moved) == pytest.approx(0.75 * 2.0 + 0.25 * smallest)
    silent, y = none_positive(seed=13)
    kept = family.step(silent, family_tensors, y, K, path="sparse").family_values["threshold"]
    assert float(kept) == 2.0


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("case", CASES)
def test_codes_are_the_largest_positive_ones(path: StepMethod, case: MakeCase) -> None:
    weights, y = case(5)
    pre = (y - weights.b) @ weights.W_enc.T + weights.b_enc
    codes = topk_codes(y - weights.b, weights, K)
    expected = pre.relu().topk(K, dim=1).values.sort(1).values
    assert torch.allclose(codes.values.sort(1).values, expected, rtol=0, atol=1e-12)
    assert torch.allclose(pre.gather(1, codes.indices).relu(), codes.values, atol=1e-12)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("case", CASES)
def test_activity_is_positive_just_where_a_feature_fired(path: StepMethod, case: MakeCase) -> None:
    weights, y = case(6)
    codes = topk_codes(y - weights.b, weights, K)
    fired = torch.zeros(N, dtype=torch.bool)
    fired[codes.indices[codes.values > 0]] = True
    assert torch.equal(TopK().step(weights, {}, y, K, path=path).activity > 0, fired)


@pytest.mark.parametrize("path", PATHS)
def test_along_is_the_gradient_in_the_rows_own_directions(path: StepMethod) -> None:
    weights, y = plain(seed=7)
    aux = AuxK(torch.arange(0, N, 3), 4, 0.5)
    result = TopK().step(weights, {}, y, K, path=path, aux=aux)
    expected = (result.gradients.W_dec * weights.W_dec).sum(1)
    assert torch.allclose(result.radial, expected, atol=1e-12)


def test_a_feature_dead_by_relu_gets_gradient_from_auxk_alone() -> None:
    weights, y = plain(seed=8)
    b_enc = weights.b_enc.clone()
    b_enc[9] = -100.0
    weights = weights._replace(b_enc=b_enc)
    without = TopK().step(weights, {}, y, K, path="sparse").gradients
    aux = AuxK(torch.tensor([9]), 4, 1 / 32)
    with_aux = TopK().step(weights, {}, y, K, path="sparse", aux=aux).gradients
    published = replace(aux, relu=True)
    with_relu = TopK().step(weights, {}, y, K, path="sparse", aux=published).gradients
    assert float(without.W_enc[9].abs().max()) == 0.0
    assert float(with_aux.W_enc[9].abs().max()) > 0.0
    assert float(with_relu.W_enc[9].abs().max()) == 0.0


def test_rows_are_encoded_alike_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, y = plain(seed=9)
    y = y.repeat(5, 1)
    whole = TopK().step(weights, {}, y, K, path="sparse")
    monkeypatch.setattr("bench.sae.gradients._CPU_ELEMENTS", 64 * N)
    parts = TopK().step(weights, {}, y, K, path="sparse")
    for one, other in zip(whole.gradients, parts.gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-12)
