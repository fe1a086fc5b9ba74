"""A corpus whose examples can be counted. No torch."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from zoo.corpus import Corpus, none_left
from zoo.errors import BadCorpus
from zoo.texts import Examples


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


def _order(count: int, seed: int, epoch: int) -> list[int]:
    import numpy as np

    return np.random.default_rng([seed, epoch]).permutation(count).tolist()
