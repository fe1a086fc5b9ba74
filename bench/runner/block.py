"""Measures one block: one stream of activations feeds every layer, arm and seed in it.

Per layer: the statistics of the evaluation sample. Per cell: an SAE initialised from the seed, a
census of its dictionary on the frozen sample at birth, training with a clock on every feature and
censuses on the way, and at the end the census and the quality of the reconstruction.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from adapters import Adapter, open_adapter
from bench.activations.cache import CachedStream, cached
from bench.activations.special_tokens import measure_special_tokens
from bench.activations.stream import ActivationStream
from bench.compute.heap import trim_heap
from bench.compute.kernels import kernels_left_out
from bench.compute.matmul import fast_matmul
from bench.compute.out_of_memory import is_out_of_memory, release_memory
from bench.compute.profiling import profiled
from bench.compute.row_shards import Processes
from bench.compute.timing import one_thread
from bench.death.firings import FiringClock, silence_steps
from bench.death.prediction import predict
from bench.plan.blocks import Block
from bench.plan.protocol import Protocol
from bench.records.provenance import Clock
from bench.records.schema import Agreement, Provenance, Record, Result, Samples, make_record
from bench.records.spec import Spec
from bench.runner.cell import BlockLayer, Cell
from bench.runner.checkpoints import CheckpointWriter
from bench.runner.kept_saes import keep_sae
from bench.runner.loop import restore_conditions, train
from bench.runner.result import agreements, result
from bench.runner.settings import NoProgress, Phase, Progress, Settings
from bench.runner.stepping import Stepper
from bench.sae.arms import parse_arm
from bench.sae.families import is_dense, make_family
from bench.sae.initial import InitialSAEs
from bench.sae.trainer import Trainer
from bench.statistics.layer import LayerStatistics
from zoo.errors import ModelError, OutOfMemory, OutputError, WorkerFailed

_log = logging.getLogger(__name__)

Outcomes = dict[str, Result | BaseException]

_NOT_SPARED = (
    "the corpus is too short to spare {:,} tokens to fit on: center, scale and whitening are "
    "fitted on the evaluation sample"
)


def measure_block(
    block: Block,
    settings: Settings | None = None,
    progress: Progress | None = None,
    *,
    notes: Sequence[str] = (),
) -> Iterator[Record]:
    """The records of a block's cells, failed ones included.

    `progress` is told the SAE training steps done, or skipped because their cell diverged. The sum
    is `block_steps(block)`, or less where a whole layer or the model failed. `notes` go into the
    records. Where memory runs out the block is split (`bench.compute.out_of_memory`).

    Raises:
        KeyboardInterrupt: a signal asked to stop.
        OutputError: a checkpoint or an SAE could not be written.
        WorkerFailed: what went wrong in this process may not have in those that it measures the
            block with, which wait for it: it has to end.
    """
    settings, counter = settings or Settings(), _StepCounter(progress or NoProgress())
    if block.error is not None:
        yield from failed_records(block, block.error)
        return
    clock = Clock()
    clock.notes.extend([*notes, *_division(settings.processes)])
    attempt = _attempt(block, settings, clock, counter)
    parts = block.halves() if attempt.out_of_memory else None
    if parts is not None:
        del attempt  # its errors hold on to what did not fit
        release_memory()
        counter.take_back()
        note = f"out of memory with {_size(block)}; split into {' and '.join(map(_size, parts))}"
        counter.note(f"{block.card.id}: {note}")
        for part in parts:
            yield from measure_block(part, settings, progress, notes=[*clock.notes, note])
        return
    for spec in block.specs:
        yield make_record(
            spec,
            attempt.outcomes[spec.hash],
            attempt.provenance,
            attempt.agreements.get(spec.hash),
            block.published.get(spec.layer),
            attempt.step_seconds.get(spec.hash),
        )


@dataclass(frozen=True)
class _Attempt:
    """What measuring a block gave, for every cell a result or why there is none."""

    outcomes: Outcomes
    agreements: dict[str, Agreement]
    step_seconds: dict[str, float | None]
    provenance: Provenance
    out_of_memory: bool


def _attempt(block: Block, settings: Settings, clock: Clock, counter: _StepCounter) -> _Attempt:
    """Measures a block. Raises `OutputError`, `WorkerFailed` and `KeyboardInterrupt` alone."""
    outcomes: Outcomes = {}
    found_agreements: dict[str, Agreement] = {}
    step_seconds: dict[str, float | None] = {}
    adapter: Adapter | None = None
    revision, out_of_memory = None, False
    profile = _profile(block, settings, counter)
    with block_threads(block), fast_matmul(settings.device) as matmul, profile:
        try:
            counter.phase("load")
            adapter = _open(block, settings)
            revision = adapter.revision
            cells = _measure(block, adapter, outcomes, settings, clock, counter)
            found_agreements = agreements(cells)
            step_seconds = {cell.spec.hash: cell.step_seconds for cell in cells}
        except OutputError:
            raise
        except Exception as error:
            # One model's failure, whatever it is, must not take the other models down with it.
            _log.debug("%s failed", block.card.id, exc_info=True)
            out_of_memory = is_out_of_memory(error)
            found: BaseException = _too_large(block, error) if out_of_memory else error
            if settings.processes is not None and (out_of_memory or not _is_of_all(error)):
                raise _ended(found, settings.processes) from error
            for spec in block.specs:
                outcomes.setdefault(spec.hash, found)
        for text in (*(adapter.notes if adapter else ()), *_corpus_notes(block)):
            if text not in clock.notes:
                clock.notes.append(text)
        provenance = clock.provenance(
            protocol=block.protocol.name,
            device=settings.device,
            matmul=matmul.precision,
            revision=revision,
            tried=block.card.tried,
            data=block.data,
        )
    return _Attempt(outcomes, found_agreements, step_seconds, provenance, out_of_memory)


def _open(block: Block, settings: Settings) -> Adapter:
    """The block's model. Of several processes all have it, or none goes on."""
    error: Exception | None = None
    try:
        adapter = open_adapter(
            block.card,
            device=settings.device,
            dtype=getattr(torch, block.protocol.dtype),
            weights=block.weights,
            trust_remote_code=settings.trust_remote_code,
            depth=block.depth,
        )
    except Exception as found:
        error = found
    processes = settings.processes
    if processes is not None and processes.any(error is not None):
        error = error or WorkerFailed("another of the processes could not load the model")
    if error is not None:
        raise error
    return adapter


def _is_of_all(error: Exception) -> bool:
    """Whether all processes that measure a block together have it: what they compute is the
    same."""
    return isinstance(error, ModelError)


def _ended(error: BaseException, processes: Processes) -> WorkerFailed:
    number = f"process {processes.index + 1} of {processes.of}"
    remedy = "The same command goes on from the last checkpoint."
    if isinstance(error, OutOfMemory):
        remedy = f"Start more processes, with as many devices. {error.remedy}"
    return WorkerFailed(f"{number}, which have the rows of one dictionary: {error}", remedy)


def _division(processes: Processes | None) -> list[str]:
    if processes is None:
        return []
    return [f"each dictionary is divided by its rows over {processes.of} processes"]


def _corpus_notes(block: Block) -> list[str]:
    """What the rules of reading did to the corpus, as far as it was read."""
    corpus = block.corpus
    return [] if corpus is None else [f"corpus {corpus.name}: {text}" for text in corpus.notes]


def _profile(
    block: Block, settings: Settings, counter: _StepCounter
) -> AbstractContextManager[None]:
    name, layers = block.card.id, block.layers
    # The hash tells blocks of the same layers apart.
    file = f"{name}-{layers[0]}-{layers[-1]}-{block.specs[0].hash[:6]}"

    def tell(text: str) -> None:
        counter.note(f"{name}, layers {layers[0]} to {layers[-1]}: {text}")

    return profiled(settings.profile, file, torch.device(settings.device), tell)


class _StepCounter:
    """Counts the steps that were announced, so that they can be taken back."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._steps = 0

    def advance(self, steps: int) -> None:
        self._steps += steps
        self._progress.advance(steps)

    def note(self, text: str) -> None:
        self._progress.note(text)

    def phase(self, name: Phase) -> None:
        self._progress.phase(name)

    def take_back(self) -> None:
        self.advance(-self._steps)


def _size(block: Block) -> str:
    layers, cells = len(block.layers), len(block.specs)
    return f"{layers} layer{'s' * (layers > 1)}, {cells} SAE{'s' * (cells > 1)}"


def _too_large(block: Block, error: BaseException) -> OutOfMemory:
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return OutOfMemory(
        f"out of memory with {_size(block)} at a time ({reason})",
        "Take a smaller dictionary, sample or buffer (--set n=, N=, buffer=), or a larger device.",
    )


def block_threads(block: Block) -> AbstractContextManager[None]:
    """The block's number of threads."""
    return one_thread() if block.one_thread else nullcontext()


def failed_records(block: Block, error: ModelError) -> Iterator[Record]:
    """The records of a block that could not be begun, or whose process ended."""
    provenance = Clock().provenance(
        protocol=block.protocol.name,
        device="cpu",
        matmul="none",
        revision=None,
        tried=block.card.tried,
        data=block.data,
    )
    return (
        make_record(spec, error, provenance, published_layer=block.published.get(spec.layer))
        for spec in block.specs
    )


def block_steps(block: Block) -> int:
    """SAE training steps of a block, over all its cells."""
    return block.steps * len(block.specs)


def _measure(
    block: Block,
    adapter: Adapter,
    outcomes: Outcomes,
    settings: Settings,
    clock: Clock,
    progress: Progress,
) -> list[Cell]:
    """Fills `outcomes` by the cells' hashes; the cells that were measured."""
    assert block.corpus is not None

    def tell(text: str) -> None:
        progress.note(f"{block.card.id}: {text}")

    def note(text: str) -> None:
        if text not in clock.notes:
            clock.notes.append(text)
        tell(text)

    progress.phase("sample")
    writer = CheckpointWriter(
        block, settings.states, settings.save_every, tell, settings.processes, settings.mirror
    )
    ordered = block.protocol.model_copy(update={"data_seed": block.data_seed})
    workers = settings.readers_on(adapter.device.type)
    model = ActivationStream(adapter, block.corpus, block.layers, ordered, note, workers)
    stream: ActivationStream | CachedStream = model
    if settings.cache is not None:
        stream = cached(block, model, settings.cache, settings.device, tell)
    state = writer.load()
    if state is not None:
        restore_conditions(state, stream, clock)
    for text in kernels_left_out(torch.device(settings.device)) if block.steps else ():
        note(text)
    cells = _make_cells(block, stream, outcomes, note, settings.processes)
    if cells:
        _add_special_tokens(cells, stream, block.tokens)
        stepper = Stepper(clock.notes.append, banks=settings.banks)
        outcomes |= train(
            block, stream, cells, stepper, writer, state=state, clock=clock, progress=progress
        )
        trim_heap()
    progress.phase("census")
    for cell in cells:
        name = cell.spec.hash
        if name in outcomes:
            continue
        try:
            outcomes[name] = result(cell, getattr(adapter, "truth", None))
        except ModelError as error:
            outcomes[name] = error
            continue
        if settings.saes is not None:
            keep_sae(cell, settings.saes / name, block, adapter.revision)
    return [cell for cell in cells if isinstance(outcomes[cell.spec.hash], Result)]


def _make_cells(
    block: Block,
    stream: ActivationStream | CachedStream,
    outcomes: Outcomes,
    note: Callable[[str], None],
    processes: Processes | None,
) -> list[Cell]:
    """The cells at birth; of a layer that has none, the error goes into `outcomes`."""
    sample, fitted = stream.sample(block.tokens), stream.fit_sample(block.fit_tokens)
    if processes is not None:
        sample, fitted = processes.same_layers(sample), fitted and processes.same_layers(fitted)
    samples = _samples(block, stream, fitted is not None)
    if samples.reason is not None:
        note(samples.reason)
    cells: list[Cell] = []
    for number in block.layers:
        specs = [spec for spec in block.specs if spec.layer == number]
        own = None if fitted is None else fitted.pop(number)
        try:
            layer = _make_layer(sample[number], own, samples, block.protocol, processes)
            layer.unknown_share = stream.unknown_share
            cells += [_make_cell(spec, layer, block) for spec in specs]
            layer.initial.forget_fitted()
        except ModelError as error:
            outcomes |= {spec.hash: error for spec in specs}
        own = None
        trim_heap()
    return cells


def _samples(block: Block, stream: ActivationStream | CachedStream, spared: bool) -> Samples:
    return Samples(
        examples=stream.evaluated_examples,
        fit_tokens=block.fit_tokens if spared else block.tokens,
        fit_examples=stream.fitted_examples,
        reason=None if spared else _NOT_SPARED.format(block.fit_tokens),
    )


def _make_layer(
    sample: Tensor,
    fitted: Tensor | None,
    samples: Samples,
    protocol: Protocol,
    processes: Processes | None = None,
) -> BlockLayer:
    statistics = LayerStatistics(sample.shape[1])
    statistics.update(sample)
    stats = statistics.result()
    family = make_family(protocol.family, protocol.family_settings(), steps=protocol.steps)
    return BlockLayer(
        sample,
        stats,
        InitialSAEs(
            sample,
            protocol.n,
            protocol.k,
            family,
            fitted=fitted,
            active_variance=protocol.active_variance,
            processes=processes,
        ),
        predict(statistics, sample, protocol.k, protocol.n, dense=is_dense(protocol.family)),
        samples,
        protocol.mask_norm,
    )


def _add_special_tokens(
    cells: Sequence[Cell], stream: ActivationStream | CachedStream, tokens: int
) -> None:
    layers = {cell.spec.layer: cell.layer for cell in cells}
    stats = {number: layer.stats for number, layer in layers.items()}
    if isinstance(stream, CachedStream):
        found = stream.special_tokens(tokens, stats)
    else:
        found = measure_special_tokens(stream, tokens, stats)
    for number, special in found.items():
        layers[number].special = special


def _make_cell(spec: Spec, layer: BlockLayer, block: Block) -> Cell:
    arm, protocol, initial = parse_arm(spec.arm), block.protocol, layer.initial
    sae, born = initial.sae(arm, spec.seed), initial.census(arm, spec.seed)
    silence = silence_steps(born.tokens, protocol.batch)
    trainer = Trainer(
        sae,
        protocol,
        arm=arm,
        clock=FiringClock(
            sae.n, silence=silence, born_dead=born.dead_mask, device=sae.W_enc.device
        ),
    )
    dead = {name: found.dead for name, found in initial.presets(spec.seed).items()}
    untrained = initial.untrained(arm, spec.seed, silence=silence, steps=block.steps)
    return Cell(spec, layer, trainer, born, dead, untrained)
