"""Blocks in several processes of this machine, one block each at a time.

A worker is sent blocks, and sends what it has to say: steps done, notes, records. It ignores
Ctrl-C, which a terminal sends to every process: this process handles it, and asks the workers to
stop, which they do after the step they are in, with a checkpoint.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any, Literal

from bench.plan.blocks import Block
from bench.records.schema import Record
from bench.runner.engines import split_into
from bench.runner.settings import Progress, Settings
from zoo.errors import OutputError, WorkerFailed

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext

# Whether processes can begin as copies, and that is safe: on macOS system libraries object.
_COPIES = sys.platform == "linux"

# What a worker is after a message: at work, done with its block, or ended.
WorkerState = Literal["busy", "idle", "gone"]

# Seconds between two messages about steps: a bar needs no more.
_TELL_EVERY = 0.1


@dataclass
class _Worker:
    """A process, and the cells of the block that it is at work on of which no record came yet."""

    slot: int
    process: BaseProcess
    connection: Connection
    block: Block | None = None
    left: set[str] = field(default_factory=set)

    def take(self, block: Block) -> None:
        self.block, self.left = block, {spec.hash for spec in block.specs}
        self.connection.send(block)


class WorkersEngine:
    """`workers` processes; they share this one's threads, and a machine's devices in turn.

    A process that is done with its block takes the next one: to start one costs seconds.
    """

    leads = True

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def agree(self, blocks: list[Block]) -> list[Block]:
        """The blocks, split where there are fewer than workers."""
        return split_into(blocks, self.workers)

    def records(
        self, blocks: Sequence[Block], settings: Settings, progress: Progress
    ) -> Iterator[Record]:
        """The records as they come, of several blocks at once; the longest begin first."""
        waiting = sorted(blocks, key=_work_in, reverse=True)
        free = list(range(self.workers))
        idle: list[_Worker] = []
        running: dict[Connection, _Worker] = {}
        try:
            while waiting or running:
                while waiting and (idle or free):
                    worker = idle.pop() if idle else self._start(free.pop(0), settings)
                    running[worker.connection] = worker
                    # One whose process has just ended is noticed when its connection is read.
                    with suppress(BrokenPipeError):
                        worker.take(waiting.pop(0))
                    progress.describe(f"{len(running)} blocks")
                for connection in wait(list(running)):
                    assert isinstance(connection, Connection)
                    worker = running[connection]
                    state = yield from _hear(worker, progress)
                    if state == "busy":
                        continue
                    del running[connection]
                    if state == "idle":
                        idle.append(worker)
                    else:
                        free.append(worker.slot)
        finally:
            _stop([*running.values(), *idle])

    def finish(self) -> None:
        """The workers have ended with the last block."""

    def _start(self, slot: int, settings: Settings) -> _Worker:
        import torch

        context = _context(settings.device)
        ours, theirs = context.Pipe()
        threads = max(1, torch.get_num_threads() // self.workers)
        arguments = (theirs, _settings_of(slot, settings), threads)
        process = context.Process(target=_work, args=arguments, name=f"worker {slot}", daemon=True)
        process.start()
        theirs.close()
        return _Worker(slot, process, ours)


def begin_imports() -> None:
    """Has another process import what workers on a CPU need, while this one goes on.

    Worth calling early: to import takes seconds. Does nothing where workers do not begin that way.
    """
    if _COPIES:
        _copies()


def _context(device: str) -> ForkServerContext | SpawnContext:
    """How workers begin: as copies of a process that has imported what they need.

    With a device, and where processes are not copied, a worker is a fresh interpreter: the imports
    might touch the device, which the copies could then not use.
    """
    copies = _copies() if device == "cpu" and _COPIES else None
    return copies or multiprocessing.get_context("spawn")


def _copies() -> ForkServerContext | None:
    """The process to be copied is running, and imports or has imported.

    It has done nothing else: a copy of this one could hang in torch's thread pool. A Ctrl-C is not
    for it, nor for the copies. None where it cannot be: its socket's path may be at most about 100
    characters long, and a folder for temporary files may be longer.
    """
    from multiprocessing import forkserver, resource_tracker

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bench.runner.block"])
    # A process inherits what is blocked when it is made. The tracker comes first: to make it
    # unblocks everything.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    except OSError:
        return None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


def _work_in(block: Block) -> tuple[int, int]:
    """Larger for a block that takes longer, as far as one can tell beforehand."""
    return block.steps * len(block.specs), block.card.parameters


def _settings_of(slot: int, settings: Settings) -> Settings:
    """With several devices of one kind, each worker has its own."""
    import torch

    if settings.device == "cuda" and torch.cuda.device_count() > 1:
        return replace(settings, device=f"cuda:{slot % torch.cuda.device_count()}")
    return settings


def _hear(worker: _Worker, progress: Progress) -> Generator[Record, None, WorkerState]:
    """One message of a worker. Returns what the worker is from now on."""
    try:
        kind, content = worker.connection.recv()
    except (EOFError, OSError):
        yield from _lost(worker)
        return "gone"
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
        return "idle"
    return "busy"


def _lost(worker: _Worker) -> Iterator[Record]:
    """The failures of the cells of which a worker that ended has sent no record."""
    from bench.runner.block import failed_records

    assert worker.block is not None
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
    """Asks workers to stop, and waits; when interrupted again, ends them.

    Their last messages are read: a worker whose pipe is full would wait for ever.
    """
    for worker in workers:
        worker.process.terminate()
    try:
        for worker in workers:
            with suppress(EOFError, OSError):
                while True:
                    worker.connection.recv()
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


def _work(connection: Connection, settings: Settings, threads: int) -> None:
    """What a worker does: block after block, until it is stopped."""
    import torch

    from bench.runner.interrupts import interrupt_on_terminate

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    torch.set_num_threads(threads)
    try:
        with interrupt_on_terminate():
            while True:
                _measure(connection, connection.recv(), settings)
    except (KeyboardInterrupt, BrokenPipeError, EOFError):
        # Asked to stop, or the parent is gone.
        return


def end_with_parent() -> None:
    """From now on this process ends when the one that started it does.

    A parent that is killed cannot say stop, and a worker may have nothing to say for minutes.
    """
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _measure(connection: Connection, block: Block, settings: Settings) -> None:
    from bench.compute.out_of_memory import release_memory
    from bench.runner.block import measure_block

    teller = _Teller(connection)
    message: tuple[str, Any] = ("done", None)
    try:
        for record in measure_block(block, settings, teller):
            connection.send(("record", record))
    except OutputError as error:
        message = ("error", error)
    teller.flush()
    release_memory()
    connection.send(message)
