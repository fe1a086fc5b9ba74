"""Blocks in processes that `accelerate launch` has started, one per device.

Every process runs the same command. The first one decides what the blocks are; each takes its share
of them by the plan's cost, writes its records, and waits for the others at the end.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from datetime import timedelta

from bench.plan.blocks import Block
from bench.records.schema import Record
from bench.runner.engines import dealt, split_into
from bench.runner.engines.local import LocalEngine
from bench.runner.settings import BlockListener, Settings

# A process whose blocks are done waits for the slowest: longer than any run.
_PATIENCE = timedelta(days=365)


class AccelerateEngine(LocalEngine):
    """This process's share of a run; alone where it was not launched."""

    def __init__(self) -> None:
        import torch
        from accelerate import PartialState

        self._state = PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENCE)
        self.leads = self._state.is_main_process

    def agree(self, blocks: list[Block]) -> list[Block]:
        """The first process's blocks: a later one may find other records and more free memory."""
        from accelerate.utils import broadcast_object_list

        box = [split_into(blocks, self._state.num_processes)]
        broadcast_object_list(box)
        return box[0]

    def records(
        self, blocks: Sequence[Block], settings: Settings, progress: BlockListener
    ) -> Generator[Record, None, None]:
        """The records of this process's share of the blocks, on its device."""
        own = dealt(blocks, self._state.num_processes, settings.device)[self._state.process_index]
        if settings.device == "cuda":
            settings = replace(settings, device=str(self._state.device))
        yield from super().records(own, settings, progress)

    def finish(self) -> None:
        """Until all are done."""
        self._state.wait_for_everyone()
        self._state.destroy_process_group()
