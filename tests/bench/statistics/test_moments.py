from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from bench.statistics.moments import Moments, check_finite, gamma, normalise
from tests.bench import reference
from zoo.errors import BadActivations

TRANSFORMS = ("raw", "layernorm", "rms")


def activations(tokens: int, width: int, seed: int, severity: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.rand(width, generator=generator) + 0.1
    mean = severity * torch.randn(width, generator=generator)
    return torch.randn(tokens, width, generator=generator) * spread + mean


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize(("tokens", "width"), [(2, 3), (700, 5), (3000, 48), (1500, 700)])
def test_equals_the_plain_formula(transform, tokens, width):
    x = activations(tokens, width, seed=tokens + width)
    moments = Moments(width, covariance=True, transform=transform)
    for batch in x.split(333):
        moments.update(batch)
    y = reference.transformed(x.numpy(), transform)
    assert moments.count == tokens
    np.testing.assert_allclose(moments.mean, y.mean(axis=0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(moments.variance, y.var(axis=0), rtol=1e-9)
    np.testing.assert_allclose(moments.kurtosis, reference.kurtosis(y), rtol=1e-9)
    covariance = np.cov(y.T, ddof=0)
    np.testing.assert_allclose(
        moments.covariance, covariance, rtol=1e-9, atol=1e-12 * np.abs(covariance).max()
    )
    assert gamma(moments.mean, moments.variance) == pytest.approx(reference.gamma(y), rel=1e-9)


def test_stable_where_the_mean_is_far_away():
    # Integers, so that exact fractions give the truth: mean 1e4 standard deviations out.
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(-2, 3, (5000, 4), generator=generator).float() + 14142.0
    moments = Moments(4)
    for batch in x.split(100):
        moments.update(batch)
    for column in range(4):
        values = [Fraction(int(v)) for v in x[:, column]]
        mean = sum(values) / len(values)
        variance = sum((v - mean) ** 2 for v in values) / len(values)
        fourth = sum((v - mean) ** 4 for v in values) / len(values)
        assert float(moments.mean[column]) == pytest.approx(float(mean), rel=1e-15)
        assert float(moments.variance[column]) == pytest.approx(float(variance), rel=1e-12)
        kurtosis = float(fourth / variance**2)
        assert float(moments.kurtosis[column]) == pytest.approx(kurtosis, rel=1e-11)
    assert gamma(moments.mean, moments.variance) == pytest.approx(1e4, rel=0.02)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_extreme_gamma_after_a_transform(transform):
    x = activations(4000, 32, seed=3, severity=1.0)
    x = x + 1e4 * x.std() * torch.linspace(-1, 1, 32)
    moments = Moments(32, transform=transform)
    moments.update(x)
    y = reference.transformed(x.numpy(), transform)
    assert gamma(moments.mean, moments.variance) == pytest.approx(reference.gamma(y), rel=1e-9)


def test_batching_changes_nothing():
    x = activations(5000, 64, seed=4)
    results = []
    for size in (1, 17, 1000, 5000):
        moments = Moments(64, covariance=True, transform="layernorm")
        for batch in x.split(size):
            moments.update(batch)
        results.append((moments.mean, moments.variance, moments.kurtosis, moments.covariance))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_blocks_of_any_size_and_order_give_the_same_beyond_rounding():
    x = activations(4000, 24, seed=5, severity=50.0)
    whole = Moments(24, covariance=True)
    whole.update(x)
    parts = [x[:1], x[1:40], x[40:3000], x[3000:]]
    for order in ([0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0]):
        merged = Moments(24, covariance=True)
        for i in order:
            merged.absorb(parts[i].double())
        assert merged.count == 4000
        for name in ("mean", "variance", "kurtosis"):
            torch.testing.assert_close(
                getattr(merged, name), getattr(whole, name), rtol=1e-12, atol=1e-14
            )
        torch.testing.assert_close(merged.covariance, whole.covariance, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_real_dtype_is_taken_exactly(dtype):
    x = activations(300, 6, seed=6).to(dtype)
    moments = Moments(6)
    moments.update(x)
    np.testing.assert_allclose(moments.mean, x.double().numpy().mean(axis=0), rtol=1e-12)


def test_non_finite_values_are_counted_and_located():
    x = torch.zeros(10, 4)
    x[3, 2] = torch.nan
    x[7] = torch.inf
    message = r"^5 non-finite values in 2 of 10 tokens, the first \(NaN\) at token 103, dimension 2"
    with pytest.raises(BadActivations, match=message):
        check_finite(x, 100)
    check_finite(x[:3])


def test_non_finite_values_deep_in_a_stream():
    x = torch.randn(600, 4)
    x[550, 1] = -torch.inf
    moments = Moments(4, transform="layernorm")
    for batch in x.split(100):
        moments.update(batch)
    with pytest.raises(BadActivations, match=r"first \(infinite\) at token 550, dimension 1"):
        _ = moments.mean


def test_huge_finite_values_are_not_called_infinite():
    x = torch.full((4, 2), 1e308, dtype=torch.float64)
    x[0, 0] = -1e308
    Moments(2).update(x)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(3, 5), r"shape \(3, 5\), not \[tokens, 4\]"),
        (torch.zeros(2, 3, 4), r"shape \(2, 3, 4\)"),
        (torch.zeros(3, 4, dtype=torch.int64), "dtype int64"),
        (torch.zeros(3, 4, dtype=torch.complex64), "dtype complex64"),
    ],
)
def test_what_is_not_activations(x, message):
    with pytest.raises(BadActivations, match=message):
        Moments(4).update(x)


@pytest.mark.parametrize("value", [0.0, 0.1, -3e7])
def test_constant_activations_have_no_gamma(value):
    moments = Moments(4)
    moments.update(torch.full((50, 4), value))
    with pytest.raises(BadActivations, match="constant"):
        gamma(moments.mean, moments.variance)


def test_normalise_keeps_direction_or_removes_mean():
    x = activations(50, 16, seed=7, severity=3.0)
    rms = normalise(x, "rms")
    torch.testing.assert_close(rms.square().mean(1), torch.ones(50))
    torch.testing.assert_close(torch.cosine_similarity(rms, x), torch.ones(50))
    torch.testing.assert_close(
        normalise(x, "layernorm"), torch.nn.functional.layer_norm(x, (16,)), rtol=1e-4, atol=1e-5
    )
    assert normalise(x, "raw") is x
    assert torch.equal(normalise(torch.zeros(2, 4), "rms"), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="transform"):
        normalise(x, "batchnorm")


def test_normalise_leaves_its_input():
    x = activations(20, 8, seed=8)
    before = x.clone()
    for transform in TRANSFORMS:
        normalise(x, transform)
    assert torch.equal(x, before)


def test_a_dimension_that_does_not_vary_has_no_kurtosis():
    x = torch.randn(100, 3)
    x[:, 1] = 0.1
    moments = Moments(3)
    moments.update(x)
    assert moments.kurtosis[1] == 0
    assert torch.isfinite(moments.kurtosis).all()
