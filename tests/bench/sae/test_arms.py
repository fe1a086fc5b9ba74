"""Names of arms."""

from __future__ import annotations

import pytest

from bench.sae.arms import _AXES, Arm, _inputs, all_arms, parse_arm
from zoo.errors import UnknownName


@pytest.mark.parametrize(
    ("name", "arm"),
    [
        ("raw", Arm("none", "none", "none")),
        ("centered", Arm("geometric_median", "none", "none")),
        ("raw+auxk", Arm("none", "none", "auxk")),
        ("centered+auxk", Arm("geometric_median", "none", "auxk")),
        ("whitened", Arm("mean", "whiten", "none")),
        ("mean-rms+auxk", Arm("mean", "rms", "auxk")),
        ("raw+auxk-relu", Arm("none", "none", "auxk-relu")),
        ("whitened+auxk-relu", Arm("mean", "whiten", "auxk-relu")),
        ("geometric_median-layernorm", Arm("geometric_median", "layernorm", "none")),
    ],
)
def test_names_mean_what_they_say(name: str, arm: Arm) -> None:
    assert parse_arm(name) == arm
    assert arm.name == name


def test_every_arm_has_a_name_of_its_own_that_round_trips() -> None:
    arms = all_arms()
    assert len({arm.name for arm in arms}) == len(arms) == 3 * 6 * 3
    assert [parse_arm(arm.name) for arm in arms] == arms


def test_the_systematic_spelling_of_a_preset_is_the_preset() -> None:
    assert parse_arm("geometric_median-none+auxk").name == "centered+auxk"
    assert parse_arm("none-none").name == "raw"


@pytest.mark.parametrize("name", ["raw+auxk+auxk-relu", "raw+auxk+auxk", "raw+", "+auxk", "auxk"])
def test_a_word_per_axis_after_the_inputs_is_the_grammar(name: str) -> None:
    with pytest.raises(UnknownName, match="unknown arm"):
        parse_arm(name)


def test_no_word_belongs_to_two_axes_or_looks_like_inputs() -> None:
    words = [word for values in _AXES.values() for word in values if word != "none"]
    assert len(words) == len(set(words))
    assert not any("+" in word or _inputs(word) for word in words)


def test_a_misspelt_arm_gets_a_suggestion() -> None:
    with pytest.raises(UnknownName, match=r"unknown arm 'centred'\. Did you mean .*centered"):
        parse_arm("centred")


def test_an_arm_like_no_other_gets_the_grammar() -> None:
    with pytest.raises(UnknownName, match=r"unknown arm 'xyzzy'\. Name a preset \(raw, centered"):
        parse_arm("xyzzy")
