"""The rule of thumb: what it names, and that the committed records bear it out."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.diagnosis.rule import (
    ALIVE_AT_A_PRICE,
    INSURANCE,
    RULE,
    Cause,
    advised_arm,
    cause_of_death,
)
from bench.records.prices import read_prices
from bench.records.store import RecordStore
from bench.sae.arms import parse_arm
from leaderboard.cost import time_over_raw
from leaderboard.cures import ENOUGH_DEAD, Regime, compared, regimes
from leaderboard.groups import group_records
from leaderboard.markdown.rule_of_thumb import rule_sentences, rule_words

RECORDS = Path(__file__).parents[2] / "results" / "cures"


@pytest.mark.parametrize(
    ("raw", "centered", "massive", "cause", "arm"),
    [
        (0.004, 0.3, False, "nothing", "raw+auxk"),
        (0.004, 0.0, True, "nothing", "raw+mask+auxk"),
        (0.9, 0.01, False, "mean", "centered+auxk-relu"),
        (0.9, 0.01, True, "mean", "centered+mask+auxk-relu"),
        (0.9, 0.02, False, "spectrum", "centered+auxk-relu"),
        (0.9, 0.02, True, "spectrum", "centered+mask+auxk-relu"),
    ],
)
def test_the_rule(raw: float, centered: float, massive: bool, cause: Cause, arm: str) -> None:
    assert cause_of_death(raw, centered) == cause
    assert advised_arm(cause, massive=massive) == arm
    assert parse_arm(arm).name == arm


def test_what_chance_leaves_silent_is_allowed() -> None:
    assert cause_of_death(0.05, 0.05, allowed=0.06) == "nothing"


@pytest.fixture(scope="module")
def everywhere() -> list[Regime]:
    return regimes(compared(group_records(RecordStore(RECORDS), read_prices(RECORDS))))


@pytest.fixture(scope="module")
def measured(everywhere: list[Regime]) -> list[Regime]:
    """The made layers, on which the rule was found; how it fares on real ones, the page shows."""
    return [each for each in everywhere if each.group.domain == "synthetic"]


def test_the_rule_is_right_on_most_committed_layers_and_nearly_on_all(
    measured: list[Regime],
) -> None:
    solvable = [each for each in measured if each.enough and each.advised in each.dead]
    assert len(solvable) >= 4
    right = [each for each in solvable if each.advised in each.enough]
    assert len(right) >= 0.75 * len(solvable)
    for each in solvable:
        assert each.advised is not None
        assert each.dead[each.advised] < ENOUGH_DEAD
        assert each.over_best[each.advised] < 1.05


def test_where_the_rule_says_that_nothing_is_enough_nothing_is(measured: list[Regime]) -> None:
    met = {each.cause for each in measured}
    assert {"mean", "spectrum"} <= met
    for each in measured:
        if each.cause is None or each.advised not in each.dead:
            continue
        if not RULE[each.cause].enough:
            assert not each.enough
            # Nearly the least error, and of all such remedies the fewest dead.
            near = [arm for arm in each.dead if each.over_best[arm] < 1.05]
            assert each.advised == min(near, key=each.dead.__getitem__)
            assert each.dead[ALIVE_AT_A_PRICE] < ENOUGH_DEAD
            assert each.over_best[ALIVE_AT_A_PRICE] > 3


def test_what_auxk_insures_against_is_what_the_records_show(everywhere: list[Regime]) -> None:
    (layer,) = [each for each in everywhere if each.cause == "nothing" and not each.massive]
    assert layer.raw_dead == pytest.approx(INSURANCE.dead_without, abs=0.005)
    assert layer.dead["raw+auxk"] == pytest.approx(INSURANCE.dead_with, abs=0.005)
    assert time_over_raw([layer.group], "raw+auxk") == pytest.approx(INSURANCE.step, abs=0.01)


def test_the_tests_above_would_find_a_wrong_rule(measured: list[Regime]) -> None:
    solvable = [each for each in measured if each.enough]
    assert sum("whitened" in each.enough for each in solvable) < 0.75 * len(solvable)
    assert not any("raw" in each.enough for each in solvable)


def test_its_sentences_are_made_from_records(measured: list[Regime]) -> None:
    text = " ".join(rule_sentences(measured))
    tried = [each for each in measured if each.advised in each.dead]
    solvable = [each for each in tried if each.enough]
    right = sum(each.advised in each.enough for each in solvable)
    assert f"enough on {right} of the {len(solvable)} layers" in text
    for each in tried:
        named = f"On {each.group.label}, layer {each.layer}, " in text
        assert named == (bool(each.enough) and each.advised not in each.enough)
    assert rule_sentences([]) == []
    assert all(advice.what in rule_words() for advice in RULE.values())
