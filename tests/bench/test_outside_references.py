"""Survival curves and intervals beside those of lifelines and statsmodels, on the same events."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from lifelines import KaplanMeierFitter
from lifelines.utils import median_survival_times, qth_survival_time
from statsmodels.duration.survfunc import SurvfuncRight
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from bench.death.revival import survival, survival_curve
from bench.intervals import binomial_interval, difference

STEPS = 300


def events(seed: int) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Clocks of features born dead, -1 where one never fired; and as durations with events.

    Times are tied more or less often, and between none and most of them are censored.
    """
    random = np.random.default_rng(seed)
    born = int(random.integers(3, 400))
    scale = float(random.choice([20, 150, 600]))
    times = np.ceil(random.exponential(scale, born) / (1 + seed % 4)) * (1 + seed % 4)
    observed = times < STEPS
    clocks = np.where(observed, times, -1).astype(np.int64)
    return torch.from_numpy(clocks), np.minimum(times, STEPS), observed


@pytest.mark.parametrize("seed", range(40))
def test_survival_equals_lifelines_and_statsmodels(seed: int) -> None:
    clocks, durations, observed = events(seed)
    born = torch.ones(len(clocks), dtype=torch.bool)
    times, shares = survival_curve(clocks, born, STEPS)
    found = survival(clocks, born, STEPS)

    fitted = KaplanMeierFitter(alpha=0.05).fit(durations, observed)
    theirs = fitted.survival_function_at_times(times).to_numpy()
    assert shares == pytest.approx(theirs, abs=1e-12)
    # A share of exactly one half comes out of lifelines' products a rounding above it.
    assert (found.median_steps or math.inf) == qth_survival_time(
        0.5 + 1e-12, fitted.survival_function_
    )
    if found.median_steps is not None:
        ends = median_survival_times(fitted.confidence_interval_).to_numpy()[0]
        assert (found.interval or (ends[0], math.inf)) == pytest.approx(tuple(ends))

    other = SurvfuncRight(durations, observed.astype(int))
    at = np.searchsorted(times, other.surv_times)
    assert shares[at] == pytest.approx(other.surv_prob, abs=1e-12)


def test_the_events_are_of_every_kind() -> None:
    """Medians that are reached with an interval, without one, and not at all."""
    kinds = set()
    for seed in range(40):
        clocks, _, observed = events(seed)
        found = survival(clocks, torch.ones(len(clocks), dtype=torch.bool), STEPS)
        kinds.add((found.median_steps is None, found.interval is None, bool(observed.all())))
    assert {kind[:2] for kind in kinds} == {(False, False), (False, True), (True, True)}
    assert {kind[2] for kind in kinds} == {True, False}


def test_intervals_of_shares_equal_statsmodels() -> None:
    random = np.random.default_rng(0)
    for trials in (1, 7, 512, 8192):
        for successes in {0, trials, int(random.integers(0, trials + 1))}:
            found = binomial_interval(successes, trials, confidence=0.9)
            expected = proportion_confint(successes, trials, alpha=0.1, method="wilson")
            assert (found.low, found.high) == pytest.approx(expected, abs=1e-12)


def test_intervals_of_differences_equal_statsmodels() -> None:
    random = np.random.default_rng(1)
    for _ in range(50):
        trials = random.integers(1, 9000, 2)
        successes = [int(random.integers(0, each + 1)) for each in trials]
        pairs = list(zip(successes, map(int, trials), strict=True))
        found = difference(*(binomial_interval(*pair) for pair in pairs))
        expected = confint_proportions_2indep(*pairs[0], *pairs[1], method="newcomb")
        assert (found.low, found.high) == pytest.approx(expected, abs=1e-12)
