"""Measures one block: one stream of activations feeds every layer, arm and seed in it.

Per layer: the statistics of the evaluation sample. Per cell: an SAE initialised from the seed, a
census of its dictionary on the frozen sample at birth, training with a clock on every feature and
censuses on the way, and at the end the census and the quality of the reconstruction.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, cast

import torch
from torch import Tensor

from adapters import Adapter, open_adapter
from bench import theory
from bench.arms import parse_arm
from bench.births import Births
from bench.census import Census
from bench.families import DENSE, make_family
from bench.matmul import fast_matmul
from bench.plan import Block, Spec
from bench.protocol import Protocol
from bench.provenance import Clock
from bench.quality import bias_progress, quality, recovery
from bench.records import (
    Attribution,
    Checkpoint,
    Death,
    Record,
    Result,
    Revival,
    Statistics,
    Training,
    make_record,
)
from bench.revival import survival, survival_curve
from bench.sae import SAE, Recipe
from bench.stats import LayerStatistics, LayerStats
from bench.stream import Stream
from bench.trainer import Trainer
from zoo.errors import ModelError

log = logging.getLogger(__name__)

# Elements of an SAE's matrix below which one CPU thread is faster than two (measured on 2 cores).
ONE_THREAD_BELOW = 1 << 18

# Points that a record keeps of a survival curve: more than a figure can show.
CURVE_POINTS = 64

Advance = Callable[[int], None]


@dataclass
class Layer:
    """What the cells of one layer share."""

    sample: Tensor
    stats: LayerStats
    births: Births


@dataclass
class Cell:
    """One SAE on its way through the block."""

    spec: Spec
    layer: Layer
    trainer: Trainer
    born: Census
    attribution: Attribution
    last: Census | None = None
    checkpoints: list[Checkpoint] = field(default_factory=list)


def measure_block(
    block: Block,
    *,
    device: str = "cpu",
    trust_remote_code: bool = False,
    advance: Advance = lambda steps: None,
) -> Iterator[Record]:
    """The records of a block's cells, failed ones included.

    `advance` is called with the number of SAE training steps done since the last call, or
    skipped because their cell diverged. The sum is `block_steps(block)`, or less where a whole
    layer or the model failed.
    """
    if block.error is not None or block.corpus is None:
        raise ValueError("a block with absent weights or corpus cannot be measured")
    clock = Clock()
    with _threads(block), fast_matmul(device) as matmul:
        outcomes: dict[str, Result | BaseException] = {}
        revision = None
        try:
            adapter = open_adapter(
                block.card,
                device=device,
                dtype=getattr(torch, block.protocol.dtype),
                weights=block.weights,
                trust_remote_code=trust_remote_code,
            )
            revision = adapter.revision
            _measure(block, adapter, outcomes, advance)
        except Exception as error:
            # One model's failure, whatever it is, must not take the other models down with it.
            log.debug("%s failed", block.card.id, exc_info=True)
            for spec in block.specs:
                outcomes.setdefault(spec.hash, error)
        provenance = clock.provenance(
            protocol=block.protocol.name,
            device=device,
            matmul=matmul.precision,
            revision=revision,
        )
    for spec in block.specs:
        yield make_record(spec, outcomes[spec.hash], provenance)


@contextmanager
def _threads(block: Block) -> Iterator[None]:
    """One CPU thread where matrices are so small that handing work around costs more than it saves.

    Decided by the sizes alone: a layer measured by itself must run as beside others.
    """
    before = torch.get_num_threads()
    if block.protocol.n * block.card.tap.width < ONE_THREAD_BELOW:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def failed_records(block: Block, error: ModelError) -> Iterator[Record]:
    """The records of a block whose weights or corpus are absent."""
    provenance = Clock().provenance(
        protocol=block.protocol.name, device="cpu", matmul="none", revision=None
    )
    return (make_record(spec, error, provenance) for spec in block.specs)


def block_steps(block: Block) -> int:
    """SAE training steps of a block, over all its cells."""
    return block.steps * len(block.specs)


def _measure(
    block: Block, adapter: Adapter, outcomes: dict[str, Result | BaseException], advance: Advance
) -> None:
    """Fills `outcomes` by the cells' hashes."""
    assert block.corpus is not None
    stream = Stream(adapter, block.corpus, block.layers, block.protocol)
    sample = stream.sample(block.tokens)
    cells: list[Cell] = []
    for number in block.layers:
        specs = [spec for spec in block.specs if spec.layer == number]
        try:
            layer = _make_layer(sample[number], block.protocol)
            cells += [_make_cell(spec, layer, block.protocol) for spec in specs]
        except ModelError as error:
            outcomes |= {spec.hash: error for spec in specs}
    if cells:
        _train(block, stream, cells, outcomes, advance)
    for cell in cells:
        if cell.spec.hash not in outcomes:
            outcomes[cell.spec.hash] = _result(cell, adapter)


def recipe_of(protocol: Protocol) -> Recipe:
    """The part of the protocol that the trainer reads."""
    return Recipe(
        n=protocol.n,
        k=protocol.k,
        lr=protocol.lr,
        beta1=protocol.beta1,
        beta2=protocol.beta2,
        eps=protocol.eps,
        clip=protocol.clip,
        aux_k=protocol.aux_k,
        aux_alpha=protocol.aux_alpha,
        dead_after_tokens=protocol.dead_after,
    )


def count(sae: SAE, sample: Tensor, *, firings: bool = False) -> Census:
    """The census of an SAE's dictionary on raw activations [tokens, d]."""
    return sae.census(sample, counts=firings)


def _make_layer(sample: Tensor, protocol: Protocol) -> Layer:
    statistics = LayerStatistics(sample.shape[1])
    statistics.update(sample)
    family = make_family(protocol.family, protocol.family_settings(), steps=protocol.steps)
    return Layer(sample, statistics.result(), Births(sample, protocol.n, protocol.k, family))


def _make_cell(spec: Spec, layer: Layer, protocol: Protocol) -> Cell:
    arm = parse_arm(spec.arm)
    sae = layer.births.sae(arm, spec.seed)
    trainer = Trainer(sae, recipe_of(protocol), aux=arm.aux == "auxk", path=protocol.path)
    dead = {name: found.dead for name, found in layer.births.presets(spec.seed).items()}
    return Cell(spec, layer, trainer, layer.births.census(arm, spec.seed), Attribution(**dead))


def _train(
    block: Block,
    stream: Stream,
    cells: list[Cell],
    outcomes: dict[str, Result | BaseException],
    advance: Advance,
) -> None:
    """Every cell takes the same steps on the same batches; a cell that diverges drops out."""
    counted = set(block.protocol.census_steps())
    running = list(cells)
    for step, batch in enumerate(stream.batches(block.steps, block.protocol.batch), start=1):
        for cell in list(running):
            try:
                loss = cell.trainer.step(batch[cell.spec.layer]).loss
                if step in counted or step == block.steps:
                    cell.trainer.check_finite()
                    _count(cell, step, float(loss), last=step == block.steps)
            except ModelError as error:
                outcomes[cell.spec.hash] = error
                running.remove(cell)
        advance(len(cells))
        if not running:
            break


def _count(cell: Cell, step: int, loss: float, *, last: bool) -> None:
    """Adds a checkpoint; the last one's census also counts firings, and is the cell's result."""
    found = count(cell.trainer.sae, cell.layer.sample, firings=last)
    if last:
        cell.last = found
    cell.checkpoints.append(
        Checkpoint(
            step=step,
            tokens=cell.trainer.tokens,
            dead_relu=found.dead_relu,
            dead_topk=found.dead_topk,
            loss=loss,
            bias_progress=bias_progress(cell.trainer.sae, cell.layer.sample),
        )
    )


def _result(cell: Cell, adapter: Adapter) -> Result:
    stats, spec = cell.layer.stats, cell.spec
    n, k = int(spec.protocol["n"]), int(spec.protocol["k"])
    last = cell.last or count(cell.trainer.sae, cell.layer.sample, firings=True)
    predicted_relu = theory.predicted_relu(stats.gamma, stats.tokens)
    predicted_dead = theory.predicted_dead(stats.gamma, stats.tokens, k, n)
    without_k = spec.protocol.get("family") in DENSE
    return Result(
        statistics=Statistics.model_validate(stats.to_dict()),
        predicted_relu=predicted_relu,
        predicted_dead=predicted_relu if without_k else predicted_dead,
        death_init=_death(cell.born),
        death_end=_death(last),
        training=_training(cell, adapter) if cell.trainer.step_number else None,
        attribution=cell.attribution,
    )


def _training(cell: Cell, adapter: Adapter) -> Training:
    trainer = cell.trainer
    measured = quality(trainer.sae, cell.layer.sample)
    truth = getattr(adapter, "truth", None)
    births = {
        "relu": cell.born.never_positive,
        "topk": cell.born.never_selected,
        "all": cell.born.never_positive | cell.born.never_selected,
    }
    revivals = {path: _revival(trainer, dead) for path, dead in births.items()}
    return Training(
        steps=trainer.step_number,
        tokens=trainer.tokens,
        path=cast(Literal["sparse", "dense"], trainer.path),
        checkpoints=tuple(cell.checkpoints),
        revival_relu=revivals["relu"],
        revival_topk=revivals["topk"],
        revival=revivals["all"],
        fvu=measured.fvu,
        l0=measured.l0,
        recovery=None if truth is None else recovery(trainer.sae, truth),
    )


def _revival(trainer: Trainer, dead: Tensor) -> Revival:
    clock = (trainer.first_fired, dead, trainer.step_number)
    times, shares = survival_curve(*clock)
    curve = thin(list(zip(times.tolist(), shares.tolist(), strict=True)), CURVE_POINTS)
    return Revival.model_validate(survival(*clock).to_dict() | {"curve": curve})


def thin(points: list[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """At most `most` of the points, evenly spaced by number, the first and the last included."""
    if len(points) <= most:
        return points
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]


def _death(found: Census) -> Death:
    return Death(dead_relu=found.dead_relu, dead_topk=found.dead_topk, always_on=found.always_on)
