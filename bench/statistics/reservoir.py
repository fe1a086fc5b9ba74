"""A bounded, reproducible sample of a stream of tokens."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from zoo.errors import BadActivations


class Reservoir:
    """A uniform sample, without replacement, of at most `capacity` tokens of a stream.

    Which tokens are kept depends only on the seed and on each token's index in the stream, not on
    how it was batched: every index has a pseudo-random key, and the smallest keys stay. Tokens are
    kept in the least dtype that holds all that were offered, without rounding.

    Raises:
        ValueError: `capacity` is less than 1.
    """

    def __init__(self, width: int, *, capacity: int, seed: int = 0) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be >= 1, not {capacity}")
        self.width = width
        self.capacity = capacity
        self.seed = seed
        self.seen = 0
        self._keys = np.empty(0, dtype=np.uint64)
        self._index = np.empty(0, dtype=np.int64)
        self._store: Tensor | None = None

    def __len__(self) -> int:
        return len(self._keys)

    def update(self, x: Tensor) -> None:
        """Offer tokens x [tokens, width]."""
        index = np.arange(self.seen, self.seen + x.shape[0], dtype=np.int64)
        keys = _keys(index, self.seed)
        self.seen += x.shape[0]
        room = self.capacity - len(self)
        if room > 0:
            self._append(x[:room], index[:room], keys[:room])
        if x.shape[0] > room:
            self._replace(x[room:], index[room:], keys[room:])

    def rows(self) -> Tensor:
        """The kept tokens, [kept, width], in stream order. Raises BadActivations if none is."""
        if self._store is None or not len(self):
            raise BadActivations("no tokens", "A sample needs at least one token.")
        order = torch.from_numpy(np.argsort(self._index))
        return self._store[order.to(self._store.device)]

    def _append(self, x: Tensor, index: np.ndarray, keys: np.ndarray) -> None:
        before, after = len(self), len(self) + x.shape[0]
        if self._store is None:
            self._store = x.new_empty(after, self.width)
        self._widen(x)
        if after > self._store.shape[0]:
            # Doubled, so that a long stream of small batches is not copied over and over.
            store = self._store.new_empty(min(self.capacity, 2 * after), self.width)
            store[:before] = self._store[:before]
            self._store = store
        self._store[before:after] = x
        self._index = np.concatenate([self._index, index])
        self._keys = np.concatenate([self._keys, keys])

    def _widen(self, x: Tensor) -> None:
        """Makes the store hold the values of x, and its own, as they are."""
        assert self._store is not None
        self._store = self._store.to(torch.promote_types(self._store.dtype, x.dtype))

    def _replace(self, x: Tensor, index: np.ndarray, keys: np.ndarray) -> None:
        """Let newcomers with small keys take the places of those with the largest."""
        self._widen(x)
        assert self._store is not None
        near = np.flatnonzero(keys < self._keys.max())
        order = np.argsort(np.concatenate([self._keys, keys[near]]))
        stays = np.zeros(len(order), dtype=bool)
        stays[order[: self.capacity]] = True
        slots = np.flatnonzero(~stays[: self.capacity])
        enters = near[stays[self.capacity :]]
        places = torch.from_numpy(slots).to(self._store.device)
        self._store[places] = x[torch.from_numpy(enters).to(x.device)].to(self._store)
        self._index[slots], self._keys[slots] = index[enters], keys[enters]


def _keys(index: np.ndarray, seed: int) -> np.ndarray:
    """A pseudo-random uint64 per index: SplitMix64 (Steele, Lea, Flood 2014), without repeats."""
    offset = np.uint64(seed * 0xD1342543DE82EF95 % 2**64)
    z = index.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + offset
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
