"""Revival times against a product-limit estimate written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.death.revival import survival, survival_curve, transitions

STEPS = 100


def product_limit(times: list[int], fired: list[bool]) -> list[tuple[int, float]]:
    """Kaplan and Meier (1958), one event time after another."""
    share, curve = 1.0, []
    for t in sorted(set(times)):
        at_risk = sum(time >= t for time in times)
        events = sum(time == t and hit for time, hit in zip(times, fired, strict=True))
        share *= 1 - events / at_risk
        curve.append((t, share))
    return curve


def clocks(seed: int, born: int, never: int) -> tuple[Tensor, Tensor]:
    """first_fired and the born-dead mask: `born` dead features among 50, `never` not revived."""
    rng = np.random.default_rng(seed)
    first = torch.zeros(50, dtype=torch.int64)
    first[:born] = torch.from_numpy(rng.integers(1, STEPS, born))
    first[:never] = -1
    mask = torch.zeros(50, dtype=torch.bool)
    mask[:born] = True
    return first, mask


@pytest.mark.parametrize(("born", "never"), [(30, 0), (30, 8), (31, 15), (12, 1), (2, 1)])
def test_curve_and_median_equal_the_product_limit(born: int, never: int) -> None:
    first, mask = clocks(born, born, never)
    times = [int(t) if t >= 0 else STEPS for t in first[mask]]
    fired = [bool(t >= 0) for t in first[mask]]
    expected = product_limit(times, fired)
    got_times, got_shares = survival_curve(first, mask, STEPS)
    assert got_times.tolist() == [t for t, _ in expected]
    assert np.allclose(got_shares, [s for _, s in expected])
    median = next((t for t, s in expected if s <= 0.5 + 1e-12), None)
    result = survival(first, mask, STEPS)
    assert result.median_steps == median
    assert (result.born, result.events) == (born, born - never)


def test_interval_holds_the_median_and_narrows_with_numbers() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for born in (40, 4000):
        first = torch.from_numpy(rng.integers(1, STEPS, born))
        result = survival(first, torch.ones(born, dtype=torch.bool), STEPS)
        assert result.interval is not None
        assert result.median_steps is not None
        low, high = result.interval
        assert low <= result.median_steps <= high
        assert result.reason is None
        widths.append(high - low)
    assert widths[1] < widths[0] / 3


def test_interval_covers_the_true_median_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        times = np.ceil(rng.exponential(60, 80)).astype(np.int64)
        times[times >= STEPS] = -1
        result = survival(torch.from_numpy(times), torch.ones(80, dtype=torch.bool), STEPS)
        low, high = result.interval or (0.0, np.inf)
        covered += low <= 60 * np.log(2) + 1 and high >= 60 * np.log(2)
    assert 182 <= covered <= 200


def test_a_median_that_was_not_reached_says_so() -> None:
    first, mask = clocks(0, 20, 15)
    result = survival(first, mask, STEPS)
    assert result.median_steps is None
    assert result.interval is None
    assert result.reason == "fewer than half of 20 fired within 100 steps"


def test_none_revived_and_all_revived() -> None:
    first, mask = clocks(0, 10, 10)
    none = survival(first, mask, STEPS)
    assert (none.events, none.median_steps) == (0, None)
    first[:10] = 4
    every = survival(first, mask, STEPS)
    assert (every.events, every.median_steps) == (10, 4.0)
    assert every.interval == (4.0, 4.0)


def test_none_born_dead_has_a_reason_and_no_numbers() -> None:
    result = survival(torch.zeros(5, dtype=torch.int64), torch.zeros(5, dtype=torch.bool), STEPS)
    assert (result.born, result.median_steps) == (0, None)
    assert result.reason == "no feature was born dead by this path"
    assert survival_curve(torch.zeros(5), torch.zeros(5, dtype=torch.bool), STEPS)[0].size == 0


def test_firings_of_features_born_alive_do_not_matter() -> None:
    first, mask = clocks(3, 20, 5)
    before = survival(first, mask, STEPS)
    first[20:] = 7
    assert survival(first, mask, STEPS) == before


def test_times_in_tokens() -> None:
    first = torch.full((9,), 6)
    result = survival(first, torch.ones(9, dtype=torch.bool), STEPS)
    assert result.in_tokens(512) == (6 * 512, (6 * 512, 6 * 512))


def test_transitions_count_every_feature_once() -> None:
    rng = np.random.default_rng(5)
    born, end = rng.integers(0, 3, 60), rng.integers(0, 3, 60)

    def masks(states: np.ndarray) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(states == 2), torch.from_numpy(states == 1)

    table = transitions(masks(born), masks(end))
    names = ["alive", "topk", "relu"]
    for i, start in enumerate(names):
        for j, stop in enumerate(names):
            assert table[start][stop] == sum((born == i) & (end == j))
