"""One stream of activations for a block: two samples, then shuffled batches.

In the order of the seed, the first examples of the corpus are evaluated, the next ones are what
center, scale and whitening are fitted on, and the rest is trained on. Tokens of one example are
alike, so that N tokens in a row are few draws: a sample is a uniform draw out of four times as many
tokens, or out of fewer where these take more than a quarter of a finite corpus to evaluate or more
than an eighth to fit; at least out of as many as it takes. A corpus that has no examples to spare
for fitting is fitted on the evaluation sample, which is said.

Everything here can be left at any row and resumed there: a `StreamPosition` says where it is in the
corpus, and the shuffling buffer gives and takes its state.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adapters import Adapter
from adapters.tokens import check_known
from adapters.windows import Preparation
from bench.activations.refill import StreamPosition, row_count
from bench.activations.shuffle import Shuffled
from bench.compute.out_of_memory import free_memory, is_out_of_memory, release_memory
from bench.compute.profiling import mark
from bench.plan.protocol import Protocol
from bench.statistics.reservoir import Reservoir
from zoo.cards import TokenRule
from zoo.corpora import Corpus, FiniteCorpus
from zoo.errors import BadCorpus

# Examples of an endless corpus without a single token, after which there is no hope of one.
_PATIENCE = 100_000

# A sample is drawn out of so many times its tokens.
_SPREAD = 4

# It takes no more than this part of a finite corpus for that, unless it needs more to be whole.
_EVALUATED, _FITTED = 1 / 4, 1 / 8

Notify = Callable[[str], None]


class ActivationStream:
    """The activations of some layers of one model on one corpus.

    Nothing here depends on which layers are asked for, only on the protocol: a layer measured
    alone sees the very same tokens in the same order as beside others.

    Attributes:
        workers: threads that read and tokenise ahead of the model; with any, the model works
            ahead of the training too. No number depends on it.
        batch_size: windows per batch.
        windows_per_pass: the most windows of a forward pass: all of them, until the device runs out
            of memory; then it is halved, for good.
        evaluated_examples: examples that the evaluation sample is drawn from.
        fitted_examples: the next ones, which transforms are fitted on. Neither is trained on.
        unknown_share: of the tokens that the sample is drawn from, the share that the model does
            not know; None where there is no such thing, or before there is a sample.
    """

    def __init__(
        self,
        adapter: Adapter,
        corpus: Corpus,
        layers: Sequence[int],
        protocol: Protocol,
        notify: Notify = lambda text: None,
        workers: int = 0,
    ) -> None:
        self.adapter = adapter
        self._given = corpus
        self.corpus = examples_of(adapter, corpus)
        self.layers = list(layers)
        self.protocol = protocol
        self.notify = notify
        self.workers = workers
        self.batch_size = max(1, protocol.forward_tokens // adapter.card.context)
        self.windows_per_pass = self.batch_size
        self.evaluated_examples = self.fitted_examples = 0
        self.unknown_share: float | None = None

    def sample(self, tokens: int) -> dict[int, Tensor]:
        """The evaluation sample, by layer, as float32 [tokens, width], in the corpus's order.

        Raises:
            BadCorpus: the corpus has fewer tokens, or the model does not know most of them.
        """
        drawn = self.draw(tokens)
        if drawn.seen < tokens:
            raise BadCorpus(
                f"corpus {self.corpus.name!r} gives {drawn.seen} token{'s' * (drawn.seen != 1)} "
                f"of the {tokens} asked for",
                _remedy(drawn, trains=self.protocol.steps > 0),
            )
        if drawn.unknown is not None:
            what = f"corpus {self.corpus.name!r}"
            self.unknown_share = check_known(drawn.unknown, drawn.read, what)
        self.evaluated_examples = drawn.examples
        return drawn.rows()

    def draw(self, tokens: int) -> Drawn:
        """What `sample` takes, or fewer tokens where the corpus has no more."""
        everything = self._examples
        enough = 0 if everything is None else math.ceil(_EVALUATED * everything)
        return _draw(self.unshuffled(), tokens, self, enough)

    def fit_sample(self, tokens: int) -> dict[int, Tensor] | None:
        """Tokens to fit transforms on, as `sample`, of examples after the evaluation sample's.

        None where that would take more than half of the examples that are left.
        """
        self.fitted_examples = 0
        everything, skip = self._examples, self.evaluated_examples
        left = None if everything is None else everything - skip
        if left is not None and left < 2:
            return None
        enough = 0 if everything is None else math.ceil(_FITTED * everything)
        most = None if left is None else left // 2
        drawn = _draw(self._rest(most), tokens, self, enough)
        if drawn.seen < tokens or (most is not None and drawn.examples > most):
            return None
        self.fitted_examples = drawn.examples
        return drawn.rows()

    @property
    def _examples(self) -> int | None:
        """How many there are; None where there is no end to them."""
        return len(self.corpus.items) if isinstance(self.corpus, FiniteCorpus) else None

    def unshuffled(self) -> CorpusRows:
        """The activations of the corpus from its beginning."""
        seed = self.protocol.data_seed
        return CorpusRows(
            self,
            lambda start: self.corpus.drawn(seed, start),
            patience=self._patience(0),
        )

    def training(self) -> CorpusRows:
        """The activations after the examples of both samples, without end."""
        seed, skip = self.protocol.data_seed, self.evaluated_examples + self.fitted_examples
        return CorpusRows(
            self,
            lambda start: self.corpus.drawn_for_training(seed, skip, start),
            patience=self._patience(skip),
            once=lambda: None if self.corpus.count is None else self.corpus.count - skip,
        )

    def _rest(self, most: int | None) -> CorpusRows:
        """The activations of so many examples after the evaluation sample's."""
        seed, skip = self.protocol.data_seed, self.evaluated_examples
        return CorpusRows(
            self,
            lambda start: itertools.islice(
                self.corpus.drawn(seed, skip + start), None if most is None else most - start
            ),
            patience=self._patience(skip),
        )

    def only(self, layers: Sequence[int]) -> ActivationStream:
        """The same stream of some of the layers, from its beginning."""
        return self._twin(self.adapter, layers)

    def measuring(self, rule: TokenRule, layers: Sequence[int]) -> ActivationStream:
        """The same stream of some of the layers, of the tokens that another rule measures."""
        twin = self._twin(self.adapter.measuring(rule), layers)
        twin.windows_per_pass = self.windows_per_pass
        return twin

    def _twin(self, adapter: Adapter, layers: Sequence[int]) -> ActivationStream:
        return ActivationStream(
            adapter, self._given, layers, self.protocol, self.notify, self.workers
        )

    def shuffled(self, batch: int) -> Shuffled:
        """Batches of `batch` tokens, none of an evaluation example, from a shuffling buffer."""
        protocol, device = self.protocol, self.adapter.device
        return Shuffled(
            self.training(),
            self.buffer(),
            batch,
            protocol.data_seed,
            self.corpus,
            device=device,
            ahead=self.workers > 0 and not passes_alone(protocol, device),
        )

    def buffer(self) -> dict[int, Tensor]:
        """Memory for the shuffling buffer, [tokens, width] by layer, in the protocol's dtype.

        It is the device's, unless it would take more than half of what is free there; then it is
        the host's, which is noted.
        """
        protocol, device = self.protocol, self.adapter.device
        dtype = getattr(torch, protocol.buffer_dtype)
        shape = (protocol.buffer, self.adapter.card.tap.width)
        size = len(self.layers) * math.prod(shape) * dtype.itemsize
        free = free_memory(device)
        if free is None or size <= free // 2:
            return {layer: torch.empty(shape, dtype=dtype, device=device) for layer in self.layers}
        self.notify(
            f"the shuffling buffer is in the host's memory ({size / 2**30:.1f} GiB of "
            f"{protocol.buffer_dtype}; {free / 2**30:.1f} GiB are free on the device)"
        )
        # Pinned, so that batches go to the device while it computes.
        return {
            layer: torch.empty(shape, dtype=dtype, pin_memory=device.type == "cuda")
            for layer in self.layers
        }

    def empty(self, tokens: int) -> dict[int, Tensor]:
        """Uninitialised float32 [tokens, width] by layer, on the adapter's device."""
        shape = (tokens, self.adapter.card.tap.width)
        device = self.adapter.device
        return {
            layer: torch.empty(shape, dtype=torch.float32, device=device) for layer in self.layers
        }

    def _patience(self, skip: int) -> int:
        """Examples without a token that mean that no token will come.

        A forward pass waits for `batch_size` windows, and a whole pass over a finite corpus may
        give as few as one.
        """
        if not isinstance(self.corpus, FiniteCorpus):
            return _PATIENCE
        return (len(self.corpus.items) - skip) * (self.batch_size + 1)


@dataclass(frozen=True)
class Drawn:
    """A sample drawn from so many tokens and examples.

    spared: tokens that were seen when a batch last ended before the last example of all.
    unknown: of the tokens `read` for it, those that the model does not know.
    """

    reservoirs: dict[int, Reservoir]
    seen: int
    examples: int
    spared: int
    read: int
    unknown: int | None

    def rows(self) -> dict[int, Tensor]:
        """The rows by layer, once: a layer at a time, as two copies of it are held meanwhile."""
        if not self.seen:
            return {}
        return {layer: self.reservoirs.pop(layer).rows() for layer in list(self.reservoirs)}


def passes_alone(protocol: Protocol, device: torch.device) -> bool:
    """Whether the model must not pass beside training steps: a card's setting for products in TF32
    is of all threads, so a model in float32 would have it too."""
    in_tf32 = protocol.precision == "tf32" and protocol.dtype == "float32"
    return in_tf32 and device.type == "cuda"


def _remedy(drawn: Drawn, *, trains: bool) -> str:
    """What helps where a corpus has fewer tokens than a sample takes."""
    # A sample stops at the end of a batch, and so many are drawn out of those spared at most.
    if (smaller := drawn.spared // _SPREAD if trains else drawn.seen) >= 2:
        return f"Give a longer corpus, or a smaller sample with --set N={smaller}."
    why = ": training takes others than the sample, which takes whole batches" if trains else ""
    return f"Give more examples{why}."


def _draw(source: CorpusRows, tokens: int, stream: ActivationStream, enough: int) -> Drawn:
    """Draws `tokens` tokens out of `_SPREAD` times as many, or out of those of `enough` examples,
    or of a few more: it stops where a batch does, whatever the size of a forward pass."""
    width, seed = stream.adapter.card.tap.width, stream.protocol.data_seed
    # One seed: the same tokens are kept in every layer.
    found = {layer: Reservoir(width, capacity=tokens, seed=seed) for layer in stream.layers}
    seen = 0
    ends = []  # of chunks: examples, where it is a batch's end too, and rows
    with closing(source):
        for chunk in source.take(_SPREAD * tokens):
            seen += row_count(chunk)
            for layer, x in chunk.items():
                found[layer].update(x)
            read = source.examples_between_batches
            ends.append((read, seen))
            if enough and seen >= tokens and read is not None and read >= enough:
                break
        examples = source.examples_read()
    spared = max((rows for end, rows in ends if end is not None and end < examples), default=0)
    return Drawn(found, seen, examples, spared, source.rows_read, source.unknown)


class CorpusRows:
    """Rows of activations in the order of a corpus, taken in any number.

    Args:
        stream: the model, the layers and the size of a forward pass.
        examples: what the corpus draws, from the given number of an example on.
        patience: examples in a row without a token after which `BadCorpus` is raised.
        once: examples that are all there are: those after them were there before. None as long as
            that is not known, or for ever.

    Attributes:
        first_pass: rows taken so far that are of the first `once` examples.
    """

    def __init__(
        self,
        stream: ActivationStream,
        examples: Callable[[int], Iterator[Any]],
        *,
        patience: int,
        once: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._stream = stream
        self._examples = examples
        self._patience = patience
        self._once = once
        self.first_pass = 0
        self._unproductive = 0  # examples since the last token
        self.rows_read = 0
        self.unknown: int | None = None  # of these rows
        self.go_to(StreamPosition())

    def go_to(self, place: StreamPosition) -> None:
        """Go on at `place`: what lies before its batch is not computed again."""
        stream = self._stream
        self._after = StreamPosition(place.example, place.window)
        self._used = 0  # rows used after that place
        self._to_skip = place.rows
        self._rest: dict[int, Tensor] = {}
        self._new = 0  # rows of the first pass among the rest
        self._end: StreamPosition | None = self._after
        self._batches = stream.adapter.activations(
            stream.layers,
            self._watched(self._examples(place.example)),
            batch_size=stream.batch_size,
            windows_per_pass=stream.windows_per_pass,
            start=place.window,
            how=Preparation(stream.corpus.read, stream.workers),
        )
        self._base = place.example

    def close(self) -> None:
        """Ends the threads that read ahead."""
        self._batches.close()

    @property
    def place(self) -> StreamPosition:
        """Where the next row comes from."""
        return StreamPosition(self._after.example, self._after.window, self._used + self._to_skip)

    @property
    def examples_between_batches(self) -> int | None:
        """Examples that went into the batches so far; None within a batch."""
        return None if self._rest or self._end is None else self._end.example + 1

    def examples_read(self) -> int:
        """Examples that went into the batches so far, the one under way included."""
        while self._end is None and self._next():
            pass
        end = self._end or self._after
        return end.example + 1

    def take(self, rows: int) -> Iterator[dict[int, Tensor]]:
        """The next `rows` rows by layer, in pieces [*, width]; fewer where the examples end."""
        while rows:
            if not self._rest:
                if self._end is not None:
                    self._after, self._used = self._end, 0
                if not self._next():
                    return
                continue
            left = row_count(self._rest)
            count = min(rows, left, self._to_skip or left)
            piece = {layer: x[:count] for layer, x in self._rest.items()}
            whole = count == left
            self._rest = {} if whole else {layer: x[count:] for layer, x in self._rest.items()}
            self._used += count
            new = min(self._new, count)
            self._new -= new
            if self._to_skip:
                self._to_skip -= count
                continue
            rows -= count
            self.first_pass += new
            yield piece

    def _next(self) -> bool:
        """Takes in the next forward pass, at half the size after each time that memory ran out."""
        stream = self._stream
        while True:
            try:
                with mark("model"):
                    batch = next(self._batches, None)
                break
            except Exception as error:
                if not is_out_of_memory(error) or stream.windows_per_pass == 1:
                    raise
            # Raised inside a generator, which is over now: a new one goes on at the place.
            stream.windows_per_pass //= 2
            release_memory()
            stream.notify(
                f"out of memory in a forward pass; {stream.windows_per_pass} windows at a time now"
            )
            self.go_to(self.place)
        if batch is None:
            return False
        if len(batch):
            self._unproductive = 0
            # Rows before the place were counted when they were read for the first time.
            self.rows_read += max(0, len(batch) - self._to_skip)
            if batch.unknown is not None:
                self.unknown = (self.unknown or 0) + int(batch.unknown[self._to_skip :].sum())
        self._rest = batch.by_layer if len(batch) else {}
        self._new = len(batch)
        once = self._once()
        if once is not None:
            self._new = int((batch.example < once - self._base).sum())
        self._end = None
        if batch.end is not None:
            last, windows = batch.end
            self._end = StreamPosition(self._base + last, windows)
        return True

    def _watched(self, examples: Iterator[Any]) -> Iterator[Any]:
        self._unproductive = 0
        read_ahead = 2 * self._stream.batch_size if self._stream.workers else 0
        for example in examples:
            self._unproductive += 1
            if self._unproductive > self._patience + read_ahead:
                raise BadCorpus(
                    f"corpus {self._stream.corpus.name!r}: what is left after the evaluation "
                    "sample gives no tokens",
                    "Give a corpus whose examples are not empty under the card's token rule.",
                )
            yield example


def examples_of(adapter: Adapter, corpus: Corpus) -> Corpus:
    """The corpus, unless the model itself is a finite number of stored chunks."""
    chunks = getattr(adapter, "chunks", None)
    if chunks is None:
        return corpus
    return FiniteCorpus(adapter.card.id, "synthetic", lambda: list(range(chunks)))
