"""A training step of a block's cells: one by one, or on a device those of one shape as a bank."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor

from bench.compute.ahead import host_runs_ahead
from bench.runner.cell import Cell
from bench.sae.bank import Bank, shape_key
from zoo.errors import ModelError

Failures = dict[str, ModelError]


@contextmanager
def may_drop_out(cell: Cell, failed: Failures) -> Iterator[None]:
    """What goes wrong with one cell goes into `failed`, and the others go on."""
    try:
        yield
    except ModelError as error:
        failed[cell.spec.hash] = error


class Stepper:
    """Steps cells; which go together follows from who is still running.

    note: is told, once, what did not go as planned.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._told: set[str] = set()
        self._running: list[str] = []
        self._banks: list[tuple[list[Cell], Bank]] = []
        self._alone: list[Cell] = []

    def step(
        self, running: Sequence[Cell], batch: Mapping[int, Tensor], failed: Failures
    ) -> dict[str, Tensor]:
        """One step of each on its layer's batch [batch, d]; the losses by hash.

        A cell whose loss turns out not to be finite goes into `failed`.
        """
        hashes = [cell.spec.hash for cell in running]
        if hashes != self._running:
            self._running = hashes
            self._group(running)
        losses = {}
        for cell in self._alone:
            with may_drop_out(cell, failed):
                losses[cell.spec.hash] = cell.step(batch[cell.spec.layer])
        for cells, bank in self._banks:
            found = bank.step([cell.begin_step(batch[cell.spec.layer]) for cell in cells])
            for cell, loss in zip(cells, found, strict=True):
                losses[cell.spec.hash] = loss
                with may_drop_out(cell, failed):
                    cell.trainer.took_step(loss)
                cell.end_step()
            self._tell(bank)
        return losses

    def _group(self, running: Sequence[Cell]) -> None:
        groups: defaultdict[Hashable, list[Cell]] = defaultdict(list)
        for cell in running:
            # A CPU steps them one by one as fast.
            banked = host_runs_ahead(cell.trainer.sae.b)
            groups[shape_key(cell.trainer) if banked else None].append(cell)
        # One is a bank too: its steps are captured.
        together = {key: cells for key, cells in groups.items() if key is not None}
        self._banks = [
            (cells, Bank([cell.trainer for cell in cells])) for cells in together.values()
        ]
        taken = {cell.spec.hash for cells in together.values() for cell in cells}
        self._alone = [cell for cell in running if cell.spec.hash not in taken]

    def _tell(self, bank: Bank) -> None:
        if bank.note is not None and bank.note not in self._told:
            self._told.add(bank.note)
            self._note(bank.note)
