"""What a corpus is, and one whose examples can be counted. No torch."""

from __future__ import annotations

import functools
import hashlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from zoo.errors import BadCorpus
from zoo.texts import Examples


class Corpus(ABC):
    """A named stream of examples. `fingerprint` identifies its content."""

    def __init__(self, name: str, kind: str) -> None:
        self.name = name
        self.kind = kind
        # What the rules of reading did (`zoo.sequences`, `zoo.pictures`), once it has been read.
        self.notes: list[str] = []

    @abstractmethod
    def fingerprint(self) -> str:
        """`sha256:<hex>` that changes whenever the examples do."""

    def examples(self, seed: int, start: int = 0) -> Iterator[Any]:
        """The examples once, in the order of the seed, from number `start` on; may be endless."""
        return map(self.read, self.drawn(seed, start))

    def training(self, seed: int, skip: int, start: int = 0) -> Iterator[Any]:
        """Endless examples for training, without the first `skip` ones of `examples(seed)`.

        A finite corpus is repeated in a new order each time. `start` goes on at that number of
        the training examples, without reading those before it.

        Raises:
            BadCorpus: nothing is left after the first `skip` examples.
        """
        return map(self.read, self.drawn_for_training(seed, skip, start))

    @property
    def count(self) -> int | None:
        """How many examples there are; None where there is no end, or they were not read yet."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """What saves a run that goes on elsewhere from reading again."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027 (nothing, by default)
        """Takes what `state_dict` gave for the same content."""

    @abstractmethod
    def drawn(self, seed: int, start: int = 0) -> Iterator[Any]:
        """What `read` makes the examples of, as `examples`."""

    @abstractmethod
    def drawn_for_training(self, seed: int, skip: int, start: int = 0) -> Iterator[Any]:
        """What `read` makes the examples of, as `training`."""

    def read(self, item: Any) -> Any:
        """The example of an item: what takes time, and may be done in any thread."""
        return item


class FiniteCorpus(Corpus):
    """Examples that can be counted: `items` names them, `read` makes an example of an item."""

    def __init__(
        self,
        name: str,
        kind: str,
        items: Callable[[], list[Any] | Examples],
        read: Callable[[Any], Any] | None = None,
        *,
        fingerprint: str | None = None,
    ) -> None:
        super().__init__(name, kind)
        self._find = items
        self._read_item = read
        self._fingerprint = fingerprint

    def __getstate__(self) -> dict[str, Any]:
        # A process that a corpus is sent to reads the items itself.
        return {key: value for key, value in vars(self).items() if key != "items"}

    def read(self, item: Any) -> Any:
        return item if self._read_item is None else self._read_item(item)

    @functools.cached_property
    def items(self) -> list[Any]:
        found = self._find()
        if isinstance(found, Examples):
            self.notes = found.notes
        items = found.items if isinstance(found, Examples) else found
        if not items:
            raise BadCorpus(f"corpus {self.name!r} is empty", "Give one with examples in it.")
        return items

    @property
    def count(self) -> int:
        return len(self.items)

    def fingerprint(self) -> str:
        if self._fingerprint is not None:
            return self._fingerprint
        digest = hashlib.sha256()
        for item in self.items:
            content = item.read_bytes() if isinstance(item, Path) else str(item).encode()
            digest.update(len(content).to_bytes(8, "big") + content)
        return f"sha256:{digest.hexdigest()}"

    def drawn(self, seed: int, start: int = 0) -> Iterator[Any]:
        return (self.items[i] for i in _order(len(self.items), seed, epoch=0)[start:])

    def drawn_for_training(self, seed: int, skip: int, start: int = 0) -> Iterator[Any]:
        rest = _order(len(self.items), seed, epoch=0)[skip:]
        if not rest:
            raise none_left(self.name, len(self.items))
        first, start = divmod(start, len(rest))
        for epoch in itertools.count(first):
            order = range(len(rest)) if epoch == 0 else _order(len(rest), seed, epoch)
            for i in order[start:]:
                yield self.items[rest[i]]
            start = 0


def none_left(name: str, examples: int) -> BadCorpus:
    """Nothing is left to train on."""
    return BadCorpus(
        f"corpus {name!r} has {examples} examples, all of them needed for the "
        "evaluation sample; none is left to train on",
        "Give a longer corpus, a smaller sample with --set N=..., or, as a sample takes "
        "whole forward passes, fewer tokens in each with --set forward_tokens=...",
    )


def _order(count: int, seed: int, epoch: int) -> list[int]:
    import numpy as np

    return np.random.default_rng([seed, epoch]).permutation(count).tolist()
