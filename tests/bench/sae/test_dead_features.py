"""What is done for dead features: losses against autograd, resampling against its definition."""

from __future__ import annotations

import secrets
from typing import cast

import pytest
import torch

from bench.sae.arms import parse_arm
from bench.sae.codes import StepMethod
from bench.sae.dead_features.base import DeadLoss
from bench.sae.dead_features.ghost import Ghost
from bench.sae.dead_features.pre_activation import PreActivation
from bench.sae.dead_features.resample import resample, resampling_steps
from bench.sae.families.base import Family
from bench.sae.families.topk import TopK, topk_codes
from bench.sae.model import SAE
from bench.sae.recipe import Recipe
from bench.sae.trainer import Trainer
from tests.bench.autograd import losses
from tests.bench.sae.test_gradients import (
    WAYS,
    K,
    MakeCase,
    N,
    few_positives,
    own_of,
    plain,
)

WIDTH, BATCH = 10, 40


def _loss(kind: str, dead: torch.Tensor) -> DeadLoss:
    return Ghost(dead) if kind == "ghost" else PreActivation(dead, weight=0.7)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{way[0].name}-{way[1]}")
@pytest.mark.parametrize("kind", ["ghost", "pre-act"])
@pytest.mark.parametrize("case", [plain, few_positives])
@pytest.mark.parametrize("dead", [0, 1, 7, N])
def test_gradients_equal_autograd(
    way: tuple[Family, StepMethod], kind: str, case: MakeCase, dead: int
) -> None:
    family, path = way
    seed = secrets.randbelow(10**6)
    print(f"seed {seed}")
    weights, y = case(seed)
    family_tensors = own_of(family, seed)
    drawn = torch.randperm(N, generator=torch.Generator().manual_seed(seed))[:dead]
    aux = _loss(kind, drawn.sort().values)
    result = family.step(weights, family_tensors, y, K, path=path, aux=aux)
    leaves = {name: w.clone().requires_grad_() for name, w in weights._asdict().items()}
    leaves |= {name: family_tensors[name].clone().requires_grad_() for name in family.trained}
    indices = topk_codes(y - weights.b, weights, K).indices
    expected = losses(family, leaves, y, K, aux=aux, indices=indices)
    expected.total.backward()
    assert (result.aux_loss is None) == (expected.aux is None) == (dead == 0)
    if result.aux_loss is not None and expected.aux is not None:
        assert torch.allclose(result.aux_loss, expected.aux, rtol=1e-10)
    gradients = result.gradients._asdict() | dict(result.family_gradients)
    for name, leaf in leaves.items():
        theirs = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        largest = max(1.0, float(theirs.abs().max()))
        assert float((gradients[name] - theirs).abs().max()) <= 1e-10 * largest, name
    radial = (result.gradients.W_dec * weights.W_dec).sum(1)
    assert torch.allclose(result.radial, radial, rtol=1e-9, atol=1e-12)


def test_ghosts_of_huge_pre_activations_do_not_overflow() -> None:
    weights, y = plain(seed=3)
    ghost = Ghost(torch.arange(5))
    result = TopK().step(weights, {}, 1e4 * y, K, path="sparse", aux=ghost)
    assert all(bool(each.isfinite().all()) for each in result.gradients)
    assert result.aux_loss is not None
    assert torch.allclose(result.aux_loss, result.loss)


def test_a_price_on_pre_activations_pulls_the_dead_up_and_leaves_the_decoder() -> None:
    weights, y = plain(seed=4)
    b_enc = weights.b_enc.clone()
    b_enc[9] = -100.0
    weights = weights._replace(b_enc=b_enc)
    found = TopK().step(weights, {}, y, K, path="sparse", aux=_loss("pre-act", torch.tensor([9])))
    assert float(found.gradients.b_enc[9]) < 0  # descent raises it
    assert not found.gradients.W_dec[9].any()


def test_resampling_takes_the_published_steps() -> None:
    assert sorted(resampling_steps(200_000, 1 / 8)) == [25_000, 50_000, 75_000, 100_000]
    assert sorted(resampling_steps(5, 1 / 8)) == [1, 2]
    assert resampling_steps(0, 1 / 8) == frozenset()


def test_resampled_features_start_again_at_a_badly_reconstructed_token() -> None:
    sae = SAE.init(WIDTH, N, K, seed=0)
    before = sae.weights.W_enc.clone()
    moments = {
        name: (torch.ones_like(w), torch.ones_like(w)) for name, w in sae.weights._asdict().items()
    }
    y = torch.randn(BATCH, WIDTH, generator=torch.Generator().manual_seed(0))
    errors = torch.zeros(BATCH)
    errors[[7, 31]] = torch.tensor([1.0, 3.0])  # drawn at odds of 1 to 9
    dead = torch.zeros(N, dtype=torch.bool)
    dead[: N // 2] = True
    sae.weights.b_enc.fill_(0.5)
    resample(sae.weights, moments, y, errors, dead, scale=0.2, seed=5)
    unit = y / y.norm(dim=1, keepdim=True)
    rows = sae.weights.W_dec[dead]
    of_31 = torch.isclose(rows, unit[31], atol=1e-6).all(1)
    of_7 = torch.isclose(rows, unit[7], atol=1e-6).all(1)
    assert bool((of_31 | of_7).all())
    assert float(of_31.double().mean()) == pytest.approx(0.9, abs=0.2)
    assert torch.allclose(sae.weights.W_enc[dead], 0.2 * rows, atol=1e-6)  # the others have norm 1
    assert not sae.weights.b_enc[dead].any()
    assert bool((sae.weights.b_enc[~dead] == 0.5).all())
    assert torch.equal(sae.weights.W_enc[~dead], before[~dead])
    for name in ("W_enc", "b_enc", "W_dec"):
        for moment in moments[name]:
            assert not moment[dead].any()
            assert bool((moment[~dead] == 1).all())


@pytest.mark.parametrize("nothing", ["no loss", "no token with a direction", "none dead"])
def test_where_there_is_nothing_to_resample_nothing_changes(nothing: str) -> None:
    sae = SAE.init(WIDTH, N, K, seed=0)
    before = sae.weights.W_dec.clone()
    y = torch.zeros(BATCH, WIDTH) if "token" in nothing else torch.ones(BATCH, WIDTH)
    errors = torch.zeros(BATCH) if nothing == "no loss" else torch.ones(BATCH)
    dead = torch.full((N,), nothing != "none dead")
    resample(sae.weights, {}, y, errors, dead, scale=0.2, seed=0)
    assert torch.equal(sae.weights.W_dec, before)


def test_training_resamples_the_silent_and_nothing_else() -> None:
    recipe = Recipe(n=N, k=K, steps=16, lr=1e-4, path="sparse")
    generator = torch.Generator().manual_seed(1)
    batches = torch.randn(16, BATCH, WIDTH, generator=generator) + 5.0

    def trained(arm: str, steps: int) -> Trainer:
        found = Trainer(SAE.init(WIDTH, N, K, seed=0), recipe, arm=parse_arm(arm))
        for x in batches[:steps]:
            found.step(x)
        return found

    raw, resampled = trained("raw", 2), trained("raw+resample", 2)
    silent = raw.clock.last_fired < 1
    assert 0 < int(silent.sum()) < N
    moved = (raw.sae.W_dec != resampled.sae.W_dec).any(1)
    assert torch.equal(moved, silent)
    norms = torch.linalg.vector_norm(resampled.sae.W_dec, dim=1)
    assert torch.allclose(norms, torch.ones(N), atol=1e-6)
    end = cast("torch.Tensor", trained("raw+resample", 16).sae.W_dec)
    assert bool(end.isfinite().all())
