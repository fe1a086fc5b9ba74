"""Training of a block's cells: the same steps on the same batches, stopped and resumed at will."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from torch import Tensor

import zoo.errors
from bench.activations.cache import CachedStream
from bench.activations.stream import ActivationStream
from bench.compute.profiling import step_begins
from bench.compute.row_shards import Processes
from bench.plan.blocks import Block
from bench.records.provenance import Clock
from bench.runner.cell import Cell
from bench.runner.checkpoints import CheckpointWriter
from bench.runner.interrupts import interruptible
from bench.runner.settings import Progress
from bench.runner.stepping import Failures, Stepper, may_drop_out


def train(
    block: Block,
    stream: ActivationStream | CachedStream,
    cells: Sequence[Cell],
    stepper: Stepper,
    writer: CheckpointWriter,
    *,
    state: dict[str, Any] | None,
    clock: Clock,
    progress: Progress,
) -> Failures:
    """Every cell takes the same steps on the same batches; a cell that diverges drops out.

    `state` is what `writer` loaded, to go on after. Of its processes all stop and save after the
    same step. Returns the errors of the cells that dropped out, by hash.

    Raises:
        KeyboardInterrupt: a signal asked to stop; a checkpoint was written, unless nothing but the
            end was left.
        OutputError: a checkpoint could not be written.
    """
    failed: Failures = {}
    if block.steps == 0:
        return failed
    batches, processes = stream.shuffled(block.protocol.batch), writer.processes
    done = 0
    if state is not None:
        batches.load_state_dict(state["batches"])
        failed |= _restore(cells, state, block.steps)
        done = state["step"]
        progress.advance(len(cells) * done)
    batches.to_come = block.steps - done
    progress.phase("train")
    counted = set(block.protocol.census_steps()) | {block.steps}
    with closing(batches), interruptible(progress.note) as interruption:
        for step in range(done + 1, block.steps + 1):
            running = [cell for cell in cells if cell.spec.hash not in failed]
            if not running:
                break
            step_begins()
            batch = _given(batches.next(), running, processes)
            losses = stepper.step(running, batch, failed)
            if step in counted:
                _count(running, losses, failed, step=step, last=step == block.steps)
            progress.advance(len(cells))
            stops = _agreed(interruption.asked, processes)
            if stops or (step < block.steps and _agreed(writer.is_due, processes)):
                for cell in running:
                    with may_drop_out(cell, failed):
                        cell.trainer.check_finite()
                writer.save(_state(step, batches.state_dict(), cells, failed, stream, clock))
            if stops:
                raise KeyboardInterrupt
    for cell in cells:
        cell.layer.first_pass = batches.first_pass
    # Asked after the last look at it: the checkpoint before is the one to go on from.
    if _agreed(interruption.asked, processes):
        raise KeyboardInterrupt
    return failed


def _given(
    batch: dict[int, Tensor], running: Sequence[Cell], processes: Processes | None
) -> dict[int, Tensor]:
    """What the layers of the cells train on, of a batch by layer."""
    if processes is not None:
        batch = processes.same_layers(batch)
    layers = {cell.spec.layer: cell.layer for cell in running}
    return {number: layer.kept(batch[number]) for number, layer in layers.items()}


def _agreed(flag: bool, processes: Processes | None) -> bool:
    """Whether one of the processes says so."""
    return flag if processes is None else processes.any(flag)


def _count(
    running: Sequence[Cell],
    losses: Mapping[str, Tensor],
    failed: Failures,
    *,
    step: int,
    last: bool,
) -> None:
    """A census of each cell that has not failed."""
    for cell in running:
        if cell.spec.hash not in failed:
            with may_drop_out(cell, failed):
                cell.count(step, float(losses[cell.spec.hash]), last=last)


def _state(
    step: int,
    batches: dict[str, Any],
    cells: Sequence[Cell],
    failed: Failures,
    stream: ActivationStream | CachedStream,
    clock: Clock,
) -> dict[str, Any]:
    return {
        "step": step,
        "batches": batches,
        "cells": {
            cell.spec.hash: cell.state_dict() for cell in cells if cell.spec.hash not in failed
        },
        "masked": {cell.spec.layer: int(cell.layer.masked) for cell in cells},
        "failed": {
            name: [type(error).__name__, error.message, error.remedy]
            for name, error in failed.items()
        },
        "windows_per_pass": stream.windows_per_pass,
        "seconds": clock.seconds,
        "started": clock.started,
        "resumed": clock.resumed,
        "notes": list(clock.notes),
    }


def _restore(cells: Sequence[Cell], state: dict[str, Any], steps: int) -> Failures:
    """Sets the cells as they were; the errors of those that had dropped out."""
    failed: Failures = {}
    for cell in cells:
        if cell.spec.hash in state["failed"]:
            kind, message, remedy = state["failed"][cell.spec.hash]
            failed[cell.spec.hash] = getattr(zoo.errors, kind)(message, remedy)
            continue
        cell.load_state_dict(state["cells"][cell.spec.hash])
        cell.layer.masked = state["masked"][cell.spec.layer]
        if state["step"] == steps:
            cell.count_last()
    return failed


def restore_conditions(
    state: dict[str, Any], stream: ActivationStream | CachedStream, clock: Clock
) -> None:
    """The size of a forward pass and the clock, as they were when the state was saved."""
    stream.windows_per_pass = state["windows_per_pass"]
    clock.started = state["started"]
    clock.earlier = state["seconds"]
    clock.resumed = state["resumed"] + 1
    clock.notes[:] = [*state["notes"], *(n for n in clock.notes if n not in state["notes"])]
