from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from bench.death.census import census
from bench.death.extrapolation import dead_rate_at


def synthetic(seed: int, tokens: int, severity: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    d, n = 64, 1024
    mu = severity * d**0.5 * normalize(torch.randn(d, generator=generator), dim=0)
    x = torch.randn(tokens, d, generator=generator) + mu
    return x, normalize(torch.randn(n, d, generator=generator), dim=1)


@pytest.mark.parametrize(("severity", "ratio"), [(0.7, 2), (1.0, 2), (1.0, 4), (2.0, 4)])
def test_predicts_the_death_rate_on_held_back_tokens(severity, ratio):
    hits, errors = 0, []
    for seed in range(8):
        x, W = synthetic(seed, 2000 * ratio, severity)
        sample = census(x[:2000], W, k=8, counts=True)
        truth = census(x, W, k=8).dead_rate
        estimate = dead_rate_at(sample.counts, 2000, 2000 * ratio)
        assert estimate.reason is None
        assert estimate.low <= estimate.value <= estimate.high <= sample.dead_rate
        hits += estimate.low <= truth <= estimate.high
        errors.append((estimate.value - truth, sample.dead_rate - truth))
    assert hits >= 6
    ours, naive = np.abs(np.mean(errors, axis=0))
    assert ours < naive / 3


def test_the_poisson_expectation():
    # Features with known rates: the expected number seen later is known exactly.
    generator = np.random.default_rng(0)
    rates = generator.lognormal(-1, 2, size=20_000)
    counts = generator.poisson(rates)
    estimate = dead_rate_at(counts, 10_000, 30_000)
    assert estimate.value == pytest.approx(np.exp(-3 * rates).mean(), abs=0.01)
    assert estimate.low < np.exp(-3 * rates).mean() < estimate.high


def test_nothing_to_predict():
    counts = np.array([5, 1, 9])
    assert dead_rate_at(counts, 100, 1000).value == 0
    same = dead_rate_at(np.array([0, 0, 3, 4]), 100, 100)
    assert (same.value, same.low, same.high) == (0.5, 0.5, 0.5)


def test_refused_too_far_out():
    counts = np.random.default_rng(1).poisson(1.0, 1000)
    refused = dead_rate_at(counts, 1000, 11_001)
    assert refused.value is None
    assert "11001 tokens are more than 11 times the 1000 that were seen" in refused.reason
    assert dead_rate_at(counts, 1000, 11_000).reason is None


def test_an_interval_that_says_little_is_given_and_stays_within_what_can_be():
    counts = np.array([0] * 3 + [1] * 40 + [2] * 40 + [3] * 40)
    found = dead_rate_at(counts, 1000, 6000)
    assert found.low == 0
    assert 0 <= found.value <= found.high <= 3 / 123


@pytest.mark.parametrize("ratio", [1, 3, 10])
def test_lognormal_rates_are_held_as_often_as_is_said(ratio):
    """`ci/extrapolation_coverage.py` asks far more often, of other rates too."""
    generator, held = np.random.default_rng(ratio), 0
    for _ in range(50):
        rates = generator.lognormal(generator.uniform(-2, 2), generator.uniform(1, 2.5), 2048)
        counts, further = generator.poisson(rates), generator.poisson(rates * ratio)
        found = dead_rate_at(counts, 1000, 1000 * (1 + ratio))
        held += found.low <= ((counts == 0) & (further == 0)).mean() <= found.high
    assert held >= 45


def test_the_estimate_is_near_what_is_left_where_the_rates_are_known():
    """Exponential rates of mean m: 1 / (1 + m (1 + t)) are dead on 1 + t times the tokens."""
    mean, n = 3.0, 200_000
    generator = np.random.default_rng(0)
    counts = generator.poisson(generator.gamma(1.0, mean, n))
    for ratio in (1, 4, 10):
        found = dead_rate_at(counts, 1000, 1000 * (1 + ratio))
        expected = 1 / (1 + mean * (1 + ratio))
        assert found.value == pytest.approx(expected, rel=0.25)
        assert found.low <= expected <= found.high


def test_refused_where_the_halves_disagree():
    # The second half is another corpus: other features fire there.
    x, W = synthetic(0, 2000, 1.5)
    other, _ = synthetic(1, 2000, 1.5)
    first = census(x, W, k=8, counts=True)
    second = census(other, W, k=8, counts=True)
    refused = dead_rate_at(first.counts + second.counts, 4000, 8000, first_half=first.counts)
    assert refused.value is None
    assert "the tokens are not exchangeable" in refused.reason
    again = census(torch.cat([x, other])[torch.randperm(4000)][:2000], W, k=8, counts=True)
    kept = dead_rate_at(first.counts + second.counts, 4000, 8000, first_half=again.counts)
    assert kept.reason is None


def test_only_more_tokens_can_be_foretold():
    with pytest.raises(ValueError, match="at least the 100 tokens"):
        dead_rate_at(np.array([0, 1]), 100, 50)
