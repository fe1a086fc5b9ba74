"""Every choice of an arm is described, and nothing else is."""

from __future__ import annotations

from typing import get_args

from bench.sae.arms import Center, Norm, one_word_arms
from bench.sae.remedies import REMEDIES


def test_every_choice_has_its_description_and_source() -> None:
    words = {arm.name.removeprefix("raw+") for arm in one_word_arms()}
    choices = (set(get_args(Center)) | set(get_args(Norm)) | words) - {"none"}
    assert set(REMEDIES) == choices
    for remedy in REMEDIES.values():
        assert all(remedy[:3])
        assert all(remedy.needs)
