from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import pytest
import torch
from scipy.stats import norm

from adapters import open_adapter
from bench.activations.stream import ActivationStream
from bench.death.census import census
from bench.death.prediction import (
    MOST_TOKENS,
    GaussianTokens,
    from_two_numbers,
    measured_reach,
    power_law,
    threshold,
)
from bench.death.theory import gaussian_dead, predicted_dead
from bench.plan.blocks import Request, make_plan
from bench.plan.protocol import load_protocol
from bench.statistics.moments import Moments
from bench.statistics.spectrum import effective_rank
from tests.bench.death.test_theory import published_rows
from zoo.registry import load_registry

EMBEDDED = ("tiny-esm2", "tiny-dinov2", "tiny-enformer")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def layer(width: int, gamma: float, power: float, seed: int = 0):
    """Mean and covariance with eigenvalues i^-power in a random basis."""
    basis = torch.linalg.qr(normal(width, width, seed=seed)).Q
    spectrum = torch.arange(1, width + 1, dtype=torch.float64) ** -power
    mean = normal(width, seed=seed + 1)
    mean *= gamma * float(spectrum.sum().sqrt()) / float(mean.norm())
    return mean, (basis * spectrum) @ basis.T


def drawn(mean, covariance, tokens: int, seed: int = 5) -> torch.Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return mean + (normal(tokens, len(mean), seed=seed) * values.clamp(min=0).sqrt()) @ vectors.T


def directions(n: int, width: int, seed: int) -> torch.Tensor:
    return torch.nn.functional.normalize(normal(n, width, seed=seed), dim=1)


@pytest.mark.parametrize(
    ("width", "gamma", "power"), [(48, 0.5, 0.0), (48, 1.0, 1.0), (96, 2.0, 1.5), (64, 6.0, 0.5)]
)
def test_predicts_what_is_counted_on_gaussian_tokens(width, gamma, power):
    mean, covariance = layer(width, gamma, power)
    x = drawn(mean, covariance, 4096).float()
    counted = [census(x, directions(1024, width, seed).float(), k=16) for seed in (1, 2)]
    found = GaussianTokens(mean, covariance).predict(4096, 16, 1024)
    assert found.dead == pytest.approx(np.mean([each.dead_rate for each in counted]), abs=0.04)
    assert found.relu == pytest.approx(
        np.mean([each.dead_relu / each.n for each in counted]), abs=0.03
    )


def test_fires_as_often_as_tokens_drawn_one_by_one():
    """Float64, one direction at a time, at a cosine that some hundredths of the tokens exceed."""
    mean, covariance = layer(12, 0.7, 0.8)
    tokens = GaussianTokens(mean, covariance)
    x = torch.nn.functional.normalize(drawn(mean, covariance, 5_000), dim=1)
    w = directions(4000, 12, seed=9)
    for cosine in (0.0, 0.3, 0.6, 0.85):
        expected = float(((x @ w.T) > cosine).double().mean())
        assert float(tokens.firing(cosine).mean()) == pytest.approx(expected, abs=0.02), cosine
    assert float(tokens.firing(1.0).max()) == 0.0


def test_a_positive_pre_activation_is_as_likely_as_the_normal_law_says():
    mean, covariance = layer(32, 1.5, 1.0)
    tokens = GaussianTokens(mean, covariance)
    expected = norm.cdf((tokens._center / tokens._spread).numpy()[:, 0])
    assert tokens.firing(0.0).numpy() == pytest.approx(expected, abs=1e-12)


def test_of_full_rank_it_is_the_integral_of_the_theory():
    mean, covariance = layer(1024, 1.5, 0.0)
    found = GaussianTokens(mean, covariance).predict(100_000, 64, 8192)
    assert found.dead == pytest.approx(gaussian_dead(1.5, 100_000, 64, 8192), abs=0.015)


def test_a_diagonal_stands_for_its_matrix():
    mean, spectrum = normal(24), torch.linspace(0.1, 2, 24, dtype=torch.float64)
    a = GaussianTokens(mean, spectrum).predict(1000, 4, 64)
    b = GaussianTokens(mean, spectrum.diag()).predict(1000, 4, 64)
    assert (a.relu, a.dead) == pytest.approx((b.relu, b.dead), abs=1e-6)


@pytest.mark.parametrize("rank", [1, 3])
def test_a_covariance_of_low_rank_will_do(rank):
    factor = normal(20, rank)
    found = GaussianTokens(normal(20, seed=1), factor @ factor.T).predict(1000, 4, 64)
    assert 0 <= found.relu <= found.dead <= 1


def test_tokens_that_do_not_vary_are_refused():
    with pytest.raises(ValueError, match="do not vary"):
        GaussianTokens(torch.ones(8), torch.zeros(8, 8))
    with pytest.raises(ValueError, match="needs tokens"):
        GaussianTokens(torch.ones(8), torch.eye(8)).predict(0, 2, 8)


@pytest.mark.parametrize("width", [8, 32, 768])
def test_the_threshold_is_what_k_of_n_random_directions_exceed(width):
    # One coordinate of a random unit vector; the others' squares add up to a chi-squared.
    rest = np.random.default_rng(3).chisquare(width - 1, 400_000)
    first = normal(400_000).numpy()
    cosines = first / np.sqrt(first**2 + rest)
    for k, n in ((16, 512), (64, 8192), (4, 16)):
        assert threshold(k, n, width) == pytest.approx(np.quantile(cosines, 1 - k / n), rel=0.03)
    assert threshold(8, 16, width) == threshold(12, 16, width) == 0.0
    assert threshold(64, 8192, 10**6) * 1000 == pytest.approx(norm.isf(64 / 8192), rel=1e-4)
    with pytest.raises(ValueError, match="k must be"):
        threshold(9, 8, width)


def test_the_reach_is_half_the_mean_width_of_the_unit_tokens():
    x = normal(300, 16)
    x[7] = 0.0
    unit = torch.nn.functional.normalize(x, dim=1)
    w = directions(20_000, 16, seed=8)
    products = unit @ w.T
    expected = 4 * float((products.amax(0) - products.amin(0)).mean()) / 2
    assert measured_reach(x) == pytest.approx(expected, rel=0.01)
    assert measured_reach(x * torch.rand(300, 1).add(0.1)) == pytest.approx(measured_reach(x))


@pytest.mark.parametrize("gamma", [0.3, 2.0, 20.0])
def test_gaussian_tokens_count_for_themselves(gamma):
    mean, covariance = layer(64, gamma, 0.7)
    tokens = GaussianTokens(mean, covariance)
    found = measured_reach(drawn(mean, covariance, 4096))
    assert tokens.reach(4096) == pytest.approx(found, rel=0.03)
    assert math.log(tokens.tokens_reaching(found)) == pytest.approx(math.log(4096), abs=0.5)
    assert tokens.tokens_reaching(tokens.reach(500)) == pytest.approx(500, rel=0.01)


def test_tokens_that_repeat_count_once_and_a_heavy_tail_for_many():
    mean, covariance = layer(64, 1.0, 0.7)
    few = drawn(mean, covariance, 256)
    tokens = GaussianTokens(mean, covariance)
    # The moments are those of the layer: only the reach knows that there are 256.
    assert 128 < tokens.tokens_reaching(measured_reach(few.repeat(16, 1))) < 512
    tail = mean + (drawn(mean, covariance, 4096) - mean) * normal(4096, 1, seed=4).exp()
    assert tokens.tokens_reaching(measured_reach(tail)) > 10_000
    assert tokens.tokens_reaching(0.0) == 1.0
    assert tokens.tokens_reaching(9.0) == MOST_TOKENS


def test_a_power_law_has_the_effective_rank_asked_for():
    for rank, width in ((1.5, 10), (40.0, 768), (700.0, 768), (768.0, 768)):
        assert effective_rank(power_law(rank, width)) == pytest.approx(rank, rel=1e-6)
    with pytest.raises(ValueError, match="not between 1 and 8"):
        power_law(9.0, 8)


@lru_cache(maxsize=1)
def embedded_layers() -> list[tuple[str, torch.Tensor]]:
    """The evaluation samples of the embedded models with death, at the quick protocol."""
    registry, protocol, found = load_registry(), load_protocol("quick"), []
    for name in EMBEDDED:
        (block,) = make_plan(Request([registry.card(name)], protocol), registry)
        assert block.corpus is not None
        adapter = open_adapter(block.card, device="cpu", dtype=torch.float32)
        sample = ActivationStream(adapter, block.corpus, block.layers, protocol).sample(protocol.N)
        found += [(f"{name} {number}", x) for number, x in sample.items()]
    return found


def test_on_real_layers_the_moments_err_by_six_points_and_with_the_reach_by_two():
    n, k = 512, 16
    errors = []
    for _, x in embedded_layers():
        moments = Moments(x.shape[1], covariance=True, transform="rms")
        moments.update(x)
        tokens = GaussianTokens(moments.mean, moments.covariance)
        effective = tokens.tokens_reaching(measured_reach(x))
        counts = [
            census(x, directions(n, x.shape[1], seed).float(), k=k).dead_rate for seed in range(2)
        ]
        gamma = float(moments.mean.norm() / moments.variance.sum().sqrt())
        guesses = (
            predicted_dead(gamma, len(x), k, n),
            tokens.predict(len(x), k, n).dead,
            tokens.predict(effective, k, n).dead,
        )
        errors.append([100 * (guess - np.mean(counts)) for guess in guesses])
    closed, moments_alone, with_reach = np.abs(errors).mean(0)
    assert closed > 20  # so that the other two say something
    assert moments_alone < 6
    assert with_reach < 2
    assert np.abs(errors).max(0)[2] < 5


def test_two_numbers_on_the_published_rows():
    rows = published_rows()
    published = np.array([float(row["dead_pct_init_topk"]) for row in rows])
    numbers = [(float(row["gamma"]), float(row["effective_rank"])) for row in rows]
    widths = [int(row["hidden_dim"]) for row in rows]
    ours = np.array(
        [
            100 * from_two_numbers(gamma, min(rank, width), width, 100_000, 64, 8192).dead
            for (gamma, rank), width in zip(numbers, widths, strict=True)
        ]
    )
    closed = np.array([100 * predicted_dead(gamma, 100_000, 64, 8192) for gamma, _ in numbers])
    assert np.abs(ours - published).mean() < min(6, np.abs(closed - published).mean() - 1)
