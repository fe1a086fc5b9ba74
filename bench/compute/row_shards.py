"""One dictionary over several processes, each of which holds some of its rows.

A dictionary of n features of width d that is larger than a device is divided by its rows: a process
has the rows of its own features in the encoder, the decoder, their gradients and Adam's moments,
nothing of the others'. What is small is everywhere and the same to the bit: the activations, the
decoder bias, the reconstruction (a sum of partial ones), and numbers per feature such as who is
dead and when each fired.

The code of a training step, a census or a measure of quality asks the functions of this file for
what concerns all features. Without a shard (`row_shard`) each gives back what it was given, so
that an SAE of one process is computed as ever. All processes must call the same functions in the
same order, with tensors of the same shapes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn.functional import pad

# Elements drawn at once, of which a process keeps its own rows: 64 MiB.
_DRAWN_AT_ONCE = 2**24

# torch's generator of a CPU fills blocks of so many elements: draws divided there are the same.
_BLOCK = 16


class Processes:
    """The processes that a launcher has started, this one being `index` of `of`.

    Tensors go through torch's default group, or through one for the host where they are on the CPU
    and the default one is for devices.

    Args:
        patience: how long one waits for the others.
    """

    def __init__(self, patience: timedelta) -> None:
        self.index, self.of = dist.get_rank(), dist.get_world_size()
        self._host = dist.new_group(backend="gloo", timeout=patience)

    @classmethod
    def launched(cls, patience: timedelta) -> Processes | None:
        """Those of torch's default group; None where this process is by itself."""
        several = dist.is_initialized() and dist.get_world_size() > 1
        return cls(patience) if several else None

    @property
    def leads(self) -> bool:
        """Whether this is the first."""
        return self.index == 0

    def summed(self, x: Tensor) -> Tensor:
        """The sum of every process's x, in place; the same bits in all."""
        dist.all_reduce(x, group=self._group(x))
        return x

    def maximum(self, x: Tensor) -> Tensor:
        """The same of the largest."""
        dist.all_reduce(x, dist.ReduceOp.MAX, group=self._group(x))
        return x

    def each(self, x: Tensor) -> list[Tensor]:
        """Every process's x, all of one shape, in their order."""
        found = [torch.empty_like(x) for _ in range(self.of)]
        dist.all_gather(found, x.contiguous(), group=self._group(x))
        return found

    def same(self, x: Tensor, source: int = 0) -> Tensor:
        """One process's x, in the place of everyone's."""
        dist.broadcast(x, source, group=self._group(x))
        return x

    def same_layers(self, by_layer: dict[int, Tensor]) -> dict[int, Tensor]:
        """The first process's tensors by layer, in the place of everyone's: a model's forward pass
        need not have the same bits in all."""
        return {layer: self.same(x.contiguous()) for layer, x in by_layer.items()}

    def any(self, flag: bool) -> bool:
        """Whether it is true in one of them. The host waits for the hosts, no device does."""
        return bool(self.maximum(torch.tensor(int(flag))))

    def told(self, value: Any) -> Any:
        """The first process's value."""
        box = [value]
        dist.broadcast_object_list(box, 0, group=self._host)
        return box[0]

    def wait(self) -> None:
        """Until all are here."""
        dist.barrier(group=self._host)

    def rows(self, n: int) -> RowShard:
        """This process's part of a dictionary of n features."""
        return RowShard(self, n)

    def _group(self, x: Tensor) -> dist.ProcessGroup | None:
        return self._host if x.device.type == "cpu" else None


class RowShard:
    """Which of a dictionary's n rows a process holds: `start` to `stop`.

    Raises:
        ValueError: there are fewer features than processes.
    """

    def __init__(self, processes: Processes, n: int) -> None:
        if n < processes.of:
            raise ValueError(f"{n} features cannot be divided over {processes.of} processes")
        self.processes, self.n = processes, n
        self.bounds = [n * i // processes.of for i in range(processes.of + 1)]
        self.start, self.stop = self.bounds[processes.index : processes.index + 2]
        self.largest = -(-n // processes.of)  # rows that one process holds at most

    @property
    def rows(self) -> slice:
        """Of what is [n, ...] the own part."""
        return slice(self.start, self.stop)

    def collected(self, x: Tensor) -> Tensor | None:
        """All rows [n, ...] of what is [own rows, ...], on the CPU of the first process.

        None in the others. The device holds one process's rows at a time.
        """
        parts = [part.cpu() for part in in_turn(x, self) if self.processes.leads]
        return torch.cat(parts) if self.processes.leads else None


_current: ContextVar[RowShard | None] = ContextVar("row_shard", default=None)


@contextmanager
def row_shard(shard: RowShard | None) -> Iterator[None]:
    """Within this the dictionary at hand is the shard's part; None: it is whole."""
    token = _current.set(shard)
    try:
        yield
    finally:
        _current.reset(token)


def current_shard() -> RowShard | None:
    """What `row_shard` has set."""
    return _current.get()


def whole(rows: int) -> int:
    """The features of the dictionary of which `rows` are here."""
    shard = _current.get()
    return rows if shard is None else shard.n


def most_rows(rows: int) -> int:
    """The features that any process holds at most, where `rows` are here."""
    shard = _current.get()
    return rows if shard is None else shard.largest


def summed(partial: Tensor) -> Tensor:
    """The sum over all shards of what each has a part of, in place."""
    shard = _current.get()
    return partial if shard is None else shard.processes.summed(partial)


def maximum(partial: Tensor) -> Tensor:
    """The largest over all shards, elementwise, in place."""
    shard = _current.get()
    return partial if shard is None else shard.processes.maximum(partial)


def norm(x: Tensor) -> Tensor:
    """The Euclidean norm of a tensor of which each shard has its rows, a scalar."""
    own = torch.linalg.vector_norm(x)
    return own if _current.get() is None else summed(own.square()).sqrt_()


def anywhere(flags: Tensor) -> Tensor:
    """Bool of any shape: whether a flag is set in one of the shards."""
    return flags if _current.get() is None else maximum(flags.to(torch.uint8)).bool()


def every_feature(x: Tensor) -> Tensor:
    """Numbers per feature of all shards, [n, ...], of the own ones [rows, ...]."""
    shard = _current.get()
    if shard is None:
        return x
    kind = x.dtype
    own = x.to(torch.uint8) if kind == torch.bool else x
    padded = own.new_zeros((shard.largest, *own.shape[1:]))
    padded[: len(own)] = own
    sizes = [stop - start for start, stop in pairwise(shard.bounds)]
    every = zip(shard.processes.each(padded), sizes, strict=True)
    return torch.cat([part[:size] for part, size in every]).to(kind)


def together(values: Tensor, columns: int) -> Tensor:
    """The columns of all shards beside each other.

    values: [..., up to `columns`] of this one. Without shards they are given back; else each has
    `columns`, filled up with -inf.
    """
    shard = _current.get()
    if shard is None:
        return values
    filled = pad(values, (0, columns - values.shape[-1]), value=-torch.inf)
    return torch.cat(shard.processes.each(filled), dim=-1)


def among_largest(values: Tensor, k: int) -> Tensor:
    """Which of this shard's values are among the k largest of all shards' in their row, bool.

    values: [rows, m], the own k largest or all there are. Of values that are equal at the k-th
    place, those of the first shards. Without shards all are.
    """
    shard = _current.get()
    if shard is None:
        return torch.ones_like(values, dtype=torch.bool)
    columns = min(k, shard.largest)
    every = together(values, columns)
    # A stable sort: which of equal values come first is the same in every process.
    chosen = every.sort(dim=1, descending=True, stable=True).indices[:, :k]
    mask = torch.zeros_like(every, dtype=torch.bool).scatter_(1, chosen, True)
    first = shard.processes.index * columns
    return mask[:, first : first + values.shape[1]]


def in_turn(x: Tensor, shard: RowShard | None = None) -> Iterator[Tensor]:
    """Each shard's x, which differ in their number of rows [*, ...]; without shards x."""
    shard = shard or _current.get()
    if shard is None:
        yield x
        return
    processes = shard.processes
    sizes = torch.cat(processes.each(torch.tensor([len(x)]))).tolist()
    for source, size in enumerate(sizes):
        own = source == processes.index
        yield processes.same(x.contiguous() if own else x.new_empty((size, *x.shape[1:])), source)


def counted(count: int) -> int:
    """The sum of a number that each shard has."""
    return count if _current.get() is None else int(summed(torch.tensor(count)))


def normal_rows(
    n: int, width: int, generator: torch.Generator, shard: RowShard | None = None
) -> Tensor:
    """Standard normal [n, width] of a CPU generator; of a shard its rows of the same draws."""
    if shard is None:
        return torch.randn(n, width, generator=generator)
    kept = torch.empty(shard.stop - shard.start, width)
    step = max(1, _DRAWN_AT_ONCE // width // _BLOCK) * _BLOCK
    first = 0
    while first < n:
        last = first + step
        if (n - last) * width < _BLOCK:  # too few for a block of their own
            last = n
        drawn = torch.randn(last - first, width, generator=generator)
        start, stop = max(first, shard.start), min(last, shard.stop)
        if start < stop:
            kept[start - shard.start : stop - shard.start] = drawn[start - first : stop - first]
        first = last
    return kept
