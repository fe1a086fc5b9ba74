from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bench.sae.arms import parse_arm
from bench.sae.initial import InitialSAEs
from bench.sae.model import SAE
from tests.bench import reference
from zoo.errors import BadActivations

WIDTH, DICTIONARY, K = 16, 96, 3


@pytest.fixture
def sample() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(700, WIDTH, generator=generator) * torch.logspace(0, -2, WIDTH)
    return x + 0.5 * torch.randn(WIDTH, generator=generator)


@pytest.mark.parametrize("arm", ["raw", "centered", "whitened", "none-rms"])
def test_a_census_is_that_of_the_sae_that_training_begins_with(sample, arm):
    initial = InitialSAEs(sample, DICTIONARY, K)
    sae = initial.sae(parse_arm(arm), seed=3)
    y = sae.transform.apply(sample)[0]
    never, unselected, firings = reference.census_at_once(y, sae.W_enc, None, K)
    found = initial.census(parse_arm(arm), 3, counts=True)
    assert torch.equal(found.never_positive, never)
    assert torch.equal(found.never_selected, unselected)
    assert torch.equal(found.counts, firings)


def test_arms_of_a_seed_share_their_directions_and_are_counted_once(sample, monkeypatch):
    calls = []
    plain = SAE.census

    def counted(*arguments, **options):
        calls.append(arguments)
        return plain(*arguments, **options)

    monkeypatch.setattr(SAE, "census", counted)
    initial = InitialSAEs(sample, DICTIONARY, K)
    first = initial.presets(0)
    assert list(first) == ["raw", "centered", "whitened"]
    assert first["raw"].dead > first["centered"].dead > first["whitened"].dead
    assert initial.census(parse_arm("raw+auxk"), 0) is first["raw"]
    assert len(calls) == 3
    initial.presets(1)
    assert len(calls) == 6
    weights = [initial.sae(parse_arm(arm), 0).W_enc for arm in ("raw", "whitened")]
    assert torch.equal(*weights)
    assert weights[0] is not weights[1]


def test_firings_are_counted_when_they_are_asked_for(sample):
    initial = InitialSAEs(sample, DICTIONARY, K)
    assert initial.census(parse_arm("raw"), 0).counts is None
    assert initial.census(parse_arm("raw"), 0, counts=True).counts is not None
    assert initial.presets(0)["raw"].counts is not None


def test_what_does_not_vary_is_refused():
    with pytest.raises(BadActivations, match="constant"):
        InitialSAEs(torch.ones(50, WIDTH), DICTIONARY, K).presets(0)
