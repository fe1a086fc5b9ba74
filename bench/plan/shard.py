"""`--shard i/n`: one of n shares of a run, for jobs that know nothing of each other.

Which blocks a share has follows from what was asked for alone. Jobs run at different times on
different machines, so that what is done, missing, or free of memory there must not count: the run
is cut as if memory had no end, and a job divides its own blocks by the memory that it finds.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from bench.plan.blocks import Block, Request, fitting, make_plan
from bench.plan.costs import block_seconds, deal
from bench.plan.devices import device_like
from zoo.errors import UsageError
from zoo.registry import Registry

# A finer cut pays where its largest share is below this part of the coarser one's.
_MUCH_SMALLER = 0.9

# A block is halved where the larger half costs at most this part of it.
_WORTH_HALVING = 0.75


@dataclass(frozen=True)
class RunShard:
    """Share `index`, from 0, of `of`."""

    index: int
    of: int

    @classmethod
    def read(cls, text: str) -> RunShard:
        """`0/4` is the first of four. Raises `UsageError` where the text is no share."""
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
        if found is None:
            raise UsageError(f"--shard {text!r} is not i/n", "For instance: --shard 0/4")
        index, of = map(int, found.groups())
        if index >= of:
            there_are = f"Of {of} shards the first is 0/{of}, the last {of - 1}/{of}."
            raise UsageError(
                f"--shard {text}: there is no such shard",
                there_are if of else "Divide the run into one shard at least: 0/1.",
            )
        return cls(index, of)

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

    def blocks(self, request: Request, registry: Registry) -> list[Block]:
        """The share's blocks, each of which fits the memory of the request.

        Raises:
            UsageError: as `make_plan`.
        """
        whole = make_plan(replace(request, memory=sys.maxsize), registry)
        own = divided(whole, self.of)[self.index]
        return [part for block in own for part in fitting(block, request)]


def cost(block: Block) -> int:
    """Microseconds of a block by the plan's cost model, done or not.

    On one kind of device, whatever there is here: shares must not depend on where they are made. To
    open a model is left out, which would keep small models whole in runs of seconds.
    """
    return round(1e6 * block_seconds(block, replace(device_like("cuda"), block=0.0)))


def divided(blocks: Sequence[Block], of: int) -> list[list[Block]]:
    """The cells of the blocks in `of` shares of about the same cost, some empty if there are few.

    A block that costs more than a share is halved; than half of one, or a quarter, only where that
    makes the largest share much smaller. Then each part, the most expensive first, goes to the
    share that has least so far; there those of one block are one again.
    """
    whole = sum(map(cost, blocks)) / of
    found: list[list[Block]] = []
    least = math.inf
    for cut in (1, 2, 4):
        # Two halves cost more than their whole: each reads the model.
        most = whole / cut / _MUCH_SMALLER
        parts = [part for block in blocks for part in _halved(block, most)]
        shares = [list(_joined(blocks, share)) for share in _dealt(parts, of)]
        largest = max(sum(map(cost, share)) for share in shares)
        if largest < _MUCH_SMALLER * least:
            found, least = shares, largest
    return found


def _joined(blocks: Sequence[Block], share: Sequence[Block]) -> Iterator[Block]:
    """A share's parts, those of one block as one, which reads its model once."""
    taken = {spec.hash for part in share for spec in part.specs}
    for block in blocks:
        if own := [spec for spec in block.specs if spec.hash in taken]:
            yield block.only(own)


def _dealt(parts: Sequence[Block], of: int) -> list[list[Block]]:
    shares = deal([cost(part) for part in parts], of)
    return [[parts[place] for place in sorted(share)] for share in shares]


def _halved(block: Block, most: float) -> list[Block]:
    """The block in parts of at most that cost, as far as halving lessens it: each half reads the
    model anew, up to its own deepest layer."""
    halves = block.halves() if cost(block) > most else None
    if halves is None or max(map(cost, halves)) > _WORTH_HALVING * cost(block):
        return [block]
    return [part for half in halves for part in _halved(half, most)]
