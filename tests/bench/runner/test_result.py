"""What a record says became of features and of the bias, against the same training by hand."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor

from adapters import open_adapter
from bench.activations.stream import ActivationStream
from bench.plan.blocks import Block, Request, make_plan
from bench.plan.protocol import load_protocol
from bench.records.schema import Samples, Training
from bench.runner.block import _make_cell, _make_layer, measure_block
from bench.runner.cell import BlockLayer
from bench.runner.settings import Settings
from bench.sae.quality import bias_target
from tests.bench.death.test_firings import Replayed
from tests.conftest import TINY
from tests.made import write_made
from zoo.registry import load_registry

STEPS = 150


@pytest.fixture(scope="module")
def block(tmp_path_factory: pytest.TempPathFactory) -> Block:
    """One layer with a large mean, trained fast enough for the bias to learn it."""
    folder = write_made(tmp_path_factory.mktemp("results"))
    registry = load_registry([folder])
    settings = [*TINY, f"steps={STEPS}", "lr=0.01", "checkpoints=8"]
    protocol = load_protocol("quick", settings=settings, arms=["raw", "centered", "raw+auxk"])
    cards = registry.select(models=["made"])
    (found,) = make_plan(Request(cards=cards, protocol=protocol, layers=[1]), registry)
    return found


@pytest.fixture(scope="module")
def trained(block: Block) -> dict[str, Training]:
    found = {}
    for record in measure_block(block):
        assert record.result is not None
        assert record.result.training is not None
        found[record.spec.arm] = record.result.training
    return found


def layer_of(stream: ActivationStream, block: Block) -> tuple[Tensor, BlockLayer]:
    """Layer 1 as the block makes it, and its sample."""
    sample, fitted = stream.sample(block.tokens)[1], stream.fit_sample(block.fit_tokens)
    assert fitted is not None
    samples = Samples(
        examples=stream.evaluated_examples,
        fit_tokens=block.fit_tokens,
        fit_examples=stream.fitted_examples,
        reason=None,
    )
    return sample, _make_layer(sample, fitted[1], samples, block.protocol)


@pytest.mark.parametrize("arm", ["raw", "centered", "raw+auxk"])
def test_transitions_and_bias_steps_equal_a_training_looked_at_every_step(
    block: Block, trained: dict[str, Training], arm: str
) -> None:
    assert block.corpus is not None
    stream = ActivationStream(open_adapter(block.card), block.corpus, [1], block.protocol)
    sample, layer = layer_of(stream, block)
    (spec,) = (spec for spec in block.specs if spec.arm == arm)
    cell = _make_cell(spec, layer, block)
    trainer, sae = cell.trainer, cell.trainer.sae
    counted = set(block.protocol.census_steps())
    born = sae.census(sample)
    was_topk = born.never_selected
    shares = []
    target = bias_target(sae, layer.initial.fitted)
    batches = stream.shuffled(block.protocol.batch)
    for step in range(1, STEPS + 1):
        trainer.step(batches.next()[1])
        shares.append(None if target is None else float(sae.b.double() @ target))
        if step in counted:
            was_topk = was_topk | sae.census(sample).never_selected
    end = sae.census(sample)

    states = {
        "alive": (~born.dead_mask, ~end.dead_mask),
        "topk": (born.never_selected, end.never_selected),
        "relu": (born.never_positive, end.never_positive),
    }
    found = trained[arm].transitions
    assert found is not None
    for before, (first, _) in states.items():
        for after, (_, last) in states.items():
            assert getattr(found, f"{before}_{after}") == int((first & last).sum())
    fired = trainer.clock.fired
    assert found.again == int((born.dead_mask & fired & end.dead_mask).sum())
    assert found.collateral == int((was_topk & end.never_positive).sum())
    assert found.collateral >= found.topk_relu

    steps = trained[arm].bias_steps
    if arm == "centered":
        assert steps is None
        assert shares == [None] * STEPS
        return
    assert steps is not None
    for share, step in ((0.5, steps.half), (0.9, steps.most), (0.99, steps.nearly_all)):
        reached = (i + 1 for i, value in enumerate(shares) if value is not None and value >= share)
        assert step == next(reached, None)
    assert steps.half is not None
    assert steps.nearly_all is None or steps.half < steps.nearly_all


def test_the_states_at_both_ends_are_those_of_the_censuses(
    block: Block, trained: dict[str, Training]
) -> None:
    found = trained["raw"].transitions
    last = trained["raw"].checkpoints[-1]
    assert found is not None
    counts = found.model_dump()
    pairs = [name for name in counts if "_" in name]
    assert sum(counts[name] for name in pairs) == block.protocol.n
    assert sum(counts[name] for name in pairs if name.endswith("_relu")) == last.dead_relu
    assert sum(counts[name] for name in pairs if name.endswith("_topk")) == last.dead_topk
    assert found.relu_alive > 0, "otherwise nothing was tested"
    assert found.later == found.alive_topk + found.alive_relu


@pytest.mark.parametrize("arm", ["raw", "raw+auxk"])
def test_fates_are_those_of_a_replay_of_every_firing(
    block: Block, trained: dict[str, Training], arm: str
) -> None:
    """By the definitions, feature by feature: who fired when, who was silent or dead at the end."""
    assert block.corpus is not None
    stream = ActivationStream(open_adapter(block.card), block.corpus, [1], block.protocol)
    sample, layer = layer_of(stream, block)
    (spec,) = (spec for spec in block.specs if spec.arm == arm)
    cell = _make_cell(spec, layer, block)
    trainer, sae, batch = cell.trainer, cell.trainer.sae, block.protocol.batch
    window = -(-block.tokens // batch)
    born = sae.census(sample)
    features = [Replayed(window, bool(dead)) for dead in born.dead_mask]
    untrained = [Replayed(window, bool(dead)) for dead in born.dead_mask]
    followed = min(STEPS, 4 * window)
    W, k = sae.W_enc.clone(), sae.k
    batches = stream.shuffled(batch)
    for step in range(STEPS):
        x = batches.next()[1]
        fires = sae.encode(x).firings(sae.n) > 0
        for feature, fired in zip(features, fires, strict=True):
            feature.step(bool(fired), step)
        if step < followed:
            pre = sae.transform.apply(x)[0] @ W.T
            chosen = ((pre > 0) & (pre >= pre.topk(k, dim=1).values[:, -1:])).any(0)
            for feature, fired in zip(untrained, chosen, strict=True):
                feature.step(bool(fired), step)
        trainer.step(x)
    dead = sae.census(sample).dead_mask
    found = trained[arm]
    assert found.silence is not None
    assert (found.silence.tokens, found.silence.steps) == (block.tokens, window)
    for mask, revival, first in (
        (born.never_positive, found.revival_relu, found.first_firing_relu),
        (born.never_selected, found.revival_topk, found.first_firing_topk),
        (born.dead_mask, found.revival, found.first_firing),
    ):
        group = [int(i) for i in mask.nonzero()]
        fired = [i for i in group if features[i].firings]
        durable = [i for i in fired if not features[i].silent() and not dead[i]]
        assert revival is not None
        assert revival.born == first.born == len(group)
        assert first.fired == len(fired)
        assert revival.durable == len(durable)
        assert revival.relapsed == len(fired) - len(durable)
        assert revival.never == len(group) - len(fired)
        assert revival.revivals == sum(len(features[i].revivals) for i in group)
        times = sorted(features[i].revivals[-1] for i in durable)
        reached = times[-(-len(group) // 2) - 1] if 2 * len(times) >= len(group) > 0 else None
        assert revival.median_steps == reached
        if not group:
            continue
        assert revival.chance is not None
        assert revival.chance.tokens == followed * batch
        by_chance = [i for i in group if untrained[i].firings]
        assert revival.chance.fired == len(by_chance)
        assert revival.chance.awake == sum(not untrained[i].silent() for i in by_chance)
    assert found.revival is not None
    assert 0 < found.revival.durable < found.revival.born, "otherwise nothing was tested"
    assert found.revival.relapsed > 0
    last = found.checkpoints[-1]
    assert last.fates_relu is not None
    assert found.revival_relu is not None
    for state in ("durable", "relapsed", "never"):
        assert getattr(last.fates_relu, state) == getattr(found.revival_relu, state)


def test_a_run_shorter_than_a_silence_says_that_the_sample_alone_decides(
    trained: dict[str, Training], block: Block
) -> None:
    silence = trained["raw"].silence
    assert silence is not None
    assert silence.reason is None
    short = replace(block, protocol=block.protocol.model_copy(update={"steps": 5, "N": 1024}))
    (record,) = measure_block(short.only(each for each in block.specs if each.arm == "raw"))
    assert record.result is not None
    assert record.result.training is not None
    found = record.result.training.silence
    assert found is not None
    assert (found.tokens, found.steps) == (1024, 16)
    assert found.reason is not None
    assert "5 training steps are no more than the 16 of a silence" in found.reason
    revival = record.result.training.revival
    transitions = record.result.training.transitions
    assert revival is not None
    assert transitions is not None
    # Alive on the sample at the end, but for those that fired on no training token.
    assert revival.durable <= transitions.relu_alive + transitions.topk_alive
    assert revival.relapsed == transitions.again


def test_times_in_tokens_are_steps_times_the_batch(trained: dict[str, Training]) -> None:
    first = trained["raw"].first_firing
    assert first.median_steps is not None
    assert first.interval is not None
    assert first.median_tokens == first.median_steps * 64
    assert first.interval_tokens == tuple(64 * step for step in first.interval)
    assert trained["centered"].first_firing_relu.median_tokens is None


def test_a_saved_sae_has_a_table_of_its_features(
    block: Block, trained: dict[str, Training], tmp_path: Path
) -> None:
    (record, *_) = measure_block(block, Settings(saes=tmp_path))
    found = trained[record.spec.arm]
    text = (tmp_path / record.hash / "features.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert [int(row["feature"]) for row in rows] == list(range(block.protocol.n))
    for path, revival in (("relu", found.revival_relu), ("topk", found.revival_topk)):
        assert revival is not None
        group = [row for row in rows if row["born"] == path]
        fates = [row["fate"] for row in group]
        assert [fates.count(name) for name in ("durable", "relapsed", "never")] == [
            revival.durable,
            revival.relapsed,
            revival.never,
        ]
        assert sum(int(row["revivals"]) for row in group) == revival.revivals
        assert all((row["first_firing"] == "") == (row["fate"] == "never") for row in group)
        assert all(row["end"] == "alive" for row in group if row["fate"] == "durable")
    assert {row["fate"] for row in rows if row["born"] == "alive"} <= {""}
    last = found.checkpoints[-1]
    assert sum(row["end"] == "relu" for row in rows) == last.dead_relu
