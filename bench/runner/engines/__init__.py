"""Where blocks run. The records are the same wherever that is.

    local        in this process, or in several processes of this machine (--workers)
    accelerate   one process per device, all started by `accelerate launch`; together where one
                 dictionary is larger than a device
    ray          on the machines of a Ray cluster

An engine turns blocks into records, in the order in which they are done. What goes wrong in one
block, even the end of its process, fails that block's cells and no others.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Literal, Protocol, get_args

from bench.plan.blocks import Block, available_memory
from bench.plan.costs import block_seconds, deal
from bench.plan.devices import device_like
from bench.records.schema import Failure, Record
from bench.runner.settings import BlockListener, Settings

EngineName = Literal["local", "accelerate", "ray"]
ENGINE_NAMES: tuple[EngineName, ...] = get_args(EngineName)


class Engine(Protocol):
    """What runs blocks.

    Attributes:
        leads: whether this process speaks for the run: it alone prints and writes the boards.
    """

    leads: bool

    def agree(self, blocks: list[Block]) -> list[Block]:
        """The blocks of the whole run, the same in every process of it."""

    def records(
        self, blocks: Sequence[Block], settings: Settings, progress: BlockListener
    ) -> Generator[Record, None, None]:
        """The records of those of the blocks that this process measures; closing it stops them."""

    def finish(self) -> None:
        """Waits until every process of the run is done."""


class Absent:
    """The models that could not be loaded for want of something: each is tried once."""

    def __init__(self) -> None:
        self._failures: dict[str, Failure] = {}

    def note(self, record: Record) -> None:
        """Looks at a record that was measured."""
        failure = record.failure
        if failure and failure.unavailable and not failure.is_elsewhere:
            self._failures[record.spec.model] = failure

    def records(self, block: Block) -> list[Record] | None:
        """The failures of a block whose model is known to be absent; None where it is not."""
        from bench.runner.block import failed_records

        failure = self._failures.get(block.card.id)
        return None if failure is None else list(failed_records(block, failure.error()))


def make_engine(name: EngineName, *, workers: int = 1, divide_rows: bool = False) -> Engine:
    """The engine of that name.

    divide_rows: of the accelerate engine: all blocks by all processes together.

    Raises:
        UsageError: Ray is not installed; rows are to be divided, and there is one process.
    """
    if name == "accelerate":
        from bench.runner.engines.accelerate import AccelerateEngine

        return AccelerateEngine(divide_rows=divide_rows)
    if name == "ray":
        from bench.runner.engines.ray import RayEngine

        return RayEngine()
    if workers > 1:
        from bench.runner.engines.workers import WorkersEngine

        return WorkersEngine(workers)
    from bench.runner.engines.local import LocalEngine

    return LocalEngine()


def auto_workers(blocks: Sequence[Block], device: str) -> int:
    """How many workers the local engine has by default: usually 1.

    On a CPU, blocks so small that each uses one thread have as many workers as there are threads,
    if that many blocks fit the memory that is free.
    """
    blocks = [block for block in blocks if block.error is None]
    if device != "cpu" or not _small(blocks):
        return 1
    import torch

    needs = sorted((block.memory for block in blocks), reverse=True)
    workers, free = min(torch.get_num_threads(), len(blocks)), available_memory()
    while workers > 1 and sum(needs[:workers]) > free:
        workers -= 1
    return max(1, workers)


def start_imports_early(blocks: Sequence[Block], workers: int | None, device: str) -> None:
    """Lets workers of the local engine begin their imports, if there will be any, as it seems.

    To find out for certain takes torch, and longer.
    """
    several = workers > 1 if workers is not None else len(blocks) > 1 and _small(blocks)
    if blocks and several and device in ("auto", "cpu"):
        from bench.runner.engines.workers import begin_imports

        begin_imports()


def _small(blocks: Sequence[Block]) -> bool:
    return all(block.one_thread for block in blocks)


def longest_first(blocks: Sequence[Block], device: str) -> list[Block]:
    """The blocks in the order in which several processes should begin them, by the plan's cost:
    what begins last then makes the others wait least."""
    like = device_like(device)
    return sorted(blocks, key=lambda block: block_seconds(block, like), reverse=True)


def dealt(blocks: Sequence[Block], processes: int, device: str) -> list[list[Block]]:
    """The blocks of each of so many processes: the longest first, each to who has least to do."""
    like = device_like(device)
    shares = deal([block_seconds(block, like) for block in blocks], processes)
    return [[blocks[place] for place in share] for share in shares]


def split_into(blocks: Sequence[Block], wanted: int, device: str = "cpu") -> list[Block]:
    """The same cells in at least `wanted` blocks, if they can be: the longest are split.

    Each part reads the model's activations again, which takes less time than an idle worker loses.
    """
    parts, like = list(blocks), device_like(device)
    while len(parts) < wanted:
        largest = max(parts, key=lambda block: block_seconds(block, like), default=None)
        halves = largest.halves() if largest is not None else None
        if largest is None or halves is None:
            return parts
        place = parts.index(largest)
        parts[place : place + 1] = halves
    return parts
