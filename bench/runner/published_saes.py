"""Looks at published SAEs: one stream of activations feeds all layers of a model and their SAEs.

Nothing is trained. An SAE is read when its turn comes, so that one at a time is held in memory.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from adapters import Adapter, open_adapter
from bench.activations.cache import CachedStream, cached
from bench.activations.stream import ActivationStream
from bench.compute.heap import trim_heap
from bench.compute.matmul import fast_matmul
from bench.compute.out_of_memory import is_out_of_memory, release_memory
from bench.diagnosis.trained import measure_sae
from bench.plan.published_saes import PublishedBlock, PublishedCell
from bench.records.provenance import Clock
from bench.records.published_saes import PublishedRecord, PublishedResult, make_published_record
from bench.records.schema import Death, Samples, Statistics
from bench.runner.block import block_threads
from bench.runner.settings import Settings
from bench.sae.interop import read_sae
from bench.statistics.layer import LayerStatistics
from zoo.errors import ModelError, OutOfMemory, OutputError

_log = logging.getLogger(__name__)

Say = Callable[[str], object]


def measure_published(
    block: PublishedBlock, settings: Settings, say: Say = lambda text: None
) -> Iterator[PublishedRecord]:
    """The records of a block's SAEs, failed ones included, each as soon as it is measured.

    Raises:
        OutputError: the cache of activations could not be written.
    """
    clock, adapter, matmul = Clock(), None, "none"

    def record(cell: PublishedCell, outcome: PublishedResult | BaseException) -> PublishedRecord:
        provenance = clock.provenance(
            protocol=block.block.protocol.name,
            device=settings.device,
            matmul=matmul,
            revision=None if adapter is None else adapter.revision,
            tried=block.block.card.tried,
            data=block.block.data,
        )
        notes = (*provenance.notes, *cell.notes)
        return make_published_record(
            cell.name, cell.spec, outcome, provenance.model_copy(update={"notes": notes})
        )

    with block_threads(block.block), fast_matmul(settings.device) as method:
        matmul = method.precision
        try:
            adapter = _adapter(block, settings)
            say(f"{block.block.card.id}: reading {block.block.tokens:,} tokens")
            stream = _stream(block, adapter, settings, clock)
            samples = stream.sample(block.block.tokens)
        except OutputError:
            raise
        except Exception as error:
            _log.debug("%s failed", block.block.card.id, exc_info=True)
            for cell in block.cells:
                yield record(cell, _named(error))
            return
        for layer in block.block.layers:
            sample = samples.pop(layer)
            for cell in (each for each in block.cells if each.spec.layer == layer):
                say(f"{block.block.card.id}, layer {layer}: {'; '.join((cell.name, *cell.notes))}")
                try:
                    outcome: PublishedResult | BaseException = _result(cell, sample, stream)
                except Exception as error:
                    _log.debug("%s failed", cell.name, exc_info=True)
                    outcome = _named(error)
                yield record(cell, outcome)
                release_memory()
            del sample
            trim_heap()


def _adapter(block: PublishedBlock, settings: Settings) -> Adapter:
    return open_adapter(
        block.block.card,
        device=settings.device,
        dtype=getattr(torch, block.block.protocol.dtype),
        weights=block.block.weights,
        trust_remote_code=settings.trust_remote_code,
        depth=block.block.depth,
    )


def _stream(
    block: PublishedBlock, adapter: Adapter, settings: Settings, clock: Clock
) -> ActivationStream | CachedStream:
    inner = block.block
    assert inner.corpus is not None
    model = ActivationStream(
        adapter, inner.corpus, inner.layers, inner.protocol, clock.notes.append
    )
    if settings.cache is None:
        return model
    return cached(inner, model, settings.cache, settings.device, clock.notes.append)


def _named(error: Exception) -> Exception:
    """The error, or that memory ran out."""
    if not is_out_of_memory(error):
        return error
    return OutOfMemory(
        f"out of memory ({' '.join(str(error).split())[:300] or type(error).__name__})",
        "Take a smaller sample (--set N=), or a larger device.",
    )


def _result(
    cell: PublishedCell, sample: Tensor, stream: ActivationStream | CachedStream
) -> PublishedResult:
    sae, origin, library = read_sae(cell.path)
    if sae.width != sample.shape[1]:
        raise ModelError(f"the layer has width {sample.shape[1]}, the SAE takes {sae.width}")
    if cell.spec.coordinate_mean == "subtracted":
        sample = sample - sample.mean(1, keepdim=True)
    found = measure_sae(sae.to(str(sample.device)), sample)
    return PublishedResult(
        statistics=_statistics(sample),
        library=library,
        family=sae.family.name,
        n=sae.n,
        k=sae.k,
        death=Death(
            dead_relu=found.census.dead_relu,
            dead_topk=found.census.dead_topk,
            always_on=found.census.always_on,
        ),
        dead_if_centered=found.dead_if_centered,
        mean_learned=found.mean_learned,
        fvu=found.quality.fvu,
        fvu_ordinary=found.quality.fvu_ordinary,
        l0=found.quality.l0,
        trained_on=_plain(origin.to_dict()),
        unknown_share=stream.unknown_share,
        samples=Samples(
            examples=stream.evaluated_examples, fit_tokens=0, fit_examples=0, reason=None
        ),
    )


def _statistics(sample: Tensor) -> Statistics:
    statistics = LayerStatistics(sample.shape[1])
    statistics.update(sample)
    return statistics.result()


def _plain(origin: dict[str, Any]) -> dict[str, Any]:
    """What others' files say, of a length that a record may hold."""
    kept = {key: value for key, value in origin.items() if isinstance(value, str | int)}
    return {key: v[:200] if isinstance(v, str) else v for key, v in kept.items()}
