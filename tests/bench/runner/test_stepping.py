"""Cells that step as a bank give the records that cells alone give."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.compute.ahead import pretend_device
from bench.plan.blocks import Block, Request, make_plan
from bench.plan.protocol import load_protocol
from bench.records.schema import Record
from bench.records.spec import Spec
from bench.records.store import RecordStore
from bench.runner import stepping
from bench.runner.block import measure_block
from bench.runner.settings import Settings
from bench.sae import trainer as trainer_module
from bench.sae.bank import Bank
from bench.sae.gradients import Backward
from bench.sae.trainer import Trainer
from leaderboard.groups import _protocol_name
from tests.conftest import TINY
from tests.made import write_made
from zoo.registry import load_registry

ARMS = ["raw", "centered", "raw+auxk", "raw+k-anneal"]


@pytest.fixture
def block(tmp_path: Path) -> Block:
    """Four arms and two seeds of a layer."""
    write_made(tmp_path, ["made"])
    settings = [*TINY, "checkpoints=1", "dead_after=128", "aux_k=4"]
    protocol = load_protocol("quick", settings=settings, arms=ARMS, seeds=[0, 1])
    registry = load_registry([tmp_path])
    (block,) = make_plan(Request(registry.select(models=["made"]), protocol, layers=[0]), registry)
    return block


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of the banks that took a step, one a step."""
    found: list[int] = []
    step = Bank.step

    def counted(self: Bank, batches: list[Tensor]) -> list[Tensor]:
        found.append(len(self.trainers))
        return step(self, batches)

    monkeypatch.setattr(Bank, "step", counted)
    return found


def banked(block: Block) -> dict[tuple[str, int], Record]:
    with pretend_device():
        return by_cell(block)


def by_cell(block: Block, settings: Settings | None = None) -> dict[tuple[str, int], Record]:
    records = measure_block(block, settings)
    return {(record.spec.arm, record.spec.seed): record for record in records}


def test_on_a_cpu_a_bank_changes_no_bit(
    block: Block, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    together = by_cell(block)
    # Raw and centered, two seeds each, for 12 steps; two with AuxK; two that anneal.
    assert sorted(sizes) == [2] * 24 + [4] * 12
    monkeypatch.setattr(stepping, "_FAST_SORT", 128)
    by_two = by_cell(block)
    assert sizes[36:] == [2] * 48
    alone = by_cell(block, Settings(banks=False))
    assert len(sizes) == 84
    for cell, record in alone.items():
        assert record.comparable() == together[cell].comparable() == by_two[cell].comparable()


def test_a_cell_by_itself_is_a_bank_on_a_device_alone(block: Block, sizes: list[int]) -> None:
    one = block.only([block.specs[0]])
    by_cell(one)
    assert sizes == []
    banked(one)
    assert sizes == [1] * 12


def test_cells_are_divided_into_banks_of_about_one_size() -> None:
    cells: list[Any] = list(range(9))
    assert stepping._even_parts(cells, 4) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert [len(part) for part in stepping._even_parts(cells, 8)] == [4, 5]
    assert stepping._even_parts(cells, 9) == [cells]


def test_a_cell_of_another_precision_is_a_valid_record_and_boards_say_so(
    block: Block, tmp_path: Path
) -> None:
    protocol = block.protocol.model_copy(update={"precision": "bf16"})
    spec = Spec(**block.specs[0].model_dump() | {"protocol": protocol.measurement()})
    store = RecordStore(tmp_path)
    for record in measure_block(replace(block, protocol=protocol, specs=(spec,))):
        assert record.result is not None
        store.save(record)
    (read,) = RecordStore(tmp_path)
    assert read.spec.protocol["precision"] == "bf16"
    assert _protocol_name(read).startswith("quick bf16 products")


def test_the_ways_of_a_device_measure_the_same_within_rounding(
    block: Block, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    together = banked(block)
    monkeypatch.setattr(stepping, "_SMALL", 0)
    alone = by_cell(block)
    assert sorted(sizes) == [2] * 12 + [4] * 12
    for cell, record in alone.items():
        assert record.result is not None
        theirs = together[cell].result
        assert theirs is not None
        assert record.result.training is not None
        assert theirs.training is not None
        assert record.result.training.fvu == pytest.approx(theirs.training.fvu, rel=1e-4)
        assert record.result.training.first_firing == theirs.training.first_firing
        assert abs(record.result.death_end.dead_topk - theirs.death_end.dead_topk) <= 1


def test_a_cell_that_diverges_leaves_the_bank(
    block: Block, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_module, "CHECK_EVERY", 4)
    update = Trainer.update

    def spoilt(self: Trainer, result: Backward) -> Tensor:
        norm = update(self, result)
        if self.step_number == 2 and self.arm.name == "centered":
            self.sae.W_enc.fill_(torch.nan)
        return norm

    whole = banked(block)
    sizes.clear()
    monkeypatch.setattr(Trainer, "update", spoilt)
    broken = banked(block)
    # Seen at the fourth step; the two raw ones go on together.
    assert sorted(sizes) == [2] * (12 + 8) + [4] * 4
    for (arm, seed), record in whole.items():
        other = broken[arm, seed]
        if arm == "centered":
            assert other.failure is not None
            assert other.failure.message == "the loss is not finite at step 3"
        else:
            assert other.result == record.result
