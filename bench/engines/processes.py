"""Blocks in several processes of this machine, one block each at a time.

A worker is sent a block, and sends what it has to say: steps done, notes, records. It ignores
Ctrl-C, which a terminal sends to every process: this process hears it, and asks the workers to
stop, which they do behind the step they are in, with a checkpoint.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from bench.engines import at_least
from bench.plan import Block
from bench.records import Record
from bench.settings import Progress, Settings
from zoo.errors import OutputError, WorkerFailed

# Seconds between two messages about steps: a bar needs no more.
_TELL_EVERY = 0.1


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    block: Block
    left: set[str]


class Processes:
    """`workers` processes; they share this one's threads, and a machine's devices in turn."""

    leads = True

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def agree(self, blocks: list[Block]) -> list[Block]:
        """The blocks, split where there are fewer than workers."""
        return at_least(blocks, self.workers)

    def records(
        self, blocks: Sequence[Block], settings: Settings, progress: Progress
    ) -> Iterator[Record]:
        """The records as they come, of several blocks at once."""
        waiting = list(blocks)
        running: dict[Connection, _Worker] = {}
        free = list(range(self.workers))
        slots: dict[Connection, int] = {}
        try:
            while waiting or running:
                while waiting and free:
                    slot = free.pop(0)
                    worker = _start(waiting.pop(0), _settings_of(slot, settings), self._threads())
                    running[worker.connection] = worker
                    slots[worker.connection] = slot
                    progress.describe(f"{len(running)} blocks")
                for connection in wait(list(running)):
                    assert isinstance(connection, Connection)
                    worker = running[connection]
                    over = yield from _hear(worker, progress)
                    if over:
                        del running[connection]
                        free.append(slots.pop(connection))
        finally:
            _stop(list(running.values()))

    def finish(self) -> None:
        """Every worker has ended with its block."""

    def _threads(self) -> int:
        import torch

        return max(1, torch.get_num_threads() // self.workers)


def _settings_of(slot: int, settings: Settings) -> Settings:
    """With several devices of one kind, each worker has its own."""
    import torch

    if settings.device == "cuda" and torch.cuda.device_count() > 1:
        return replace(settings, device=f"cuda:{slot % torch.cuda.device_count()}")
    return settings


def _start(block: Block, settings: Settings, threads: int) -> _Worker:
    # A fresh interpreter: a copy of this one (fork) could hang in torch's thread pool.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_work, args=(theirs, block, settings, threads), name=block.card.id, daemon=True
    )
    process.start()
    theirs.close()
    return _Worker(process, ours, block, {spec.hash for spec in block.specs})


def _hear(worker: _Worker, progress: Progress) -> Generator[Record, None, bool]:
    """One message of a worker. Returns whether it is over with its block."""
    try:
        kind, content = worker.connection.recv()
    except (EOFError, OSError):
        yield from _lost(worker)
        return True
    if kind == "record":
        worker.left.discard(content.hash)
        yield content
    elif kind == "advance":
        progress.advance(content)
    elif kind == "note":
        progress.note(content)
    elif kind == "error":
        raise content
    else:
        worker.process.join()
        worker.connection.close()
        return True
    return False


def _lost(worker: _Worker) -> Iterator[Record]:
    """The failures of the cells of which a worker that ended has sent no record."""
    from bench.measure import failed_records

    worker.process.join()
    worker.connection.close()
    code = worker.process.exitcode or 0
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    error = WorkerFailed(
        f"the process that measured {worker.block.card.id} ended with {how}",
        "`bench run --failed` goes on from its last checkpoint; with SIGKILL, memory may be short: "
        "take fewer --workers.",
    )
    rest = worker.block.only(s for s in worker.block.specs if s.hash in worker.left)
    yield from failed_records(rest, error)


def _stop(workers: Sequence[_Worker]) -> None:
    """Asks workers to stop, and waits; when interrupted again, ends them."""
    for worker in workers:
        worker.process.terminate()
    try:
        for worker in workers:
            worker.process.join()
    finally:
        for worker in workers:
            if worker.process.is_alive():
                worker.process.kill()
            worker.connection.close()


# --------------------------------------------------------------------------- in the worker process


class _Teller:
    """Progress that goes through a pipe."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._steps = 0
        self._next = 0.0

    def advance(self, steps: int) -> None:
        self._steps += steps
        if time.monotonic() >= self._next:
            self.flush()

    def flush(self) -> None:
        self._connection.send(("advance", self._steps))
        self._steps, self._next = 0, time.monotonic() + _TELL_EVERY

    def note(self, text: str) -> None:
        self._connection.send(("note", text))

    def describe(self, what: str) -> None:
        """This process's bar is not shown."""


def _work(connection: Connection, block: Block, settings: Settings, threads: int) -> None:
    """What a worker does: one block, then it ends."""
    from bench.state import interrupt_on_terminate

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupt_on_terminate():
            _measure(connection, block, settings, threads)
    except (KeyboardInterrupt, BrokenPipeError):
        # Asked to stop, or nobody is there to be told.
        return


def _measure(connection: Connection, block: Block, settings: Settings, threads: int) -> None:
    import torch

    from bench.measure import measure_block

    torch.set_num_threads(threads)
    teller = _Teller(connection)
    message: tuple[str, Any] = ("done", None)
    try:
        for record in measure_block(block, settings, teller):
            connection.send(("record", record))
    except OutputError as error:
        message = ("error", error)
    teller.flush()
    connection.send(message)
