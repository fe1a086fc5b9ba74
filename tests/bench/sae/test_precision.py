"""The protocol key `precision`: what it changes in a training, and what it must not change."""

from __future__ import annotations

import pytest
import torch

from bench.compute.precision import Precision
from bench.plan.protocol import load_protocol
from bench.runner.run import _precision_notes
from bench.sae.model import SAE
from bench.sae.recipe import Recipe
from bench.sae.trainer import Trainer
from zoo.errors import BadCard

WIDTH, N, K, BATCH, STEPS = 24, 128, 4, 128, 120
SEEDS = (0, 1, 2)


def activations(tokens: int, seed: int) -> torch.Tensor:
    """Of gamma 3: a third of a raw dictionary is born dead."""
    generator = torch.Generator().manual_seed(seed)
    mean = torch.zeros(WIDTH)
    mean[0] = 3.0 * WIDTH**0.5
    return torch.randn(tokens, WIDTH, generator=generator) + mean


def dead(precision: Precision, seed: int) -> torch.Tensor:
    recipe = Recipe(n=N, k=K, steps=STEPS, lr=1e-3, path="sparse", precision=precision)
    trainer = Trainer(SAE.init(WIDTH, N, K, seed=seed), recipe)
    for step in range(STEPS):
        trainer.step(activations(BATCH, 100 + step))
    return trainer.sae.census(activations(2048, 1)).dead_mask


def test_bf16_moves_death_by_less_than_seeds_do() -> None:
    """Who is dead at the end, and how many are: bf16 against float32, beside seed against seed."""
    exact = [dead("float32", seed) for seed in SEEDS]
    rounded = [dead("bf16", seed) for seed in SEEDS]
    counts = torch.stack(exact).sum(1).tolist()
    assert min(counts) > N / 10
    spread = max(counts) - min(counts)
    moved = [abs(int(ours.sum()) - count) for ours, count in zip(rounded, counts, strict=True)]
    assert max(moved) <= spread, (counts, moved)
    # Of one seed nearly the same features, of two seeds others.
    changed = [int((ours ^ theirs).sum()) for ours, theirs in zip(rounded, exact, strict=True)]
    others = [int((exact[i] ^ exact[i - 1]).sum()) for i in range(len(SEEDS))]
    assert max(changed) < min(others) / 3, (changed, others)


def test_weights_and_moments_stay_float32() -> None:
    recipe = Recipe(n=N, k=K, steps=2, path="dense", precision="bf16")
    trainer = Trainer(SAE.init(WIDTH, N, K, seed=0), recipe)
    trainer.step(activations(BATCH, 0))
    kinds = {t.dtype for t in trainer.state_dict()["tensors"].values() if t.is_floating_point()}
    assert kinds == {torch.float32}


def test_the_default_is_no_part_of_a_spec_and_another_precision_is() -> None:
    assert "precision" not in load_protocol("quick").measurement()
    asked = load_protocol("quick", settings=["precision=bf16"])
    assert asked.measurement()["precision"] == "bf16"
    with pytest.raises(BadCard, match="precision"):
        load_protocol("quick", settings=["precision=fp8"])


class _Block:
    def __init__(self, *settings: str) -> None:
        self.protocol = load_protocol("paper", settings=settings)


def test_a_gpu_is_told_what_it_trains_in_and_why() -> None:
    def notes(device: str, *settings: str) -> str:
        blocks = [_Block(*settings), _Block(*settings)]
        return "\n".join(_precision_notes(blocks, device))  # type: ignore[arg-type]

    assert notes("cpu") == ""
    assert notes("cuda").startswith("paper trains in float32, so that a GPU and a CPU name the")
    assert "--set precision=bf16" in notes("cuda:1")
    assert notes("cuda", "precision=bf16").endswith("bf16 products on this GPU's tensor cores")
    assert notes("cpu", "precision=tf32").endswith("by rounding, without their speed")
