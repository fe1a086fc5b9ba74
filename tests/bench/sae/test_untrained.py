"""The dictionary that is not trained, beside one that is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bench.death.firings import FiringClock
from bench.sae.arms import Arm, parse_arm
from bench.sae.codes import StepMethod
from bench.sae.families.base import Family
from bench.sae.families.topk import TopK
from bench.sae.initial import InitialSAEs
from bench.sae.model import SAE
from bench.sae.trainer import Trainer
from bench.sae.untrained import FOLLOWED, Untrained
from tests.bench.sae.test_trainer import BATCH, FAMILIES, RECIPE, WAYS, WIDTH, K, N, data

SILENCE = 3


def initial(family: Family | None = None) -> tuple[InitialSAEs, Tensor]:
    """Untrained SAEs, of which some features are dead on the sample, and batches to train on."""
    sample, batches = data(1, gamma=8.0)[0].float(), data(30, gamma=8.0, seed=1).float()
    return InitialSAEs(sample, N, K, family or TopK()), batches


def followed(found: InitialSAEs, arm: Arm, steps: int) -> Untrained:
    untrained = found.untrained(arm, 0, silence=SILENCE, steps=steps)
    assert untrained is not None
    return untrained


@pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{way[0].name}-{way[1]}")
def test_it_is_what_a_training_that_changes_nothing_shows(way: tuple[Family, StepMethod]) -> None:
    """At a rate of 1e-30 the weights that decide who fires stay as they are to the bit."""
    family, path = way
    found, batches = initial(family)
    arm = Arm()
    untrained = followed(found, arm, 10)
    born = found.census(arm, 0).dead_mask
    clock = FiringClock(N, silence=SILENCE, born_dead=born)
    recipe = RECIPE.model_copy(update={"lr": 1e-30, "path": path})
    trainer = Trainer(found.sae(arm, 0), recipe, clock=clock)
    for step, x in enumerate(batches[:10]):
        untrained.look(x, step)
        trainer.step(x)
    assert untrained.looked == 10
    for mine, theirs in zip(
        untrained.clock.tensors().values(), clock.tensors().values(), strict=True
    ):
        assert torch.equal(mine, theirs)
    assert bool((clock.fired & born).any()), "otherwise nothing was tested"


def test_counts_are_the_tokens_on_which_each_feature_fires() -> None:
    found, batches = initial()
    untrained = followed(found, Arm(), 8)
    sae = found.sae(Arm(), 0)
    counts, half = torch.zeros(N, dtype=torch.int64), torch.zeros(N, dtype=torch.int64)
    for step, x in enumerate(batches[:8]):
        untrained.look(x, step)
        pre = x @ sae.W_enc.T
        fires = (pre > 0) & (pre >= pre.topk(K, dim=1).values[:, -1:])
        counts += fires.sum(0)
        half += fires.sum(0) if step < 4 else 0
    assert torch.equal(untrained.counts, counts)
    assert torch.equal(untrained.first_half, half)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_firings_are_those_of_the_training_step(family: Family) -> None:
    sae = SAE.init(WIDTH, N, K, seed=0, family=family)
    for x in data(4).float():
        step = family.step(sae.weights, sae.family_tensors, x, K, path=family.paths[0])
        assert torch.equal(sae.firings(x) > 0, step.activity > 0)


def test_it_is_followed_for_four_times_the_sample_and_then_let_go() -> None:
    found, batches = initial()
    untrained = followed(found, Arm(), 30)
    assert untrained.steps == FOLLOWED * SILENCE == 12
    for step, x in enumerate(batches[:12]):
        untrained.look(x, step)
    counts = untrained.counts.clone()
    for step, x in enumerate(batches[12:], 12):
        untrained.look(x, step)
    assert untrained.looked == 12
    assert torch.equal(untrained.counts, counts)
    assert int(counts.max()) <= 12 * BATCH


def test_arms_that_begin_alike_share_it_and_each_batch_counts_once() -> None:
    found, batches = initial()
    raw, auxk, other = (
        followed(found, parse_arm(each), 12) for each in ("raw", "raw+auxk", "mean-rms")
    )
    assert raw is auxk
    assert raw is not other
    raw.look(batches[0], 0)
    counts = raw.counts.clone()
    auxk.look(batches[0], 0)
    assert torch.equal(raw.counts, counts)
    assert raw.looked == 1


def test_where_nothing_is_born_dead_there_is_nothing_to_follow() -> None:
    generator = torch.Generator().manual_seed(0)
    found = InitialSAEs(torch.randn(4096, WIDTH, generator=generator), N, K)
    assert found.census(Arm(), 0).dead == 0
    assert found.untrained(Arm(), 0, silence=SILENCE, steps=9) is None


@pytest.mark.parametrize("stop", [5, 12, 20])
def test_resumed_equals_uninterrupted(stop: int) -> None:
    found, batches = initial()
    whole = followed(found, Arm(), 30)
    first, second = (
        Untrained(found.sae(Arm(), 0), found.census(Arm(), 0).dead_mask, silence=SILENCE, steps=30)
        for _ in range(2)
    )
    for step, x in enumerate(batches):
        whole.look(x, step)
        if step < stop:
            first.look(x, step)
    second.load_state_dict(first.state_dict())
    for step, x in enumerate(batches[stop:], stop):
        second.look(x, step)
    ours, theirs = second.state_dict(), whole.state_dict()
    assert ours["looked"] == theirs["looked"] == 12
    for name, tensor in theirs["tensors"].items():
        assert torch.equal(ours["tensors"][name], tensor), name
