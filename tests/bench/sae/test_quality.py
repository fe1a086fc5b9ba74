"""Quality measures against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.sae.arms import parse_arm
from bench.sae.model import SAE
from bench.sae.quality import agreement, bias_target, quality, recovery
from bench.sae.transform import Transform
from zoo.errors import BadActivations

WIDTH, N, K = 12, 64, 4
ARMS = ["raw", "centered", "whitened", "mean-layernorm", "none-rms"]


def activations(gamma: float = 3.0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(5000, WIDTH, generator=generator, dtype=torch.float64)
    mean = torch.randn(WIDTH, generator=generator, dtype=torch.float64)
    return (x + gamma * WIDTH**0.5 * mean / mean.norm()).to(dtype)


def sae_of(arm: str, x: Tensor) -> SAE:
    transform = Transform.fit(parse_arm(arm), x)
    return SAE.init(WIDTH, N, K, seed=0, transform=transform, dtype=x.dtype)


@pytest.mark.parametrize("arm", ARMS)
def test_measures_equal_numpy(arm: str) -> None:
    x = activations()
    sae = sae_of(arm, x)
    codes = sae.encode(x)
    dense = np.zeros((len(x), N))
    np.put_along_axis(dense, codes.indices.numpy(), codes.values.numpy(), 1)
    error = ((sae.reconstruct(x) - x).numpy() ** 2).sum()
    got = quality(sae, x)
    assert got.tokens == len(x)
    assert got.fvu == pytest.approx(error / x.numpy().var(0).sum() / len(x), rel=1e-12)
    assert got.l0 == pytest.approx((dense > 0).sum(1).mean())


def test_massive_tokens_do_not_hide_the_fvu_of_the_others() -> None:
    x = activations()
    x[::400] *= 200
    sae = sae_of("centered", x)
    got = quality(sae, x)
    norms = np.linalg.norm(x.numpy(), axis=1)
    kept = norms <= 10 * np.median(norms)
    assert (~kept).sum() == 13
    error = ((sae.reconstruct(x) - x).numpy()[kept] ** 2).sum()
    assert got.fvu_ordinary == pytest.approx(error / x.numpy()[kept].var(0).sum() / kept.sum())
    plain = activations()
    assert quality(sae, plain).fvu == pytest.approx(quality(sae, plain).fvu_ordinary, rel=1e-12)


def test_fvu_is_about_the_mean_even_where_the_mean_is_huge() -> None:
    """The mean as reconstruction has an FVU of 1, at gamma 1000 in float32 too."""
    x = activations(gamma=1000.0, dtype=torch.float32)
    sae = sae_of("mean-none", x)
    sae.b_enc.fill_(-1e9)
    assert quality(sae, x).fvu == pytest.approx(1.0, abs=1e-4)
    assert quality(sae, x).l0 == 0.0


def test_constant_tokens_have_no_fvu() -> None:
    with pytest.raises(BadActivations, match="do not vary"):
        quality(SAE.init(WIDTH, N, K, seed=0), torch.ones(10, WIDTH))


@pytest.mark.parametrize("arm", ARMS[:3])
def test_recovery_equals_numpy_in_raw_space(arm: str) -> None:
    x = activations()
    sae = sae_of(arm, x)
    truth = torch.randn(30, WIDTH, generator=torch.Generator().manual_seed(9))
    rows = sae.W_dec.numpy()
    if sae.transform.inverse is not None:
        rows = rows @ sae.transform.inverse.numpy()
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    unit = truth.numpy() / np.linalg.norm(truth.numpy(), axis=1, keepdims=True)
    assert recovery(sae, truth) == pytest.approx((unit @ rows.T).max(1).mean(), rel=1e-6)


def test_a_dictionary_recovers_itself() -> None:
    sae = sae_of("raw", activations())
    assert recovery(sae, 3 * sae.W_dec) == pytest.approx(1.0, abs=1e-12)
    assert recovery(sae, -sae.W_dec) < 0.95


def test_agreement_equals_numpy_and_is_one_with_oneself() -> None:
    first, second, third = (SAE.init(WIDTH, size, K, seed=size).W_dec for size in (64, 40, 80))
    cosines = [(first.numpy() @ other.numpy().T).max(1).mean() for other in (second, third)]
    assert agreement(first, [second, third]) == pytest.approx(np.mean(cosines), rel=1e-6)
    assert agreement(first, [first]) == pytest.approx(1.0, abs=1e-6)


def test_no_other_seed_and_nothing_alive_mean_no_agreement() -> None:
    rows = SAE.init(WIDTH, N, K, seed=0).W_dec
    assert agreement(rows, []) is None
    assert agreement(rows[:0], [rows]) is None
    assert agreement(rows, [rows[:0]]) is None


@pytest.mark.parametrize("share", [-0.25, 0.0, 0.5, 1.0])
def test_the_bias_along_its_target_is_the_signed_share_of_the_mean(share: float) -> None:
    x = activations()
    sae = sae_of("raw", x)
    mu = sae.transform.apply(x)[0].mean(0)
    across = torch.randn(WIDTH, dtype=torch.float64)
    across -= (across @ mu) / (mu @ mu) * mu
    sae.b.copy_(share * mu + 5 * across)
    target = bias_target(sae, x)
    assert target is not None
    assert float(sae.b @ target) == pytest.approx(share, abs=1e-9)


@pytest.mark.parametrize("arm", ["mean-none", "centered", "whitened"])
def test_a_centered_arm_has_no_mean_to_learn(arm: str) -> None:
    x = activations()
    assert bias_target(sae_of(arm, x), x) is None
