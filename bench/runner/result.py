"""From a trained cell to the measured part of its record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

from torch import Tensor

from bench.compute.row_shards import row_shard
from bench.death import theory
from bench.death.census import Census
from bench.death.revival import transitions
from bench.records.schema import (
    Agreement,
    BiasSteps,
    Death,
    Result,
    Training,
    Transitions,
)
from bench.runner.cell import Cell
from bench.runner.revivals import first_firing, revivals, silence
from bench.sae.families import is_dense
from bench.sae.quality import agreement, quality, recovery


def result(cell: Cell, truth: Tensor | None) -> Result:
    """The result of a cell at the end of training; `truth` are the true features, if known."""
    stats, spec = cell.layer.stats, cell.spec
    n, k = int(spec.protocol["n"]), int(spec.protocol["k"])
    last = cell.last or cell.trainer.sae.census(cell.layer.sample, counts=True)
    predicted_relu = theory.predicted_relu(stats.gamma, stats.tokens)
    predicted_dead = theory.predicted_dead(stats.gamma, stats.tokens, k, n)
    without_k = is_dense(spec.protocol.get("family"))
    return Result(
        statistics=stats,
        unknown_share=cell.layer.unknown_share,
        predicted_relu=predicted_relu,
        predicted_dead=predicted_relu if without_k else predicted_dead,
        prediction=cell.layer.prediction,
        death_init=_death(cell.born),
        death_end=_death(last),
        training=_training(cell, last, truth) if cell.trainer.step_number else None,
        attribution=cell.attribution,
        special_tokens=cell.layer.special,
        samples=cell.layer.samples,
    )


def agreements(cells: Sequence[Cell]) -> dict[str, Agreement]:
    """By cell's hash, how trained cells agree with other seeds of their layer and arm."""
    groups: dict[tuple[int, str], list[Cell]] = {}
    for cell in cells:
        if cell.last is not None:
            groups.setdefault((cell.spec.layer, cell.spec.arm), []).append(cell)
    found = {}
    for group in groups.values():
        rows = {cell.spec.seed: _alive_directions(cell) for cell in group}
        for cell in group:
            others = [seed for seed in rows if seed != cell.spec.seed]
            with row_shard(cell.trainer.sae.shard):
                cosine = agreement(rows[cell.spec.seed], [rows[seed] for seed in others])
            if cosine is not None:
                found[cell.spec.hash] = Agreement(seeds=tuple(others), mean_max_cosine=cosine)
    return found


def _alive_directions(cell: Cell) -> Tensor:
    assert cell.last is not None
    sae = cell.trainer.sae
    directions, dead = sae.directions(), cell.last.dead_mask
    dead = dead if sae.shard is None else dead[sae.shard.rows]
    return directions[~dead.to(directions.device)]


def _training(cell: Cell, last: Census, truth: Tensor | None) -> Training:
    trainer, layer = cell.trainer, cell.layer
    measured = quality(trainer.sae, layer.sample)
    relu, topk = cell.born.never_positive, cell.born.never_selected
    distinct = min(trainer.tokens, layer.first_pass)
    return Training(
        steps=trainer.step_number,
        tokens=trainer.tokens,
        distinct_tokens=distinct,
        epochs=trainer.tokens / distinct,
        path=cast(Literal["sparse", "dense", "kernels"], trainer.path),
        checkpoints=tuple(cell.checkpoints),
        silence=silence(cell),
        first_firing_relu=first_firing(cell, relu),
        first_firing_topk=first_firing(cell, topk),
        first_firing=first_firing(cell, relu | topk),
        revival_relu=revivals(cell, relu, last),
        revival_topk=revivals(cell, topk, last),
        revival=revivals(cell, relu | topk, last),
        fvu=measured.fvu,
        fvu_ordinary=measured.fvu_ordinary,
        masked=_masked(cell),
        l0=measured.l0,
        recovery=None if truth is None else recovery(trainer.sae, truth),
        transitions=_transitions(cell, last),
        bias_steps=_bias_steps(cell),
    )


def _masked(cell: Cell) -> float | None:
    """Share of the training tokens left out, by protocol or arm; None where neither does."""
    layer, masks = cell.layer, cell.trainer.arm.tokens == "mask"
    if layer.mask_norm is None and not masks:
        return None
    return (int(layer.masked) + int(cell.masked)) / cell.trainer.tokens


def _transitions(cell: Cell, last: Census) -> Transitions:
    table = transitions(
        (cell.born.never_positive, cell.born.never_selected),
        (last.never_positive, last.never_selected),
    )
    fired = cell.trainer.clock.fired.cpu()
    return Transitions(
        **{f"{before}_{after}": n for before, row in table.items() for after, n in row.items()},
        again=int((cell.born.dead_mask & fired & last.dead_mask).sum()),
        collateral=int((cell.was_topk & last.never_positive).sum()),
    )


def _bias_steps(cell: Cell) -> BiasSteps | None:
    steps = cell.bias.steps()
    if steps is None:
        return None
    half, most, nearly_all = steps
    return BiasSteps(half=half, most=most, nearly_all=nearly_all)


def _death(found: Census) -> Death:
    return Death(dead_relu=found.dead_relu, dead_topk=found.dead_topk, always_on=found.always_on)
