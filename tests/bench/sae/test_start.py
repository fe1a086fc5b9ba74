"""Where SAEs start: directions from data or from its subspace, biases at a mean."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bench.sae.arms import parse_arm
from bench.sae.initial import InitialSAEs
from bench.sae.recipe import Recipe
from bench.sae.schedule import active_features, learning_rate
from bench.statistics.geometric_median import geometric_median

WIDTH, N, K = 16, 96, 3


@pytest.fixture
def sample() -> Tensor:
    """All but a thousandth of the variance is in five dimensions."""
    generator = torch.Generator().manual_seed(0)
    scales = torch.tensor([1.0] * 5 + [0.01] * (WIDTH - 5))
    x = torch.randn(700, WIDTH, generator=generator) * scales
    rotation = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator)).Q
    return x @ rotation + 3.0 * torch.randn(WIDTH, generator=generator)


@pytest.mark.parametrize("inputs", ["raw", "none-rms", "whitened", "centered"])
def test_biases_start_where_the_arm_says(sample: Tensor, inputs: str) -> None:
    initial = InitialSAEs(sample, N, K)
    plain = initial.sae(parse_arm(inputs), 0)
    y = plain.transform.apply(sample)[0]
    mean = y.double().mean(0).float()
    started = {
        w: initial.sae(parse_arm(f"{inputs}+{w}"), 0)
        for w in ("b-mean", "b-median", "b-fast", "enc-mean")
    }
    assert torch.allclose(started["b-mean"].b, mean, atol=1e-5)
    assert torch.allclose(started["b-median"].b, geometric_median(y).point.float(), atol=1e-5)
    assert not started["b-fast"].b.any()
    pre = y @ started["enc-mean"].W_enc.T + started["enc-mean"].b_enc
    assert float(pre.mean(0).abs().max()) < 1e-3
    for sae in started.values():
        assert torch.equal(sae.W_enc, plain.W_enc)
        assert torch.equal(sae.W_dec, plain.W_dec)


def test_a_bias_at_the_mean_is_born_as_a_centered_arm(sample: Tensor) -> None:
    initial = InitialSAEs(sample, N, K)
    centered = initial.census(parse_arm("mean-none"), 0)
    assert initial.census(parse_arm("raw"), 0).dead > centered.dead
    for word in ("b-mean", "enc-mean"):
        assert initial.census(parse_arm(f"raw+{word}"), 0).dead == pytest.approx(
            centered.dead, abs=1
        )


def test_rows_from_data_are_tokens_each_at_most_once(sample: Tensor) -> None:
    initial = InitialSAEs(sample, N, K)
    sae = initial.sae(parse_arm("raw+data"), 1)
    unit = torch.nn.functional.normalize(sae.transform.apply(sample)[0], dim=1)
    nearest = (sae.W_dec @ unit.T).max(1)
    assert torch.allclose(nearest.values, torch.ones(N), atol=1e-5)
    distance = (sae.W_dec[:, None] - unit[None]).abs().amax(2)
    assert len(distance.argmin(1).unique()) == N
    assert torch.equal(sae.W_enc, sae.W_dec)
    other = initial.sae(parse_arm("raw+data"), 2)
    assert not torch.equal(sae.W_dec, other.W_dec)


def test_fewer_tokens_than_features_are_taken_again_and_zeros_are_left_out() -> None:
    sample = torch.randn(50, WIDTH, generator=torch.Generator().manual_seed(0)) + 1
    sample[0] = 0
    sae = InitialSAEs(sample, 120, K).sae(parse_arm("raw+data"), 0)
    norms = torch.linalg.vector_norm(sae.W_dec, dim=1)
    assert torch.allclose(norms, torch.ones(120), atol=1e-5)


def test_rows_of_the_subspace_lie_in_it_and_cure_what_low_rank_kills(sample: Tensor) -> None:
    initial = InitialSAEs(sample, N, K)
    sae = initial.sae(parse_arm("centered+subspace"), 0)
    axes = torch.linalg.svd((sample - sample.mean(0)).double()).Vh[:5]
    inside = (sae.W_dec.double() @ axes.T).square().sum(1)
    assert torch.allclose(inside, torch.ones_like(inside), atol=1e-6)
    dead = {
        arm: initial.census(parse_arm(arm), 0).dead for arm in ("centered", "centered+subspace")
    }
    assert dead["centered+subspace"] < dead["centered"]


def test_schedules_are_of_the_step_alone() -> None:
    recipe = Recipe(n=200, k=10, steps=100, anneal_from=3, anneal_share=0.2, lr_warmup=0.1)
    annealed, warm, raw = (parse_arm(f"raw{w}") for w in ("+k-anneal", "+lr-warmup", ""))
    assert [active_features(recipe, annealed, s) for s in (0, 5, 10, 19, 20, 99)] == [
        30,
        25,
        20,
        11,
        10,
        10,
    ]
    assert active_features(recipe, raw, 0) == 10
    assert active_features(Recipe(n=12, k=10, steps=100), annealed, 0) == 11
    shares = [learning_rate(recipe, warm, s) / recipe.rate for s in (0, 4, 9, 10, 99)]
    assert shares == pytest.approx([0.1, 0.5, 1, 1, 1])
    assert learning_rate(recipe, raw, 0) == recipe.rate
