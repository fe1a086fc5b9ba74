"""A training step of a block's cells: those of one shape as a bank where that is faster."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise

from torch import Tensor

from bench.compute.ahead import host_runs_ahead
from bench.compute.timing import compute_seconds
from bench.runner.cell import Cell
from bench.sae.bank import Bank, shape_key
from bench.sae.cpu_bank import make_bank
from zoo.errors import ModelError

Failures = dict[str, ModelError]

# Elements of an SAE's matrix below which a CPU steps several together (measured on one core).
_SMALL = 1 << 18

# More save no more time, and take more memory than a block's estimate has room for.
_MOST_ON_CPU = 8

# Features of a bank that the fast sort of `bench.sae.codes` takes.
_FAST_SORT = 1 << 15


@contextmanager
def may_drop_out(cell: Cell, failed: Failures) -> Iterator[None]:
    """What goes wrong with one cell goes into `failed`, and the others go on."""
    try:
        yield
    except ModelError as error:
        failed[cell.spec.hash] = error


def _most_together(cell: Cell) -> int:
    """How many cells of its shape a bank may hold; 0 where it is faster by itself.

    On a device any number, and a bank of one is captured too. On a CPU, where a bank changes no
    bit, small sparse SAEs, whose single operations are too short: less than half of the time
    (width 64, n 256); and no more of them than the fast sort of features takes. One by itself would
    take a tenth longer in a bank.
    """
    trainer = cell.trainer
    if host_runs_ahead(trainer.sae.b):
        return sys.maxsize
    small = trainer.path == "sparse" and trainer.sae.W_enc.numel() < _SMALL
    return min(_MOST_ON_CPU, _FAST_SORT // trainer.sae.n) if small else 0


def _bank_step(
    cells: Sequence[Cell], bank: Bank, batch: Mapping[int, Tensor], failed: Failures
) -> dict[str, Tensor]:
    given = [cell.begin_step(batch[cell.spec.layer]) for cell in cells]
    start = compute_seconds()
    losses = bank.step(given)
    seconds = (compute_seconds() - start) / len(cells)
    for cell, x, loss in zip(cells, given, losses, strict=True):
        cell.seconds += seconds
        with may_drop_out(cell, failed):
            cell.trainer.took_step(loss)
            cell.trainer.resample_if_due(x)
        cell.end_step()
    return {cell.spec.hash: loss for cell, loss in zip(cells, losses, strict=True)}


def _even_parts(cells: Sequence[Cell], most: int) -> list[list[Cell]]:
    """The cells in as few parts of at most so many as there can be, none larger than another by
    more than one."""
    parts = -(-len(cells) // most)
    bounds = [len(cells) * i // parts for i in range(parts + 1)]
    return [list(cells[start:stop]) for start, stop in pairwise(bounds)]


class Stepper:
    """Steps cells; which go together follows from who is still running.

    note: is told, once, what did not go as planned.
    banks: whether any go together (`bench.runner.settings`).
    """

    def __init__(self, note: Callable[[str], None], *, banks: bool = True) -> None:
        self._note = note
        self._may_bank = banks
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
            losses |= _bank_step(cells, bank, batch, failed)
            self._tell(bank)
        return losses

    def _group(self, running: Sequence[Cell]) -> None:
        groups: defaultdict[Hashable, list[Cell]] = defaultdict(list)
        for cell in running:
            groups[shape_key(cell.trainer)].append(cell)
        together = [
            part
            for key, group in groups.items()
            if self._may_bank and key is not None and (most := _most_together(group[0]))
            for part in _even_parts(group, most)
            if len(part) > 1 or host_runs_ahead(part[0].trainer.sae.b)
        ]
        self._banks = [(cells, make_bank([cell.trainer for cell in cells])) for cells in together]
        taken = {cell.spec.hash for cells in together for cell in cells}
        self._alone = [cell for cell in running if cell.spec.hash not in taken]

    def _tell(self, bank: Bank) -> None:
        if bank.note is not None and bank.note not in self._told:
            self._told.add(bank.note)
            self._note(bank.note)
