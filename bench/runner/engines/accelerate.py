"""Blocks in processes that `accelerate launch` or `torchrun` has started, one per device.

Every process runs the same command. The first one decides what the blocks are. A block whose one
SAE is larger than a device is measured by all processes together, each with its part of the rows of
every dictionary (`bench.compute.row_shards`); then each takes its share of the other blocks by the
plan's cost, writes its records, and waits for the others at the end.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from datetime import timedelta

from bench.plan.blocks import Block
from bench.records.schema import Record
from bench.runner.engines import dealt, split_into
from bench.runner.engines.local import LocalEngine
from bench.runner.settings import BlockListener, NoProgress, Settings
from zoo.errors import UsageError

# A process whose blocks are done waits for the slowest: longer than any run.
_PATIENCE = timedelta(days=365)

# Of a device's memory, what the driver and the libraries leave.
_FREE = 0.9


class AccelerateEngine(LocalEngine):
    """This process's share of a run; alone where it was not launched.

    Args:
        divide_rows: measure all blocks together, not only those that do not fit a device.

    Raises:
        UsageError: rows are to be divided, and there is one process.
    """

    def __init__(self, *, divide_rows: bool = False) -> None:
        import torch
        from accelerate import PartialState

        from bench.compute.row_shards import Processes

        self._state = PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENCE)
        self.leads = self._state.is_main_process
        self._processes = Processes.launched(_PATIENCE)
        if divide_rows and self._processes is None:
            raise UsageError(
                "--divide-rows: there is one process, which has all rows",
                "Start several: accelerate launch --num_processes 2 -m bench run ...",
            )
        self._divides_all = divide_rows
        self._together = 0  # of the run's blocks the first so many
        self._is_dealt = False

    def agree(self, blocks: list[Block]) -> list[Block]:
        """The first process's blocks: a later one may find other records and more free memory."""
        if self._processes is None:
            return blocks
        self._together, blocks = self._processes.told(self._planned(blocks, self._processes.of))
        return blocks

    def records(
        self, blocks: Sequence[Block], settings: Settings, progress: BlockListener
    ) -> Generator[Record, None, None]:
        """The records of this process's share of the blocks, on its device; of what is measured
        together, the first process's. Blocks that are given later are what it left of its share.

        Raises:
            UsageError: blocks are measured together, and the output is at a URL.
        """
        if self._together and settings.mirror is not None:
            raise UsageError(
                f"{settings.mirror}: processes that divide a dictionary's rows share their "
                "checkpoints in a folder",
                "Give a folder as --output DIR.",
            )
        if settings.device == "cuda":
            settings = replace(settings, device=str(self._state.device))
        own = settings if self.leads else replace(settings, cache=None, profile=None)
        shared = replace(own, processes=self._processes)
        heard = progress if self.leads else NoProgress()
        if self._together:
            count = f"{self._together} block{'s' * (self._together > 1)}"
            heard.note(f"all {self._state.num_processes} processes measure {count} together")
        for record in super().records(blocks[: self._together], shared, heard):
            if self.leads:
                yield record
        alone = blocks[self._together :]
        if not self._is_dealt:
            shares = dealt(alone, self._state.num_processes, settings.device)
            alone, self._is_dealt = shares[self._state.process_index], True
        yield from super().records(alone, settings, progress)

    def finish(self) -> None:
        """Until all are done."""
        self._state.wait_for_everyone()
        self._state.destroy_process_group()

    def _planned(self, blocks: list[Block], processes: int) -> tuple[int, list[Block]]:
        """The run's blocks, of which the first so many are measured by all processes together."""
        capacity = self._capacity()
        together: list[Block] = []
        for block in blocks:
            if block.error is None and self._divides(block, capacity):
                together += block.fitting_processes(processes, capacity) if capacity else [block]
        taken = {spec.hash for block in together for spec in block.specs}
        rest = [block for block in blocks if block.specs[0].hash not in taken]
        return len(together), [*together, *split_into(rest, processes)]

    def _divides(self, block: Block, capacity: int | None) -> bool:
        """Whether the block is for all processes together: where one SAE does not fit a device."""
        if self._divides_all:
            return True
        return capacity is not None and block.processes_needed(capacity) not in (1, None)

    def _capacity(self) -> int | None:
        """Bytes of a device; None on CPUs, which have one memory."""
        import torch

        if self._state.device.type != "cuda":
            return None
        return int(_FREE * torch.cuda.get_device_properties(self._state.device).total_memory)
