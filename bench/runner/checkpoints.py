"""Checkpoints of a block in training, so that what was stopped at any moment goes on there.

    <output>/state/<hash of the block's cells>/block.json    what it is, for `bench status`
                                              /state.pt      torch's format, loaded as weights only

Both files are written whole or not at all. Of processes that divide a dictionary's rows each has a
part, `state-<step>-<process>-of-<processes>.pt`, which counts once block.json names its step. A
state holds what cannot be recomputed cheaply: every
trainer, every curve, and the shuffling buffer with its place in the corpus. The evaluation sample,
its statistics and the censuses at birth are taken again, and come out the same.
"""

from __future__ import annotations

import json
import shutil
import time
import zipfile
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from bench.plan.blocks import Block
from bench.records.provenance import package_versions
from bench.records.store import RecordStore, read_record
from zoo.errors import BenchError, WorkerFailed
from zoo.files import content_hash, open_atomically, read_json, write_atomically

if TYPE_CHECKING:
    from bench.compute.row_shards import Processes
    from bench.records.mirror import Mirror

_FORMAT = 5
SUMMARY, STATE = "block.json", "state.pt"

# Saving takes at most this share of the time, whatever the interval asked for.
_LARGEST_SHARE = 0.05


@dataclass(frozen=True)
class Saved:
    """A checkpoint on disk: `step` of `steps` of the cells (hashes) of one model's block, in so
    many `parts`; `limit` as in their Specs."""

    folder: Path
    model: str
    cells: tuple[str, ...]
    step: int
    steps: int
    made_with: dict[str, str]
    parts: int = 1
    limit: int | None = None

    @property
    def is_stale(self) -> bool:
        """Whether other versions of the packages made it: they would not go on to the bit."""
        return self.made_with != made_with()


def made_with() -> dict[str, str]:
    """What a state depends on besides its cells."""
    return {"format": str(_FORMAT), **package_versions()}


def saved_states(states: Path) -> list[Saved]:
    """The checkpoints in a folder, furthest first; what is not one is left out."""
    found = []
    for path in sorted(states.glob(f"*/{SUMMARY}")):
        try:
            data = read_json(path)
            found.append(Saved(path.parent, **data | {"cells": tuple(data["cells"])}))
        except (OSError, ValueError, TypeError, KeyError):
            continue
    return sorted(found, key=lambda saved: -saved.step)


def remove_done(states: Path, store: RecordStore, pending: Collection[str]) -> None:
    """Removes the checkpoints whose cells are all through and are not to be measured again.

    One that lost its process is not: `bench run --failed` goes on from there.
    """
    for saved in saved_states(states):
        records = (store.folder / saved.model / f"{cell}.json" for cell in saved.cells)
        if not any(cell in pending for cell in saved.cells) and all(map(_is_final, records)):
            shutil.rmtree(saved.folder, ignore_errors=True)
    if states.is_dir() and not any(states.iterdir()):
        states.rmdir()


def _is_final(path: Path) -> bool:
    """Whether a record is there, and not of a cell whose process was killed."""
    if not path.is_file():
        return False
    try:
        failure = read_record(path).failure
    except BenchError:
        return False
    return failure is None or failure.kind != WorkerFailed.__name__


def resume_blocks(blocks: Iterable[Block], states: Path) -> list[Block]:
    """The same cells, grouped so that a block that has a checkpoint is a block again.

    How layers are grouped depends on the memory that is free, and a new request may have more
    cells than the one that was stopped; neither must lose what was done.
    """
    todo = list(blocks)
    for saved in saved_states(states):
        own = [block for block in todo if block.card.id == saved.model and block.error is None]
        specs = [spec for block in own for spec in block.specs if spec.hash in saved.cells]
        if {spec.hash for spec in specs} != set(saved.cells):
            continue
        first = todo.index(own[0])
        rest = [_without(block, saved.cells) if block in own else block for block in todo]
        todo = [*rest[:first], own[0].only(specs), *rest[first:]]
        todo = [block for block in todo if block.specs]
    return todo


def _without(block: Block, cells: Iterable[str]) -> Block:
    return block.only(spec for spec in block.specs if spec.hash not in cells)


class CheckpointWriter:
    """Keeps the checkpoint of one block.

    Args:
        states: the folder of all checkpoints, None to keep none.
        every: seconds between two, more where a save takes long; 0 is after every step.
        notify: is told why a checkpoint that is there cannot be used.
        processes: that have a part each, and call `load` and `save` together.
        mirror: where `states` is a mirror's: what is gone on from is fetched, what is saved sent.
    """

    def __init__(
        self,
        block: Block,
        states: Path | None,
        every: float,
        notify: Callable[[str], None],
        processes: Processes | None = None,
        mirror: Mirror | None = None,
    ) -> None:
        self.block = block
        self.states = states
        self.every = every
        self._notify = notify
        self.processes = processes
        self._mirror = mirror
        self._hashes = {spec.hash for spec in block.specs}
        self._next = time.monotonic() + every

    def load(self) -> dict[str, Any] | None:
        """The furthest checkpoint that holds all cells of the block, or None."""
        found = saved_states(self.states) if self.states else []
        for saved in found if self.processes is None else self.processes.told(found):
            if not self._hashes <= set(saved.cells):
                continue
            if saved.is_stale:
                self._notify(f"the checkpoint {saved.folder} was made with other versions; ignored")
                continue
            if saved.parts != self._parts:
                made = f"{saved.parts} process{'es' * (saved.parts > 1)}, not {self._parts}"
                self._notify(f"the checkpoint {saved.folder} is of {made}; ignored")
                continue
            if self._mirror is not None:
                self._mirror.fetch(saved.folder / STATE)
            state = _read(saved.folder / self._file(saved.step))
            if self.processes is not None and self.processes.any(state is None):
                state = None
            if state is None:
                self._notify(f"the checkpoint {saved.folder} is damaged; ignored")
                continue
            self._notify(f"resumes after step {saved.step} of {saved.steps}")
            return state
        return None

    @property
    def is_due(self) -> bool:
        """Whether it is time for the next one."""
        return self.states is not None and time.monotonic() >= self._next

    def save(self, state: dict[str, Any]) -> None:
        """Writes a checkpoint. Raises `OutputError`."""
        if self.states is None:
            return
        import torch

        began = time.monotonic()
        folder = self.states / content_hash(sorted(self._hashes))
        file = self._file(state["step"])
        for leftover in folder.glob(f".{file}.*"):  # of a save that was killed
            leftover.unlink(missing_ok=True)
        with open_atomically(folder / file) as handle:
            sink = _Sink(handle)
            try:
                torch.save(state, cast(IO[bytes], sink))
            except RuntimeError:
                if sink.error is not None:
                    raise sink.error from None
                raise
        if self.processes is None:
            self._summarise(folder, state["step"])
        else:
            self._finish(folder, state["step"], self.processes)
        if self._mirror is not None:
            self._mirror.push(folder / file)
            self._mirror.push(folder / SUMMARY)
        now = time.monotonic()
        slowest = (now - began) / _LARGEST_SHARE if self.every else 0.0
        self._next = now + max(self.every, slowest)

    @property
    def _parts(self) -> int:
        return 1 if self.processes is None else self.processes.of

    def _file(self, step: int) -> str:
        """The name of this process's part of a state."""
        if self.processes is None:
            return STATE
        return f"state-{step}-{self.processes.index}-of-{self._parts}.pt"

    def _finish(self, folder: Path, step: int, processes: Processes) -> None:
        """Has the parts of all count, once they are written; those before are removed after."""
        processes.wait()
        if processes.leads:
            self._summarise(folder, step)
        processes.wait()
        for part in folder.glob(f"state-*-{processes.index}-of-*.pt"):
            if part.name != self._file(step):
                part.unlink(missing_ok=True)

    def _summarise(self, folder: Path, step: int) -> None:
        summary = Saved(
            folder=folder,
            model=self.block.card.id,
            cells=tuple(spec.hash for spec in self.block.specs),
            step=step,
            steps=self.block.steps,
            made_with=made_with(),
            parts=self._parts,
            limit=self.block.specs[0].limit,
        )
        data = {key: value for key, value in asdict(summary).items() if key != "folder"}
        write_atomically(folder / SUMMARY, json.dumps(data, indent=1) + "\n")


class _Sink:
    """A file that knows why it could not be written: `torch.save` says something else."""

    def __init__(self, handle: IO[bytes]) -> None:
        self._handle = handle
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self._handle.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._handle.flush()


def _read(path: Path) -> dict[str, Any] | None:
    """The state in a file; None where it is cut short or any byte of it is wrong."""
    import torch

    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                return None
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile):
        return None
    return state
