"""Memory that runs out: forward passes shrink, blocks are split, a cell that does not fit fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from adapters.arrays import Span, StoredModel
from bench.compute.out_of_memory import is_out_of_memory
from bench.plan.blocks import Block, Request, make_plan
from bench.plan.protocol import load_protocol
from bench.records.schema import Record
from bench.runner import block as measure
from bench.runner.settings import Settings
from bench.sae.trainer import Trainer
from tests.bench.runs import Listener, comparable
from tests.conftest import TINY
from tests.made import write_made
from zoo.registry import load_registry

CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory")
CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
BOTH = pytest.mark.parametrize("error", [CPU, CUDA], ids=["cpu", "cuda"])


@pytest.fixture
def block(tmp_path: Path) -> Block:
    """Three layers, two arms."""
    folder = write_made(tmp_path / "cards", tokens=4096)
    registry = load_registry([folder])
    protocol = load_protocol("quick", settings=TINY)
    request = Request(cards=registry.select(models=["made"]), protocol=protocol)
    (found,) = make_plan(request, registry)
    return found


def measured(block: Block) -> tuple[list[Record], Listener]:
    listener = Listener()
    return list(measure.measure_block(block, Settings(), listener)), listener


def limit_trainers(monkeypatch: pytest.MonkeyPatch, most: int, error: Exception) -> None:
    """No more than `most` trainers of a block fit memory."""
    make_cell = measure._make_cell
    made: list[int] = []
    begin = measure._measure

    def counted(*given: Any) -> Any:
        made.append(1)
        if len(made) > most:
            raise error
        return make_cell(*given)

    def fresh(*given: Any) -> Any:
        made.clear()
        return begin(*given)

    monkeypatch.setattr(measure, "_make_cell", counted)
    monkeypatch.setattr(measure, "_measure", fresh)


@BOTH
def test_a_forward_pass_that_does_not_fit_takes_fewer_windows(
    block: Block, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Stored activations do not depend on the batch, so that the records are the same."""
    expected, _ = measured(block)
    forward = StoredModel.forward

    def limited(self: StoredModel, spans: list[Span]) -> None:
        if len(spans) > 3:
            raise error
        forward(self, spans)

    monkeypatch.setattr(StoredModel, "forward", limited)
    records, listener = measured(block)
    assert comparable(records) == comparable(expected)
    said = ["4 windows at a time now", "2 windows at a time now"]
    assert [note.partition("; ")[2] for note in listener.notes] == said
    for record in records:
        assert [note.partition("; ")[2] for note in record.provenance.notes] == said
    assert all(record.provenance.notes == () for record in expected)


@BOTH
@pytest.mark.parametrize(
    ("most", "sizes"),
    [
        (4, ["3 layers, 6 SAEs"]),
        (2, ["3 layers, 6 SAEs", "2 layers, 4 SAEs"]),
        (1, ["3 layers, 6 SAEs", "1 layer, 2 SAEs", "2 layers, 4 SAEs", *["1 layer, 2 SAEs"] * 2]),
    ],
)
def test_a_block_that_does_not_fit_is_split_to_the_same_records(
    block: Block, monkeypatch: pytest.MonkeyPatch, error: Exception, most: int, sizes: list[str]
) -> None:
    expected, _ = measured(block)
    limit_trainers(monkeypatch, most, error)
    records, listener = measured(block)
    assert comparable(records) == comparable(expected)
    prefix = "made: out of memory with "
    assert [note.partition(";")[0] for note in listener.notes] == [prefix + s for s in sizes]
    assert listener.steps == 12 * 6
    assert all(record.provenance.notes[0].startswith("out of memory") for record in records)


@BOTH
def test_memory_that_runs_out_in_training_goes_on_from_the_checkpoint(
    block: Block, monkeypatch: pytest.MonkeyPatch, error: Exception, tmp_path: Path
) -> None:
    expected, _ = measured(block)
    begin = Trainer.begin_step
    calls: list[Tensor] = []

    def exhausted(self: Trainer, x: Tensor) -> None:
        calls.append(x)
        if len(calls) == 6 * 7 + 1:
            raise error
        begin(self, x)

    monkeypatch.setattr(Trainer, "begin_step", exhausted)
    listener = Listener()
    settings = Settings(states=tmp_path / "state", save_every=0)
    records = list(measure.measure_block(block, settings, listener))
    assert comparable(records) == comparable(expected)
    assert len(calls) == 6 * 12 + 1, "no step was taken twice"
    assert listener.notes[1:] == ["made: resumes after step 7 of 12"] * 2
    assert listener.steps == 12 * 6


@BOTH
def test_a_single_cell_that_does_not_fit_fails_and_says_why(
    block: Block, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    make_cell: Callable[..., Any] = measure._make_cell

    def picky(spec: Any, *rest: Any) -> Any:
        if (spec.layer, spec.arm) == (1, "raw"):
            raise error
        return make_cell(spec, *rest)

    monkeypatch.setattr(measure, "_make_cell", picky)
    records, _ = measured(block)
    failures = [record.failure for record in records if record.failure is not None]
    assert len(records) == 6
    (failure,) = failures
    assert failure.kind == "OutOfMemory"
    assert "out of memory with 1 layer, 1 SAE at a time" in failure.message
    assert "--set n=" in failure.remedy


def test_the_batch_of_an_sae_is_what_the_protocol_says(
    block: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Trainer.begin_step
    sizes = set()

    def watched(self: Trainer, x: Tensor) -> None:
        sizes.add(len(x))
        begin(self, x)

    monkeypatch.setattr(Trainer, "begin_step", watched)
    limit_trainers(monkeypatch, 1, CUDA)
    measured(block)
    assert sizes == {block.protocol.batch}


def test_what_is_and_what_is_not_exhausted_memory() -> None:
    assert all(map(is_out_of_memory, (CPU, CUDA, MemoryError())))
    assert not any(map(is_out_of_memory, (RuntimeError("no kernel"), ValueError("x"), OSError(28))))
