"""Blocks in this process, one after another."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from bench.plan.blocks import Block
from bench.records.schema import Record
from bench.runner.settings import Progress, Settings


class LocalEngine:
    """The default: nothing is started, nothing is sent."""

    leads = True

    def agree(self, blocks: list[Block]) -> list[Block]:
        """The blocks as they are."""
        return blocks

    def records(
        self, blocks: Sequence[Block], settings: Settings, progress: Progress
    ) -> Generator[Record, None, None]:
        """As `measure_block` gives them."""
        from bench.runner.block import measure_block

        for block in blocks:
            progress.describe(block.card.id)
            yield from measure_block(block, settings, progress)

    def finish(self) -> None:
        """Nothing to wait for."""
