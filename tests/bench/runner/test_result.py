"""What a record says became of features and of the bias, against the same training by hand."""

from __future__ import annotations

import pytest

from adapters import open_adapter
from bench.activations.stream import Stream
from bench.plan.blocks import Block, Request, make_plan
from bench.plan.protocol import load_protocol
from bench.records.schema import Training
from bench.runner.block import _make_cell, _make_layer, measure_block
from bench.sae.quality import bias_target
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


@pytest.mark.parametrize("arm", ["raw", "centered", "raw+auxk"])
def test_transitions_and_bias_steps_equal_a_training_looked_at_every_step(
    block: Block, trained: dict[str, Training], arm: str
) -> None:
    assert block.corpus is not None
    stream = Stream(open_adapter(block.card), block.corpus, [1], block.protocol)
    sample = stream.sample(block.tokens)[1]
    (spec,) = (spec for spec in block.specs if spec.arm == arm)
    cell = _make_cell(spec, _make_layer(sample, block.protocol), block.protocol)
    trainer, sae = cell.trainer, cell.trainer.sae
    counted = set(block.protocol.census_steps())
    born = sae.census(sample)
    was_topk = born.never_selected
    shares = []
    target = bias_target(sae, sample)
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


def test_revival_in_tokens_is_steps_times_the_batch(trained: dict[str, Training]) -> None:
    revival = trained["raw"].revival
    assert revival.median_steps is not None
    assert revival.interval is not None
    assert revival.median_tokens == revival.median_steps * 64
    assert revival.interval_tokens == tuple(64 * step for step in revival.interval)
    assert trained["centered"].revival_relu.median_tokens is None
