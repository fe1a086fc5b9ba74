"""One stream of activations for a block: the frozen evaluation sample, then shuffled batches.

Everything here can be left at any row and resumed there: a `StreamPosition` says where it is in the
corpus, and the shuffling buffer gives and takes its state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from adapters import Adapter
from bench.activations.shuffle import Shuffled, StreamPosition, row_count
from bench.compute.out_of_memory import is_out_of_memory, release_memory
from bench.plan.protocol import Protocol
from zoo.cards import TokenRule
from zoo.corpora import Corpus, FiniteCorpus
from zoo.errors import BadCorpus

# Examples of an endless corpus without a single token, after which there is no hope of one.
_PATIENCE = 100_000

Notify = Callable[[str], None]


class ActivationStream:
    """The activations of some layers of one model on one corpus.

    Nothing here depends on which layers are asked for, only on the protocol: a layer measured
    alone sees the very same tokens in the same order as beside others.

    Attributes:
        batch_size: windows per batch.
        windows_per_pass: windows per forward pass: all of them, until the device runs out of
            memory; then it is halved, for good.
        sampled_examples: examples that the evaluation sample needed; none of them is trained on.
    """

    def __init__(
        self,
        adapter: Adapter,
        corpus: Corpus,
        layers: Sequence[int],
        protocol: Protocol,
        notify: Notify = lambda text: None,
    ) -> None:
        self.adapter = adapter
        self._given = corpus
        self.corpus = examples_of(adapter, corpus)
        self.layers = list(layers)
        self.protocol = protocol
        self.notify = notify
        self.batch_size = max(1, protocol.forward_tokens // adapter.card.context)
        self.windows_per_pass = self.batch_size
        self.sampled_examples = 0

    def sample(self, tokens: int) -> dict[int, Tensor]:
        """The first `tokens` tokens, by layer, as float32 [tokens, width].

        Raises:
            BadCorpus: the corpus has fewer tokens.
        """
        source = self.unshuffled()
        kept = self.empty(tokens)
        filled = 0
        for chunk in source.take(tokens):
            count = row_count(chunk)
            for layer, x in chunk.items():
                kept[layer][filled : filled + count] = x
            filled += count
        if filled < tokens:
            raise BadCorpus(
                f"corpus {self.corpus.name!r} gives {filled} tokens of the {tokens} asked for",
                f"Give a longer corpus, or a smaller sample with --set N={max(filled, 2)}.",
            )
        self.sampled_examples = source.examples_read()
        return kept

    def unshuffled(self) -> CorpusRows:
        """The activations of the corpus from its beginning."""
        seed = self.protocol.data_seed
        return CorpusRows(
            self,
            lambda start: _from(self.corpus.examples(seed), start),
            patience=self._patience(0),
        )

    def training(self) -> CorpusRows:
        """The activations after the evaluation sample's examples, without end."""
        seed, skip = self.protocol.data_seed, self.sampled_examples
        return CorpusRows(
            self,
            lambda start: self.corpus.training(seed, skip, start),
            patience=self._patience(skip),
        )

    def only(self, layers: Sequence[int]) -> ActivationStream:
        """The same stream of some of the layers, from its beginning."""
        return ActivationStream(self.adapter, self._given, layers, self.protocol, self.notify)

    def measuring(self, rule: TokenRule, layers: Sequence[int]) -> ActivationStream:
        """The same stream of some of the layers, of the tokens that another rule measures."""
        adapter = self.adapter.measuring(rule)
        twin = ActivationStream(adapter, self._given, layers, self.protocol, self.notify)
        twin.windows_per_pass = self.windows_per_pass
        return twin

    def shuffled(self, batch: int) -> Shuffled:
        """Batches of `batch` tokens, none of an evaluation example, from a shuffling buffer."""
        buffer = self.empty(self.protocol.buffer)
        return Shuffled(self.training(), buffer, batch, self.protocol.data_seed)

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


class CorpusRows:
    """Rows of activations in the order of a corpus, taken in any number.

    Args:
        stream: the model, the layers and the size of a forward pass.
        examples: the examples from the given number on.
        patience: examples in a row without a token after which `BadCorpus` is raised.
    """

    def __init__(
        self, stream: ActivationStream, examples: Callable[[int], Iterator[Any]], *, patience: int
    ) -> None:
        self._stream = stream
        self._examples = examples
        self._patience = patience
        self._unproductive = 0  # examples since the last token
        self.go_to(StreamPosition())

    def go_to(self, place: StreamPosition) -> None:
        """Go on at `place`: what lies before its batch is not computed again."""
        stream = self._stream
        self._after = StreamPosition(place.example, place.window)
        self._used = 0  # rows used after that place
        self._to_skip = place.rows
        self._rest: dict[int, Tensor] = {}
        self._end: StreamPosition | None = self._after
        self._batches = stream.adapter.activations(
            stream.layers,
            self._watched(self._examples(place.example)),
            batch_size=stream.batch_size,
            windows_per_pass=stream.windows_per_pass,
            start=place.window,
        )
        self._base = place.example

    @property
    def place(self) -> StreamPosition:
        """Where the next row comes from."""
        return StreamPosition(self._after.example, self._after.window, self._used + self._to_skip)

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
            if self._to_skip:
                self._to_skip -= count
                continue
            rows -= count
            yield piece

    def _next(self) -> bool:
        """Takes in the next forward pass, at half the size after each time that memory ran out."""
        stream = self._stream
        while True:
            try:
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
        self._rest = batch.by_layer if len(batch) else {}
        self._end = None
        if batch.end is not None:
            last, windows = batch.end
            self._end = StreamPosition(self._base + last, windows)
        return True

    def _watched(self, examples: Iterator[Any]) -> Iterator[Any]:
        self._unproductive = 0
        for example in examples:
            self._unproductive += 1
            if self._unproductive > self._patience:
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


def _from(examples: Iterator[Any], start: int) -> Iterator[Any]:
    for _ in range(start):
        next(examples, None)
    return examples
