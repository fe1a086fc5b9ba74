"""What must not change: scale, rotation, order, splitting and dtype, for all that is measured."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bench.diagnosis.diagnose import diagnose
from bench.sae.arms import all_arms, parse_arm
from bench.sae.initial import InitialSAEs
from bench.sae.trainer import Recipe, Trainer
from bench.statistics.geometric_median import geometric_median
from bench.statistics.layer import LayerStatistics
from bench.statistics.reservoir import Reservoir
from zoo.errors import BadActivations

SEEDS = st.integers(0, 2**32 - 1)
# Powers of two: what they multiply is not rounded.
EXPONENTS = st.integers(-100, 100)
SCALE_FREE = (
    *("gamma", "gamma_raw", "gamma_rms", "effective_rank", "kurtosis_mean", "kurtosis_max"),
    "median_gap",
)
ROTATION_FREE = ("gamma_raw", "gamma_rms", "mean_norm", "sigma_norm", "median_gap")


def _tokens(seed: int, tokens: int = 600, width: int = 12) -> Tensor:
    """Tokens around a mean, of unequal variances, a few of them large."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.rand(width, generator=generator) + 0.2
    x = torch.randn(tokens, width, generator=generator) * spread
    x[::97] *= 8
    return x + 2 * torch.randn(width, generator=generator)


def _statistics(x: Tensor, parts: list[int] | None = None) -> dict[str, Any]:
    statistics = LayerStatistics(x.shape[1], sample_tokens=256)
    for part in x.split(parts or [len(x)]):
        statistics.update(part)
    return dict(statistics.result())


def _same(found: dict, expected: dict, names: tuple[str, ...], rtol: float) -> None:
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], rtol=rtol, err_msg=name)


@given(seed=SEEDS, exponent=EXPONENTS, dtype=st.sampled_from([torch.float32, torch.float64]))
def test_statistics_do_not_depend_on_the_scale(
    seed: int, exponent: int, dtype: torch.dtype
) -> None:
    x = _tokens(seed).to(dtype)
    found, expected = _statistics(x * 2.0**exponent), _statistics(x)
    # LayerNorm's eps of 1e-5 is nothing at scale 1 and up to a hundredth of a variance below.
    _same(found, expected, SCALE_FREE, rtol=1e-2)
    _same(found, expected, ("gamma_raw", "gamma_rms"), rtol=1e-9)
    for name in ("mean_norm", "sigma_norm"):
        np.testing.assert_allclose(found[name], expected[name] * 2.0**exponent, rtol=1e-9)


@given(seed=SEEDS)
def test_statistics_of_tokens_do_not_depend_on_rotation(seed: int) -> None:
    x = _tokens(seed).double()
    generator = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(12, 12, generator=generator, dtype=torch.float64))[0]
    _same(_statistics(x @ turn), _statistics(x), ROTATION_FREE, rtol=1e-6)


@given(seed=SEEDS, cuts=st.lists(st.integers(1, 599), max_size=6, unique=True))
def test_how_a_stream_is_split_changes_nothing(seed: int, cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), 600]
    parts = [b - a for a, b in itertools.pairwise(edges)]
    x = _tokens(seed)
    assert _statistics(x, parts) == _statistics(x)


@given(seed=SEEDS)
def test_the_order_of_tokens_changes_nothing_but_rounding(seed: int) -> None:
    x = _tokens(seed, tokens=200)
    other = x[torch.randperm(200, generator=torch.Generator().manual_seed(seed))]
    names = (*SCALE_FREE, "mean_norm", "sigma_norm")
    _same(_statistics(other), _statistics(x), names, rtol=1e-5)


@given(
    seed=SEEDS,
    dtypes=st.lists(
        st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
        min_size=2,
        max_size=5,
    ),
    size=st.integers(1, 40),
    capacity=st.integers(1, 90),
    large=st.booleans(),
)
def test_a_reservoir_keeps_tokens_as_they_are(
    seed: int, dtypes: list[torch.dtype], size: int, capacity: int, large: bool
) -> None:
    parts = []
    for number, dtype in enumerate(dtypes):
        x = _tokens(seed + number, tokens=size, width=3)
        scale = 1e5 if large and dtype not in (torch.float16,) else 1.0
        parts.append((scale * x).to(dtype))
    kept, exact = Reservoir(3, capacity=capacity), Reservoir(3, capacity=capacity)
    for part in parts:
        kept.update(part)
        exact.update(part.double())
    assert torch.equal(kept.rows().double(), exact.rows())


@given(seed=SEEDS, exponent=EXPONENTS)
def test_the_geometric_median_moves_with_its_tokens(seed: int, exponent: int) -> None:
    x = _tokens(seed, tokens=120).double()
    found = geometric_median(x * 2.0**exponent + 0).point / 2.0**exponent
    # Its tolerance of 1e-6 is in the units of x where their spread is above 2^-10.
    torch.testing.assert_close(found, geometric_median(x).point, rtol=1e-3, atol=1e-3)


@given(
    seed=SEEDS,
    exponent=EXPONENTS,
    arm=st.sampled_from([arm.name for arm in all_arms() if arm.aux == "none"]),
)
def test_births_and_training_do_not_depend_on_the_scale(seed: int, exponent: int, arm: str) -> None:
    """A census of a fresh dictionary, and twelve steps of training, of each arm."""
    x = _tokens(seed % 1000)
    (trained, moved, born), (other, _, other_born) = (
        _trained(x * 2.0**e, arm) for e in (0, exponent)
    )
    assert born == pytest.approx(other_born, abs=1)  # of 64
    # The geometric median's tolerance and LayerNorm's eps are in the units of x: a selection
    # by a hair may fall otherwise once, and trains on. It changes a percent of what training does.
    assert float((other - trained).abs().mean()) < 0.1 * moved


def _trained(x: Tensor, arm: str) -> tuple[Tensor, float, int]:
    """The encoder after some steps, how far it moved, and how many features were born dead."""
    initial = InitialSAEs(x, 64, 4)
    chosen = parse_arm(arm)
    trainer = Trainer(initial.sae(chosen, 0), Recipe(n=64, k=4, lr=1e-3), arm=chosen)
    before = trainer.sae.W_enc.detach().clone()
    for step in range(12):
        trainer.step(x[step * 40 : step * 40 + 40])
    after = trainer.sae.W_enc.detach().clone()
    return after, float((after - before).abs().mean()), initial.census(chosen, 0).dead


@pytest.mark.parametrize("tokens", [2, 3, 4, 5])
def test_few_tokens_are_measured(tokens: int) -> None:
    found = diagnose(_tokens(0, tokens=tokens), n=64, k=4)
    assert found.measured_tokens == tokens


@pytest.mark.parametrize("exponent", [-100, -20, 0, 20, 100])
def test_a_diagnosis_does_not_depend_on_the_scale(exponent: int) -> None:
    x = _tokens(1).double()
    found, expected = (diagnose(x * 2.0**e, n=64, k=4) for e in (exponent, 0))
    assert [arm.dead.value for arm in found.arms] == [arm.dead.value for arm in expected.arms]
    assert found.verdict.action == expected.verdict.action


@given(seed=SEEDS, exponent=st.integers(0, 60))
def test_float64_at_an_offset_is_measured_as_without_or_refused(seed: int, exponent: int) -> None:
    x = _tokens(seed).double()
    try:
        found: Any = diagnose(x + 2.0**exponent, n=64, k=4)
    except BadActivations as error:
        found = error
    if isinstance(found, BadActivations):
        assert exponent > 8
        assert "Subtract their mean" in found.remedy or "constant" in found.message
    else:
        centered = diagnose(x, n=64, k=4).arms[1]
        assert abs(found.arms[1].dead.value - centered.dead.value) <= 3 / 64


def test_float64_beyond_float32_is_refused_in_words() -> None:
    with pytest.raises(BadActivations, match="finite in float64, but larger than"):
        diagnose(_tokens(0).double() * 1e100, n=64, k=4)
    with pytest.raises(BadActivations, match="smaller than float32 holds"):
        diagnose(_tokens(0).double() * 1e-60, n=64, k=4)
