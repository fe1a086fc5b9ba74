"""Blocks in this process, one after another."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from bench.plan.blocks import Block
from bench.records.schema import Record
from bench.runner.engines import Absent
from bench.runner.measure import measure
from bench.runner.settings import BlockListener, Settings


class LocalEngine:
    """The default: nothing is started, nothing is sent."""

    leads = True

    def agree(self, blocks: list[Block]) -> list[Block]:
        """The blocks as they are."""
        return blocks

    def records(
        self, blocks: Sequence[Block], settings: Settings, progress: BlockListener
    ) -> Generator[Record, None, None]:
        """As `measure` gives them."""
        absent = Absent()
        for block in blocks:
            known = absent.records(block)
            for record in known or measure(block, settings, progress.begin(block)):
                absent.note(record)
                yield record

    def finish(self) -> None:
        """Nothing to wait for."""
