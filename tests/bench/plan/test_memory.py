"""What a training step is said to take, against what torch allocates in it, remedy by remedy."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from adapters import open_adapter
from bench.compute.parts import left_parts, right_parts
from bench.death import products
from bench.death.census import census
from bench.plan import forward, memory
from bench.plan.memory import (
    block_memory,
    sae_memory,
    step_memory,
    training_memory,
    transform_memory,
)
from bench.plan.protocol import load_protocol
from bench.sae import gradients
from bench.sae.arms import one_word_arms, parse_arm
from bench.sae.cpu_bank import make_bank
from bench.sae.dead_features import auxk
from bench.sae.families import FAMILIES, make_family
from bench.sae.model import SAE
from bench.sae.recipe import Recipe
from bench.sae.trainer import Trainer
from bench.sae.transform import Transform
from zoo.registry import Registry

# Of k below 8 codes are selected by torch, whose allocations are counted here; numpy's are not.
N, WIDTH, BATCH, K, AUX_K = 256, 64, 256, 4, 12
WAYS = [(family, path) for family, spec in FAMILIES.items() for path in spec.paths]
WORDS = [arm.name for arm in one_word_arms()]
OF_DEAD = [name for name in WORDS if parse_arm(name).aux != "none"]


def peak(run: Callable[[], object]) -> int:
    """The most bytes that torch holds at once of what it allocates while something runs."""
    gc.collect()  # what older tests left would count as given back, where it goes meanwhile
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    assert profiled.profiler is not None
    events = profiled.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    held = most = 0
    for _, change in changes:
        held += change
        most = max(most, held)
    return most


def recipe_of(family: str, path: str) -> Recipe:
    sizes = {"n": N, "k": K, "batch": BATCH, "aux_k": AUX_K, "dead_after": BATCH, "steps": 9}
    return Recipe.model_validate({**sizes, "family": family, "path": path, "lr": 1e-4})


def step_peak(recipe: Recipe, name: str, dead: int) -> int:
    """Of the first step in which so many features have been dead for long enough."""
    arm, family = parse_arm(name), make_family(recipe.family, recipe.family_settings(), steps=9)
    x = torch.randn(3 * BATCH, WIDTH, generator=torch.Generator().manual_seed(0)) + 3.0
    transform = Transform.fit(arm, x)
    sae = SAE.init(WIDTH, N, K, seed=0, transform=transform, family=family)
    sae.b_enc[:dead] = -1000.0
    trainer = Trainer(sae, recipe, arm=arm)
    first, second, third = x.split(BATCH)
    trainer.step(first)
    trainer.step(second)
    return peak(lambda: trainer.step(third))


def compare(name: str, family: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # So that a batch's pre-activations are in several parts here too.
    monkeypatch.setattr(gradients, "_CPU_ELEMENTS", 64 * N)
    monkeypatch.setattr(memory, "_CHUNK", 64 * N)
    recipe = recipe_of(family, path)
    # Nearly all dead, or as many as AuxK still has arrays of: whatever takes more.
    numbers = (N, auxk._DENSE_BELOW * AUX_K - 1) if name.startswith("raw+auxk") else (N,)
    numbers = numbers if name in OF_DEAD else (0,)
    arm = parse_arm(name)
    held = sae_memory(recipe, WIDTH) + transform_memory(WIDTH, arm)
    taken = max(step_peak(recipe, name, dead) for dead in numbers)
    assert held + taken == pytest.approx(training_memory(recipe, WIDTH, arm), rel=0.1)


@pytest.mark.parametrize("name", ["raw", "whitened", *WORDS])
def test_a_remedy_takes_what_the_plan_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compare(name, "topk", "sparse", monkeypatch)


@pytest.mark.parametrize(("family", "path"), WAYS[1:])
@pytest.mark.parametrize("name", ["raw", *OF_DEAD])
def test_a_remedy_takes_what_the_plan_says_in_every_family(
    name: str, family: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare(name, family, path, monkeypatch)


def test_a_bank_takes_the_steps_of_its_saes() -> None:
    recipe = recipe_of("topk", "sparse")
    bank = make_bank([Trainer(SAE.init(WIDTH, N, K, seed=seed), recipe) for seed in range(4)])
    batches = [torch.randn(BATCH, WIDTH) for _ in bank.trainers]
    bank.step(batches)
    taken = peak(lambda: bank.step(batches))
    assert taken == pytest.approx(4 * step_memory(recipe, WIDTH, parse_arm("raw")), rel=0.1)


def test_an_sae_holds_what_the_plan_says() -> None:
    recipe = Recipe(n=N, k=K)
    trainer = Trainer(SAE.init(WIDTH, N, K, seed=0), recipe)
    tensors = trainer.state_dict()["tensors"].values()
    born = trainer.sae.W_enc.nbytes  # kept beside it, to be followed (`bench.sae.untrained`)
    held = sum(tensor.nbytes for tensor in tensors) + born
    assert held == pytest.approx(sae_memory(recipe, WIDTH), rel=0.03)


def test_numbers_that_are_kept_twice_are_the_same() -> None:
    kept = (memory._CHUNK, memory._AUX_DENSE_BELOW, memory._CARD_CHUNK)
    there = (gradients._CPU_ELEMENTS, auxk._DENSE_BELOW, products._GPU_CHUNK_ELEMENTS)
    assert kept == there


def test_a_stems_longest_array_is_that_of_the_model(registry: Registry) -> None:
    adapter = open_adapter(registry.card("tiny-enformer"), depth=1)
    card, inputs = adapter.card, adapter.inputs(["ACGT" * 384])
    longest = 0

    def look(module: object, given: object, found: object) -> None:
        nonlocal longest
        if isinstance(found, torch.Tensor):
            longest = max(longest, found.numel())

    for module in adapter.model.modules():
        module.register_forward_hook(look)
    adapter.run([0], inputs, torch.tensor([0]), torch.tensor([0]))
    counted = max(length * channels for length, channels, _ in forward._stem(card))
    assert counted * inputs.valid.numel() == longest


def test_attention_that_writes_its_scores_holds_them(registry: Registry) -> None:
    card = registry.card("tiny-esm2")
    longer = card.model_copy(update={"context": 2 * card.context})
    added = forward.arrays_inside(longer) - forward.arrays_inside(card)
    scores = 20 * card.context**2  # of the heads, for a window
    assert added == pytest.approx(2 * scores / (card.context * card.tap.width))
    gpt2 = registry.card("gpt2").model_copy(update={"context": 4096})  # never has them as a whole
    assert forward.arrays_inside(gpt2) == forward.arrays_inside(registry.card("gpt2"))


def test_a_bank_on_a_graphics_card_holds_the_gradients_of_its_saes(registry: Registry) -> None:
    def taken(*settings: str, on_card: bool) -> int:
        protocol = load_protocol("quick", settings=settings, arms=["raw"])
        card = registry.card("tiny-gpt2")
        sizes = {"depth": 4, "tokens": 1000, "layers": 3, "cells": 6}
        return block_memory(card, protocol, **sizes, on_card=on_card)

    width = registry.card("tiny-gpt2").tap.width
    assert taken(on_card=True) - taken(on_card=False) == 5 * 8 * 512 * width
    alone = "family=jumprelu", "path=dense"
    assert taken(*alone, on_card=True) == taken(*alone, on_card=False)


def test_a_census_on_a_graphics_card_takes_what_the_plan_says(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk on a card is of 2^28 pre-activations; here it is one of fewer, on the CPU."""
    tokens, n, width = 1000, 2048, 16
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(tokens, width, generator=generator) + 3.0  # most are dead by TopK
    W = torch.nn.functional.normalize(torch.randn(n, width, generator=generator), dim=1)
    monkeypatch.setattr(products, "_CPU_CHUNK_ELEMENTS", tokens * n)
    taken = peak(lambda: census(x, W, k=16, counts=True, way="float32"))
    assert taken == pytest.approx(memory._CARD_SELECTION * tokens * n, rel=0.15)
    for parts, rows in ((right_parts, W), (left_parts, x)):
        taken = peak(lambda parts=parts, rows=rows: parts(rows))
        assert taken == pytest.approx(memory._PARTS * rows.numel(), rel=0.15)

    card, protocol = registry.card("gpt2"), load_protocol("paper", arms=["raw"])
    few, most = 1000, memory._CARD_CHUNK // protocol.n
    found = [memory.scratch_memory(card, protocol, each, on_card=True) for each in (few, most)]
    assert found[1] - found[0] > (memory._CARD_SELECTION - 1) * (most - few) * protocol.n


def test_what_a_model_holds_follows_its_kind(registry: Registry) -> None:
    held = {name: forward.arrays_inside(registry.card(name)) for name in ("enformer", "gpt2")}
    assert held["enformer"] == 3 * 64  # half the channels at each of 128 bases of a bin
    assert 0 == forward.arrays_inside(registry.card("synthetic-gamma4")) < held["gpt2"] < 64
