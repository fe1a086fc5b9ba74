"""What tests of runs share: their records by cell, and progress that listens or is killed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bench.records.schema import Record
from bench.records.store import RecordStore
from bench.runner.settings import Phase

Cell = tuple[str, int, str, int]


def records_of(output: Path) -> dict[Cell, Record]:
    """The records of a folder by model, layer, arm and seed."""
    found = list(RecordStore(output))
    return {(r.spec.model, r.spec.layer, r.spec.arm, r.spec.seed): r for r in found}


def comparable(records: Iterable[Record]) -> dict[str, dict]:
    """What two measurements of the same cells must agree in, bit for bit, by hash."""
    return {record.hash: record.comparable() for record in records}


class Listener:
    """Progress that counts steps and keeps notes."""

    def __init__(self) -> None:
        self.steps = 0
        self.notes: list[str] = []
        self.phases: list[Phase] = []

    def advance(self, steps: int) -> None:
        self.steps += steps

    def note(self, text: str) -> None:
        self.notes.append(text)

    def phase(self, name: Phase) -> None:
        self.phases.append(name)


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


class KilledAfter(Listener):
    """Progress that is killed when so many steps of the block's cells were done."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.last = steps

    def advance(self, steps: int) -> None:
        super().advance(steps)
        if self.steps >= self.last:
            raise Killed
