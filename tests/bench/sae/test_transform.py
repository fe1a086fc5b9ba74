"""The arms' transforms against their definition in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.sae.arms import Arm, all_arms, parse_arm
from bench.sae.transform import WHITENING_NORMS, Transform
from bench.statistics.geometric_median import geometric_median
from zoo.errors import BadActivations

WIDTH = 12
INPUT_ARMS = [arm for arm in all_arms() if arm.aux == "none" and arm.norm != "average"]
ids = [arm.name for arm in INPUT_ARMS]


def sample(seed: int = 0, tokens: int = 600) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64)
    x = torch.randn(tokens, WIDTH, generator=generator, dtype=torch.float64) @ mixing
    return 0.1 * x + torch.randn(WIDTH, generator=generator, dtype=torch.float64)


def numpy_normalised(x: np.ndarray, norm: str) -> np.ndarray:
    if norm == "layernorm":
        return (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    if norm == "rms":
        return x / np.sqrt((x**2).mean(1, keepdims=True))
    return x


@pytest.mark.parametrize("arm", INPUT_ARMS, ids=ids)
def test_half_of_the_tokens_are_within_the_root_of_the_width(arm: Arm) -> None:
    x = sample(tokens=601)
    fit = Transform.fit(arm, x)
    normalised = torch.from_numpy(numpy_normalised(x.numpy(), arm.norm))
    # The geometric median, mapped as a token is after its norm.
    middle = geometric_median(normalised).point - fit.center
    middle = fit.scale * (middle if fit.matrix is None else middle @ fit.matrix)
    distances = (fit.apply(x)[0] - middle).norm(dim=1)
    assert float(distances.median()) == pytest.approx(WIDTH**0.5, rel=1e-9)


def test_the_scale_is_the_same_whatever_the_center() -> None:
    x = sample()
    scales = {Transform.fit(parse_arm(arm), x).scale for arm in ("raw", "mean-none", "centered")}
    assert len(scales) == 1


@pytest.mark.parametrize("center", ["none", "mean"])
def test_the_average_norm_is_the_root_of_the_width(center: str) -> None:
    x = sample()
    fit = Transform.fit(parse_arm(f"{center}-average"), x)
    y, taken = fit.apply(x)
    assert float(y.norm(dim=1).mean()) == pytest.approx(WIDTH**0.5, rel=1e-12)
    assert torch.allclose(fit.invert(y, taken), x, atol=1e-12)


def test_zca_decorrelates_and_stays_as_near_as_it_can() -> None:
    x = sample()
    z, p = (Transform.fit(parse_arm(f"mean-{norm}"), x).apply(x)[0] for norm in ("zca", "whiten"))
    for y in (z, p):
        covariance = y.T @ y / len(y)
        identity = torch.eye(WIDTH).double() * covariance[0, 0]
        assert torch.allclose(covariance, identity, atol=1e-9)
    # Of all whitenings ZCA's is the nearest to what is whitened (Eldar and Oppenheim 2003).
    centered = x - x.mean(0)
    assert float((z * centered).sum()) > float((p * centered).sum())
    matrix = Transform.fit(parse_arm("mean-zca"), x).matrix
    assert matrix is not None
    assert torch.allclose(matrix, matrix.T, atol=1e-9)


def test_massive_tokens_do_not_set_the_scale() -> None:
    x = sample(tokens=20_000)
    scale = Transform.fit(parse_arm("raw"), x).scale
    x[:15] *= 300
    assert Transform.fit(parse_arm("raw"), x).scale == pytest.approx(scale, rel=0.01)
    # What it was by the variance, of which they hold nearly all.
    assert (WIDTH / float(x.var(0, correction=0).sum())) ** 0.5 < scale / 5


def test_where_most_tokens_are_equal_the_variance_sets_the_scale() -> None:
    x = sample(tokens=100)
    x[:70] = x[0].clone()
    transform = Transform.fit(parse_arm("raw"), x)
    assert transform.scale == pytest.approx((WIDTH / float(x.var(0, correction=0).sum())) ** 0.5)


@pytest.mark.parametrize("arm", INPUT_ARMS, ids=ids)
def test_inverse_gives_the_input_back(arm: Arm) -> None:
    x = sample()
    transform = Transform.fit(arm, x)
    y, taken = transform.apply(x)
    assert torch.allclose(transform.invert(y, taken), x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("arm", INPUT_ARMS, ids=ids)
def test_equals_the_formula(arm: Arm) -> None:
    x = sample(tokens=601)  # an odd number has one median
    normalised = numpy_normalised(x.numpy(), arm.norm)
    center = {
        "none": np.zeros(WIDTH),
        "mean": normalised.mean(0),
        "geometric_median": geometric_median(torch.from_numpy(normalised)).point.numpy(),
    }[arm.center]
    shifted = normalised - center
    y = Transform.fit(arm, x).apply(x)[0].numpy()
    middle = geometric_median(torch.from_numpy(normalised)).point.numpy()
    if arm.norm in WHITENING_NORMS:
        spread = np.cov(y.T, ddof=0)
        assert np.allclose(spread, spread[0, 0] * np.eye(WIDTH), atol=1e-8)
        # A linear map of the shifted tokens, hence all of their own projection.
        fitted = shifted @ np.linalg.lstsq(shifted, y, rcond=None)[0]
        assert np.allclose(fitted, y, atol=1e-8)
    else:
        scale = np.sqrt(WIDTH / np.median(((normalised - middle) ** 2).sum(1)))
        assert np.allclose(y, scale * shifted, rtol=1e-9, atol=1e-9)


def test_raw_keeps_gamma_and_centered_leaves_no_median() -> None:
    x = sample()
    gamma = float(x.mean(0).norm() / x.std(0, correction=0).norm())
    raw = Transform.fit(parse_arm("raw"), x).apply(x)[0]
    centered = Transform.fit(parse_arm("centered"), x).apply(x)[0]
    assert float(raw.mean(0).norm() / raw.std(0, correction=0).norm()) == pytest.approx(gamma)
    assert float(geometric_median(centered).point.norm()) < 1e-5


def test_an_all_zero_token_survives_the_rms_norm() -> None:
    x = sample()
    x[3] = 0.0
    transform = Transform.fit(parse_arm("mean-rms"), x)
    y, taken = transform.apply(x)
    assert y.isfinite().all()
    assert torch.allclose(transform.invert(y, taken)[3], torch.zeros(WIDTH, dtype=torch.float64))


def test_a_per_token_norm_cannot_be_undone_blindly() -> None:
    transform = Transform.fit(parse_arm("none-layernorm"), sample())
    with pytest.raises(ValueError, match="layernorm norm cannot be undone"):
        transform.invert(torch.zeros(2, WIDTH, dtype=torch.float64))


@pytest.mark.parametrize("arm", INPUT_ARMS, ids=ids)
def test_constant_activations_are_refused(arm: Arm) -> None:
    with pytest.raises(BadActivations, match="constant"):
        Transform.fit(arm, torch.randn(WIDTH).expand(50, WIDTH))


def test_non_finite_activations_are_refused() -> None:
    x = sample()
    x[5, 2] = float("nan")
    with pytest.raises(BadActivations, match="token 5, dimension 2"):
        Transform.fit(parse_arm("raw"), x)


def test_buffers_follow_dtype() -> None:
    transform = Transform.fit(parse_arm("whitened"), sample()).to(torch.float32, "cpu")
    assert transform.apply(sample())[0].dtype == torch.float32
