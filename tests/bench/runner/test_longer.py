"""Longer training: the same as without, with more steps, in a block of its own."""

from __future__ import annotations

from pathlib import Path

from bench.plan.blocks import Block, Request, make_plan
from bench.plan.protocol import load_protocol
from bench.records.schema import Record
from bench.runner.block import measure_block
from tests.conftest import TINY
from tests.made import write_made
from zoo.registry import load_registry


def plan(tmp_path: Path, arms: list[str], *settings: str) -> list[Block]:
    if not (tmp_path / "activations").exists():
        write_made(tmp_path, ["made"])
    registry = load_registry([tmp_path])
    protocol = load_protocol("quick", settings=[*TINY, *settings], arms=arms, seeds=[0, 1])
    return make_plan(Request(registry.select(models=["made"]), protocol, layers=[0]), registry)


def records(block: Block) -> dict[int, Record]:
    return {record.spec.seed: record for record in measure_block(block)}


def test_longer_training_is_one_of_so_many_more_steps(tmp_path: Path) -> None:
    own, longer = plan(tmp_path, ["raw", "raw+longer"], "longer=2", "steps=8", "lr_warmup=0.5")
    assert (own.steps, longer.steps) == (8, 16)
    # Records of one protocol, whose name for its length is the same.
    assert [spec.protocol for spec in longer.specs] == [spec.protocol for spec in own.specs]
    assert [spec.arm for spec in longer.specs] == ["raw+longer", "raw+longer"]
    (twice,) = plan(tmp_path, ["raw"], "longer=2", "steps=16", "lr_warmup=0.5")
    found, expected = records(longer), records(twice)
    for seed in (0, 1):
        result = found[seed].result
        assert result is not None
        assert result.training is not None
        assert result.training.steps == 16
        assert result == expected[seed].result


def test_arms_of_one_length_are_one_block(tmp_path: Path) -> None:
    (block,) = plan(tmp_path, ["raw", "raw+longer", "centered"], "longer=1")
    assert {spec.arm for spec in block.specs} == {"raw", "raw+longer", "centered"}


def test_only_another_length_than_the_default_changes_a_hash(tmp_path: Path) -> None:
    (plain,), (changed,) = plan(tmp_path, ["raw"]), plan(tmp_path, ["raw"], "longer=3")
    assert "longer" not in plain.specs[0].protocol
    assert changed.specs[0].protocol["longer"] == 3
