from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from bench.intervals import binomial_interval, difference, paired_bootstrap, spearman


@pytest.mark.parametrize(("successes", "trials"), [(0, 5), (5, 5), (30, 200), (1, 8192), (1, 1)])
def test_equals_scipy(successes, trials):
    estimate = binomial_interval(successes, trials, confidence=0.9)
    expected = stats.binomtest(successes, trials).proportion_ci(0.9, "wilson")
    assert estimate.value == successes / trials
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_nothing_and_everything_still_have_an_interval():
    none, everything = binomial_interval(0, 8192), binomial_interval(8192, 8192)
    assert none.low == 0 < none.high < 0.001
    assert everything.high == 1 > everything.low > 0.999
    missing = binomial_interval(0, 0)
    assert missing.value is None
    assert missing.reason == "no trials"
    with pytest.raises(ValueError, match="6 successes in 5 trials"):
        binomial_interval(6, 5)


# Newcombe (Statistics in Medicine 17, 1998), table II, method 10, as he prints them.
@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((0, 10), (0, 10), -0.2775, 0.2775),
        ((10, 10), (0, 20), 0.6791, 1.0),
    ],
)
def test_a_difference_of_shares_has_newcombe_s_interval(first, second, low, high):
    a, b = binomial_interval(*first), binomial_interval(*second)
    found = difference(a, b)
    assert found.value == a.value - b.value
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


def test_no_difference_from_what_there_is_none_of():
    missing = binomial_interval(0, 0)
    for pair in ((missing, binomial_interval(1, 2)), (binomial_interval(1, 2), missing)):
        assert difference(*pair).value is None
        assert difference(*pair).reason == "no trials"


def test_paired_bootstrap_uses_the_pairing():
    generator = np.random.default_rng(0)
    common = generator.normal(size=40)
    raw, centered = common + 0.5 + 0.01 * generator.normal(size=40), common
    estimate = paired_bootstrap(raw, centered)
    assert estimate.value == pytest.approx(float((raw - centered).mean()))
    assert 0.49 < estimate.low < estimate.value < estimate.high < 0.51
    assert paired_bootstrap(raw, centered) == estimate
    assert paired_bootstrap(raw, centered, seed=1) != estimate


@pytest.mark.parametrize("pairs", [2, 3, 5, 12])
def test_paired_bootstrap_is_that_of_all_resamples(pairs: int) -> None:
    generator = np.random.default_rng(pairs)
    raw, centered = generator.random(pairs), generator.random(pairs)
    picks = np.random.default_rng(7).integers(0, pairs, (2000, pairs))
    low, high = np.quantile((raw - centered)[picks].mean(axis=1), [0.025, 0.975])
    estimate = paired_bootstrap(raw, centered, resamples=2000, seed=7)
    assert (estimate.low, estimate.high) == (low, high)


def test_paired_bootstrap_covers_the_truth():
    generator = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        difference = generator.normal(0.2, 1.0, size=30)
        estimate = paired_bootstrap(difference, np.zeros(30), resamples=500)
        hits += estimate.low <= 0.2 <= estimate.high
    assert 175 <= hits <= 199


def test_few_seeds_say_so():
    one = paired_bootstrap([0.9], [0.1])
    assert one.value == pytest.approx(0.8)
    assert one.low is None
    assert one.reason == "one seed has no interval"
    assert paired_bootstrap([], []).reason == "no pairs"
    with pytest.raises(ValueError, match="2 and 1"):
        paired_bootstrap([1.0, 2.0], [1.0])


def test_spearman_equals_scipy_with_ties():
    generator = np.random.default_rng(2)
    x = generator.integers(0, 20, 100)
    y = x + generator.integers(0, 15, 100)
    estimate = spearman(x, y, [f"model {i % 20}" for i in range(100)])
    assert estimate.value == pytest.approx(stats.spearmanr(x, y).statistic, rel=1e-9)
    assert estimate.low < estimate.value < estimate.high < 1
    assert estimate.high - estimate.low < 0.4


def of_models(models: int, seed: int, layers: int = 6):
    """Layers that are alike within their model: [layers], twice, and whose they are."""
    generator = np.random.default_rng(seed)
    offset = generator.normal(size=(2, models, 1))
    x, y = offset + 0.1 * generator.normal(size=(2, models, layers))
    return x.round(1).ravel(), y.round(1).ravel(), np.repeat(np.arange(models), layers).astype(str)


def test_spearman_bootstrap_equals_a_plain_loop_over_models():
    x, y, model = of_models(9, seed=3)
    generator = np.random.default_rng(4)
    plain = []
    for _ in range(2000):
        pick = np.concatenate(
            [np.flatnonzero(model == str(m)) for m in generator.integers(0, 9, 9)]
        )
        plain.append(stats.spearmanr(x[pick], y[pick]).statistic)
    estimate = spearman(x, y, model, resamples=4000)
    expected = np.quantile(plain, [0.025, 0.975])
    assert (estimate.low, estimate.high) == pytest.approx(tuple(expected), abs=0.04)


def test_layers_of_a_model_are_not_independent():
    """Of numbers that have nothing to do with each other, the interval nearly always holds 0; of
    layers taken for independent it misses it again and again."""
    holds = [spearman(*of_models(9, seed), resamples=400) for seed in range(40)]
    alone = [
        spearman(x, y, list(map(str, range(len(x)))), resamples=400)
        for x, y, _ in (of_models(9, seed) for seed in range(40))
    ]
    missed, missed_alone = (
        sum(not each.low <= 0 <= each.high for each in found) for found in (holds, alone)
    )
    assert missed <= 4
    assert missed_alone >= 10


def test_spearman_where_there_is_none():
    ten, five = list(range(10)), list("abcde") * 2
    few = spearman(ten[:9], ten[:9], five[:9])
    assert (few.value, few.reason) == (None, "fewer than ten layers")
    one = spearman(ten, ten, ["a"] * 10)
    assert (one.value, one.reason) == (None, "layers of one model")
    flat = spearman([1] * 10, ten, five)
    assert (flat.value, flat.reason) == (None, "all values are equal")
    assert json.loads(json.dumps(flat.to_dict()))["low"] is None
    with pytest.raises(ValueError, match="3, 2, 3"):
        spearman([1, 2, 3], [1, 2], ["a", "b", "c"])


def test_an_interval_that_says_nothing_is_not_given():
    ten = list(range(10))
    four = spearman(ten, ten, list("abcd" * 3)[:10])
    assert four.value == pytest.approx(1.0)
    assert (four.low, four.high, four.reason) == (None, None, "an interval needs five models")
    perfect = spearman(ten, ten, list("abcde") * 2)
    assert perfect.value == pytest.approx(1.0)
    assert (perfect.low, perfect.reason) == (None, "every resample gives the same")
