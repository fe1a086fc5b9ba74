"""From a request to the work: cards x layers x arms x seeds -> Specs -> blocks.

A Spec says everything that decides a cell's numbers; its hash is the cell's name. A block is one
model and a group of its layers: one stream of activations feeds every layer, arm and seed in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from adapters import lacking
from bench.plan.memory import block_memory, shared_memory
from bench.plan.protocol import Protocol
from bench.records.spec import ABSENT, METRIC_VERSION, Spec
from zoo.cards import Card, DataKind, data_of
from zoo.corpus import Corpus
from zoo.corpus_choice import CorpusChoice
from zoo.errors import ModelError, UsageError
from zoo.hub import pinned
from zoo.registry import Registry
from zoo.suites import Suite
from zoo.weights import unpinned_code, weights_identity

# Processes that a dictionary is divided over at most.
_MOST_PROCESSES = 1024

# Elements of an SAE's matrix below which one CPU thread is faster than two (measured on 2 cores).
_ONE_THREAD_BELOW = 1 << 18


@dataclass(frozen=True)
class Request:
    """What a user asked for, with every name resolved but nothing opened.

    memory: bytes that a block may take. on_card: whether they are a graphics card's.
    """

    cards: Sequence[Card]
    protocol: Protocol
    layers: Sequence[int] | None = None
    limit: int | None = None
    weights: Path | None = None
    corpus: CorpusChoice = field(default_factory=CorpusChoice)
    memory: int | None = None
    on_card: bool = False
    suite: Suite | None = None


@dataclass(frozen=True)
class Block:
    """One model, a group of its layers, every arm and seed: the unit of work.

    `missing` says why nothing can be measured: packages, weights or the corpus are not there.
    `published` has the numbers that published tables give its layers, of those that are in one.
    `data` says whether the corpus is real data or made data.
    """

    card: Card
    corpus: Corpus | None
    protocol: Protocol
    specs: tuple[Spec, ...]
    weights: Path | None
    limit: int | None
    missing: tuple[ModelError, ...] = ()
    published: Mapping[int, int] = field(default_factory=dict)
    data: DataKind | None = None

    @property
    def error(self) -> ModelError | None:
        """The first of what is missing."""
        return next(iter(self.missing), None)

    def only(self, specs: Iterable[Spec]) -> Block:
        """The block with some of its cells."""
        return replace(self, specs=tuple(specs))

    def halves(self) -> tuple[Block, Block] | None:
        """The block in two, by layers if it has several, else by cells; None for one cell."""
        layers = self.layers
        if len(layers) > 1:
            chosen = [spec for spec in self.specs if spec.layer < layers[len(layers) // 2]]
        else:
            chosen = list(self.specs[: len(self.specs) // 2])
        if not chosen:
            return None
        taken = {spec.hash for spec in chosen}
        return self.only(chosen), self.only(s for s in self.specs if s.hash not in taken)

    @property
    def layers(self) -> list[int]:
        return sorted({spec.layer for spec in self.specs})

    @property
    def depth(self) -> int:
        """Blocks of the model that are read: up to the deepest layer."""
        return max(self.layers) + 1

    @property
    def tokens(self) -> int:
        """Tokens of the evaluation sample."""
        return min(self.protocol.N, self.limit or self.protocol.N)

    @property
    def fit_tokens(self) -> int:
        """Tokens that center, scale and whitening are fitted on: of a trial no more than N."""
        asked = self.protocol.fit_tokens or self.protocol.N
        return asked if self.limit is None else min(asked, self.tokens)

    @property
    def data_seed(self) -> int:
        """What decides the order of the corpus: the cells' own, where seeds vary the data."""
        own = self.specs[0].seed if self.protocol.seeds_vary == "init+data" else 0
        return (self.protocol.data_seed + own) % 2**63

    @property
    def steps(self) -> int:
        """Training steps."""
        limit = self.limit or self.protocol.steps * self.protocol.batch
        return min(self.protocol.steps, -(-limit // self.protocol.batch))

    @property
    def one_thread(self) -> bool:
        """Whether matrices are so small that handing work around costs more than it saves.

        Decided by the sizes alone: a layer measured by itself must run as beside others.
        """
        return self.protocol.n * self.card.tap.width < _ONE_THREAD_BELOW

    @property
    def memory(self) -> int:
        """Estimated peak memory in bytes, on the CPU."""
        return self.memory_on(card=False)

    def memory_on(self, *, card: bool) -> int:
        """Estimated peak memory in bytes, on a graphics card or on the CPU."""
        return block_memory(
            self.card,
            self.protocol,
            depth=self.depth,
            tokens=self.tokens,
            layers=len(self.layers),
            cells=len(self.specs),
            on_card=card,
        )

    def processes_needed(self, capacity: int) -> int | None:
        """How many must divide a dictionary's rows, so that one SAE of the block fits devices of
        so many bytes; None where no number does, as the rest is too large."""
        needed = 1
        while needed <= min(_MOST_PROCESSES, self.protocol.n):
            if self._shared(needed, layers=1, cells=1) <= capacity:
                return needed
            needed += 1
        return None

    def fitting_processes(self, processes: int, capacity: int) -> list[Block]:
        """The block in parts, each of which fits so many devices of so many bytes that divide its
        dictionaries' rows, as far as it can be divided."""
        own = self._shared(processes, layers=len(self.layers), cells=len(self.specs))
        halves = self.halves() if own > capacity else None
        if halves is None:
            return [self]
        return [part for half in halves for part in half.fitting_processes(processes, capacity)]

    def _shared(self, processes: int, *, layers: int, cells: int) -> int:
        return shared_memory(
            self.card,
            self.protocol,
            depth=self.depth,
            tokens=self.tokens,
            processes=processes,
            layers=layers,
            cells=cells,
        )


def make_plan(request: Request, registry: Registry) -> list[Block]:
    """Blocks in the order of the cards; those that cannot be run carry the error.

    Raises:
        UsageError: no chosen model has a layer asked for, one corpus or one weights folder was
            given for several models, or an option means nothing for a model.
    """
    cards = list(request.cards)
    if request.weights is not None and len(cards) != 1:
        raise UsageError(
            f"--weights names one checkpoint, but {len(cards)} models are chosen",
            "Choose one with --model.",
        )
    if request.weights is not None and cards[0].checkpoint.source == "none":
        raise UsageError(
            f"--weights: model {cards[0].id!r} has none, its activations are made",
            "Leave --weights out.",
        )
    if request.corpus.source is not None and len({card.domain for card in cards}) != 1:
        raise UsageError(
            "--corpus names one corpus, but models of several domains are chosen",
            "Choose one with --domain.",
        )
    _check_layers(cards, request.layers)
    blocks: list[Block] = []
    for card in cards:
        every = request.suite.layers_of(card) if request.suite else card.layers
        asked = every if request.layers is None else request.layers
        layers = sorted({number for number in asked if number in card.layers})
        if layers:
            blocks += _blocks(card, layers, request, registry)
    return blocks


def _check_layers(cards: Sequence[Card], layers: Sequence[int] | None) -> None:
    for layer in layers or ():
        if not any(layer in card.layers for card in cards):
            deepest = max(card.layers[-1] for card in cards)
            raise UsageError(
                f"no chosen model has a layer {layer}", f"There are layers 0 to {deepest}."
            )


def _blocks(card: Card, layers: list[int], request: Request, registry: Registry) -> list[Block]:
    missing: list[ModelError] = []
    missing += filter(None, (lacking(card), unpinned_code(card, request.weights)))
    weights = fingerprint = ABSENT
    corpus: Corpus | None = None
    try:
        card = card if request.weights else pinned(card)
        weights = weights_identity(card, request.weights)
    except ModelError as error:
        missing.append(error)
    try:
        corpus = request.corpus.open(card, registry)
        fingerprint = corpus.fingerprint()
    except ModelError as error:
        missing.append(error)
    common: dict[str, Any] = {
        "metric_version": METRIC_VERSION,
        "model": card.id,
        "domain": card.domain,
        "weights": weights,
        "corpus": corpus.name if corpus else request.corpus.name(card, registry),
        "corpus_fingerprint": fingerprint,
        "card": card.model_dump(
            mode="json",
            include={"adapter", "tap", "tokens", "context", "options"},
            exclude_none=True,
        ),
        "limit": request.limit,
        "protocol": request.protocol.measurement(),
    }
    seeds = request.protocol.seeds
    # One stream feeds a block: where seeds vary the data, each has blocks of its own.
    streams = [seeds] if request.protocol.seeds_vary == "init" else [(seed,) for seed in seeds]
    # Cells of a block take the same steps.
    trainings = request.protocol.trainings()
    return [
        Block(
            card=card,
            corpus=corpus,
            protocol=protocol,
            specs=tuple(
                Spec(**common, layer=layer, arm=arm, seed=seed)
                for layer in group
                for arm in protocol.arms
                for seed in stream
            ),
            weights=request.weights,
            limit=request.limit,
            missing=tuple(missing),
            published=registry.published_layers(card),
            data=data_of(card, request.corpus.card(card, registry)),
        )
        for stream in streams
        for protocol in trainings
        for group in _groups(card, layers, request, protocol, seeds=len(stream))
    ]


def _groups(
    card: Card, layers: list[int], request: Request, protocol: Protocol, *, seeds: int
) -> list[list[int]]:
    """The layers in groups that fit memory, with so many seeds. How they are grouped changes no
    number."""
    tokens = min(protocol.N, request.limit or protocol.N)
    depth = max(layers) + 1
    cells = len(protocol.arms) * seeds

    def needed(layers: int, cells: int) -> int:
        return block_memory(
            card,
            protocol,
            depth=depth,
            tokens=tokens,
            layers=layers,
            cells=cells,
            on_card=request.on_card,
        )

    per_layer = needed(2, 2 * cells) - needed(1, cells)
    fixed = needed(1, cells) - per_layer
    budget = request.memory or available_memory()
    size = max(1, (budget - fixed) // per_layer)
    return [layers[start : start + size] for start in range(0, len(layers), size)]


def fitting(block: Block, request: Request) -> list[Block]:
    """The block in groups of its layers that fit the request's memory."""
    # Of a half of a layer's cells there are fewer than the protocol says.
    seeds = -(-len(block.specs) // (len(block.layers) * len(block.protocol.arms)))
    groups = _groups(block.card, block.layers, request, block.protocol, seeds=seeds)
    return [block.only(spec for spec in block.specs if spec.layer in group) for group in groups]


def available_memory() -> int:
    """Bytes that a block may take: 70 % of what the system says is available now."""
    import psutil

    return int(psutil.virtual_memory().available * 0.7)
