"""Four hundred steps in float64 against autograd: what a record says of training is the same.

The reference takes nothing from the trainer: losses as published (`tests/bench/autograd.py`),
torch's Adam, clocks and FVU written out. Features die and revive on the way.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch
from _pytest.mark import ParameterSet
from torch import Tensor

from bench.sae.arms import PRESETS, Arm, all_arms
from bench.sae.dead_features.auxk import AuxK
from bench.sae.families.topk import TopK
from bench.sae.model import SAE
from bench.sae.quality import quality
from bench.sae.recipe import Recipe
from bench.sae.trainer import Trainer
from bench.sae.transform import Transform
from tests.bench.autograd import losses

STEPS, BATCH, WIDTH, N, K, GAMMA = 400, 32, 8, 48, 3, 2.0
RECIPE = Recipe(n=N, k=K, lr=3e-4, aux_k=6, dead_after=10 * BATCH, path="sparse")


class Trained(NamedTuple):
    """What training left: the step of each feature's first and last firing, the bias, the FVU."""

    first: Tensor
    last: Tensor
    bias: Tensor
    fvu: float


def draw(tokens: int, seed: int) -> Tensor:
    """Sparse sums of random directions and noise, beside a mean of GAMMA times their spread."""
    generator = torch.Generator().manual_seed(seed)
    kwargs: dict[str, Any] = {"generator": generator, "dtype": torch.float64}
    directions = torch.randn(12, WIDTH, **kwargs)
    mean = torch.randn(WIDTH, **kwargs)
    codes = torch.rand(tokens, 12, **kwargs)
    x = (codes * (codes > 0.8)) @ directions + 0.1 * torch.randn(tokens, WIDTH, **kwargs)
    x -= x.mean(0)
    spread = x.std(0, correction=0).norm()
    return x + GAMMA * spread * mean / mean.norm()


DATA, HELD_OUT = draw(STEPS * BATCH + 1000, seed=0).split([STEPS * BATCH, 1000])
SAMPLE = DATA[:2000]


def initial(arm: Arm) -> SAE:
    transform = Transform.fit(arm, SAMPLE)
    return SAE.init(WIDTH, N, K, seed=0, transform=transform, dtype=torch.float64)


def ours(arm: Arm) -> Trained:
    trainer = Trainer(initial(arm), RECIPE, arm=arm)
    for x in DATA.split(BATCH):
        trainer.step(x)
    sae, clock = trainer.sae, trainer.clock
    return Trained(clock.first_fired, clock.last_fired, sae.b, quality(sae, HELD_OUT).fvu)


def by_autograd(arm: Arm) -> Trained:
    sae = initial(arm)
    parameters = {name: w.clone().requires_grad_() for name, w in sae.weights._asdict().items()}
    W_dec = parameters["W_dec"]
    adam = torch.optim.Adam(
        parameters.values(), lr=RECIPE.rate, betas=(RECIPE.beta1, RECIPE.beta2), eps=RECIPE.eps
    )
    first, last = torch.full((N,), -1), torch.full((N,), -1)
    for step, x in enumerate(DATA.split(BATCH)):
        y = sae.transform.apply(x)[0]
        silent = (step - 1 - last) * BATCH
        aux = None
        if arm.aux != "none" and step * BATCH >= RECIPE.dead_after:
            dead = (silent >= RECIPE.dead_after).nonzero().view(-1)
            aux = AuxK(dead, RECIPE.aux_k, RECIPE.aux_alpha, relu=arm.aux == "auxk-relu")
        found = losses(TopK(), dict(parameters), y, K, aux=aux)
        fired = (found.codes > 0).any(0)
        first[fired & (first < 0)] = step
        last[fired] = step
        adam.zero_grad()
        found.total.backward()
        with torch.no_grad():
            assert W_dec.grad is not None
            W_dec.grad -= (W_dec.grad * W_dec).sum(1, keepdim=True) * W_dec
            gradients = [w.grad for w in parameters.values() if w.grad is not None]
            norm = torch.cat([each.flatten() for each in gradients]).norm()
            for gradient in gradients:
                gradient.div_((norm / RECIPE.clip).clamp(min=1))
            adam.step()
            W_dec.div_(W_dec.norm(dim=1, keepdim=True))
    with torch.no_grad():
        y, taken = sae.transform.apply(HELD_OUT)
        codes = losses(TopK(), dict(parameters), y, K).codes
        x_hat = sae.transform.invert(codes @ W_dec + parameters["b"], taken)
        error = (x_hat - HELD_OUT).square().sum()
        variance = (HELD_OUT - HELD_OUT.mean(0)).square().sum()
    return Trained(first, last, parameters["b"].detach(), float(error / variance))


def arms() -> list[ParameterSet]:
    """All of them; those whose inputs have no name of their own are tested with the slow tests."""
    slow = [pytest.mark.slow]
    named = {
        replace(arm, aux=aux) for arm in PRESETS.values() for aux in ("none", "auxk", "auxk-relu")
    }
    return [
        pytest.param(arm, marks=[] if arm in named else slow, id=arm.name) for arm in all_arms()
    ]


@pytest.mark.parametrize("arm", arms())
def test_training_by_hand_equals_training_by_autograd(arm: Arm) -> None:
    mine, theirs = ours(arm), by_autograd(arm)
    assert torch.equal(mine.first, theirs.first)
    assert torch.equal(mine.last, theirs.last)
    assert torch.allclose(mine.bias, theirs.bias, rtol=0, atol=1e-8)
    assert mine.fvu == pytest.approx(theirs.fvu, rel=0, abs=1e-8)


def test_features_die_and_revive_on_the_way_and_auxk_is_at_work() -> None:
    """Else agreement would say little."""
    raw = ours(Arm())
    never, late = raw.first < 0, raw.first > 10
    assert never.any()
    assert late.any()
    assert (raw.last[~never] < STEPS - 20).any()
    for aux in ("auxk", "auxk-relu"):
        assert abs(ours(Arm(aux=aux)).fvu - raw.fvu) > 1e-4  # type: ignore[arg-type]
