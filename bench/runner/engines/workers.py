"""Blocks in several processes of this machine, one block each at a time.

A worker is sent blocks, and sends what it has to say: steps done, notes, records. It ignores
Ctrl-C, which a terminal sends to every process: this process handles it, and asks the workers to
stop, which they do after the step they are in, with a checkpoint.

Neither side waits for ever for the other. A worker says every `BEAT` seconds how much it was given,
has said, and whether it was asked to stop; what does not agree is a message that was lost. The
worker is then ended, and its cells fail as they do when a process is killed. A worker that was
asked to stop is also told to take no other block, whatever becomes of the block it has.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from bench.plan.blocks import Block
from bench.records.schema import Record
from bench.runner.engines import Absent, longest_first, split_into
from bench.runner.settings import BlockListener, NoProgress, Phase, Progress, Settings
from zoo.errors import OutputError, WorkerFailed

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext

log = logging.getLogger(__name__)

# Whether processes can begin as copies, and that is safe: on macOS system libraries object.
_COPIES = sys.platform == "linux"

# What a worker is after a message: at work, done with its block, or ended.
WorkerState = Literal["busy", "idle", "gone"]

# Seconds between two messages about steps.
_TELL_EVERY = 0.1

# Seconds between two beats of a worker, and in which a block that was sent has to come.
BEAT = 1.0
BLOCK_COMES = 10.0

# Seconds that a process may take to end after its last message.
_LAST = 30.0
_COUNTED = ("record", "done", "error")  # messages that must not be lost


class _Beat(NamedTuple):
    """What a worker says every second: blocks that came, messages of the kinds that must not be
    lost, whether it was asked to stop, and when (the clock is the machine's)."""

    blocks: int
    told: int
    stopping: bool
    at: float


@dataclass
class _Worker:
    """A process, and the cells of the block that it is at work on of which no record came yet.

    given, heard: the blocks sent, the last one at `given_at`, and the messages received of the
        kinds that must not be lost. Its first beat was `began_at`.
    """

    slot: int
    process: BaseProcess
    connection: Connection
    progress: Progress = field(default_factory=NoProgress)
    block: Block | None = None
    left: set[str] = field(default_factory=set)
    given: int = 0
    given_at: float = 0.0
    began_at: float = 0.0
    heard: int = 0

    def take(self, block: Block) -> None:
        self.block, self.left = block, {spec.hash for spec in block.specs}
        self.given, self.given_at = self.given + 1, time.monotonic()
        self.connection.send(block)

    def ask_to_stop(self) -> None:
        """It stops after the step it is in, with a checkpoint."""
        self.process.terminate()

    def dismiss(self) -> None:
        """It takes no other block, though it may fail to stop within the one it has."""
        with suppress(OSError):
            self.connection.send(None)

    def receive(self) -> tuple[str, Any]:
        """Its next message. Raises `EOFError` where there will be none."""
        kind, content = self.connection.recv()
        self.heard += kind in _COUNTED
        return kind, content

    def agrees(self, beat: _Beat) -> bool:
        """Whether no message was lost, as far as the beat tells."""
        self.began_at = self.began_at or beat.at
        due = max(self.given_at, self.began_at) + BLOCK_COMES
        late = beat.blocks < self.given and beat.at > due
        return beat.told <= self.heard and not late


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
        self, blocks: Sequence[Block], settings: Settings, progress: BlockListener
    ) -> Generator[Record, None, None]:
        """The records as they come, of several blocks at once.

        The longest begin first, but for the shortest one: its records show early what comes.
        """
        waiting = longest_first(blocks, settings.device)
        waiting[:0] = waiting[-1:]
        del waiting[-1:]
        free = list(range(self.workers))
        idle: list[_Worker] = []
        running: dict[Connection, _Worker] = {}
        absent = Absent()
        try:
            while waiting or running:
                while waiting and (idle or free):
                    if known := absent.records(waiting[0]):
                        waiting.pop(0)
                        yield from known
                        continue
                    worker = idle.pop() if idle else self._start(free.pop(0), settings)
                    running[worker.connection] = worker
                    # One whose process has just ended is noticed when its connection is read.
                    block = waiting.pop(0)
                    worker.progress = progress.begin(block)
                    with suppress(BrokenPipeError):
                        worker.take(block)
                for connection in wait(list(running)):
                    assert isinstance(connection, Connection)
                    worker = running[connection]
                    state = yield from _hear(worker, absent)
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


def _settings_of(slot: int, settings: Settings) -> Settings:
    """With several devices of one kind, each worker has its own."""
    import torch

    if settings.device == "cuda" and torch.cuda.device_count() > 1:
        return replace(settings, device=f"cuda:{slot % torch.cuda.device_count()}")
    return settings


def _hear(worker: _Worker, absent: Absent) -> Generator[Record, None, WorkerState]:
    """One message of a worker. Returns what the worker is from now on."""
    try:
        kind, content = worker.receive()
    except (EOFError, OSError):
        yield from _lost(worker)
        return "gone"
    except Exception:
        # A message that is damaged: its writer was stopped within it.
        log.debug("a worker's message cannot be read", exc_info=True)
        yield from _lost(worker, because="sent a damaged message")
        return "gone"
    if kind == "beat":
        if not worker.agrees(content):
            yield from _lost(worker, because="lost a message")
            return "gone"
    elif kind == "record":
        worker.left.discard(content.hash)
        absent.note(content)
        yield content
    elif kind == "advance":
        worker.progress.advance(content)
    elif kind == "phase":
        worker.progress.phase(content)
    elif kind == "note":
        worker.progress.note(content)
    elif kind == "error":
        raise content
    elif worker.left:
        yield from _lost(worker, because="lost a record")
        return "gone"
    else:
        return "idle"
    return "busy"


def _lost(worker: _Worker, because: str | None = None) -> Iterator[Record]:
    """The failures of the cells of which a worker that ended, or is ended now, sent no record."""
    from bench.runner.block import failed_records

    assert worker.block is not None
    if because is not None:
        worker.process.kill()
    how = because or _end_of(worker.process)
    worker.process.join()
    worker.connection.close()
    error = WorkerFailed(
        f"the process that measured {worker.block.card.id} {how}",
        "The same command with --failed goes on from its last checkpoint; with SIGKILL, memory may "
        "be short: take fewer --workers.",
    )
    rest = worker.block.only(s for s in worker.block.specs if s.hash in worker.left)
    yield from failed_records(rest, error)


def _end_of(process: BaseProcess) -> str:
    """How a process that has closed its pipe ended; one that does not end is killed."""
    process.join(_LAST)
    if process.is_alive():
        process.kill()
        return "said nothing more and did not end"
    code = process.exitcode or 0
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return f"ended with {how}"


def _stop(workers: Sequence[_Worker]) -> None:
    """Asks workers to stop, and waits; when interrupted again, ends them.

    Their last messages are read: a worker whose pipe is full would wait for ever.
    """
    for worker in workers:
        worker.ask_to_stop()
        worker.dismiss()
    try:
        for worker in workers:
            _read_out(worker)
            worker.process.join(_LAST)
    finally:
        for worker in workers:
            if worker.process.is_alive():
                worker.process.kill()
            worker.connection.close()


def _read_out(worker: _Worker) -> None:
    """Reads what a worker that was asked to stop has to say, until it ends or its block does."""
    # A damaged message is the last one, as the end of the pipe is.
    with suppress(Exception):
        while True:
            kind, content = worker.receive()
            if kind == "beat" and not content.stopping:
                worker.ask_to_stop()
            if kind in ("done", "error"):
                return


# --------------------------------------------------------------------------- in the worker process


class _Teller:
    """What a worker says, through its pipe; as `Progress` it tells of steps and notes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._steps = 0
        self._next = 0.0
        self._told = 0
        self._notes: list[str] = []
        self._alone = threading.Lock()
        self.blocks = 0
        self.closed = False

    def receive(self) -> Block | None:
        """The next block; None where there is none any more. Raises `EOFError`."""
        data = self._connection.recv_bytes()
        # It came, though a fresh interpreter now imports for seconds what a block is made of.
        self.blocks += 1
        block: Block | None = ForkingPickler.loads(data)
        return block

    def send(self, kind: str, content: Any) -> None:
        with self._alone:
            self._send_notes()
            self._connection.send((kind, content))
            self._told += kind in _COUNTED

    def _send_notes(self) -> None:
        while self._notes:
            self._connection.send(("note", self._notes.pop(0)))

    def start_beating(self) -> None:
        """Beats, and passes on notes, in a thread of its own from now on, until closed."""
        from bench.runner import interrupts

        def beat() -> None:
            with suppress(OSError):
                while not self.closed:
                    with self._alone:
                        now = time.monotonic()
                        self._send_notes()
                        state = _Beat(self.blocks, self._told, interrupts.heard, now)
                        self._connection.send(("beat", state))
                    time.sleep(BEAT)

        threading.Thread(target=beat, daemon=True).start()

    def advance(self, steps: int) -> None:
        self._steps += steps
        if time.monotonic() >= self._next:
            self.flush()

    def flush(self) -> None:
        self.send("advance", self._steps)
        self._steps, self._next = 0, time.monotonic() + _TELL_EVERY

    def note(self, text: str) -> None:
        # Signal handlers have notes too, and may have stopped this thread within a `send`.
        self._notes.append(text)

    def phase(self, name: Phase) -> None:
        if self._steps:  # of the phase before
            self.flush()
        self.send("phase", name)


def _work(connection: Connection, settings: Settings, threads: int) -> None:
    """What a worker does: block after block, until it is stopped."""
    import torch

    from bench.runner.interrupts import end_with_parent, interrupt_on_terminate

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    torch.set_num_threads(threads)
    teller = _Teller(connection)
    try:
        with interrupt_on_terminate():
            teller.start_beating()
            while (block := teller.receive()) is not None:
                _measure(teller, block, settings)
    except (KeyboardInterrupt, BrokenPipeError, EOFError):
        # Asked to stop, or the parent is gone.
        return
    finally:
        teller.closed = True


def _measure(teller: _Teller, block: Block, settings: Settings) -> None:
    from bench.compute.out_of_memory import release_memory
    from bench.runner.measure import measure

    message: tuple[str, Any] = ("done", None)
    try:
        for record in measure(block, settings, teller):
            teller.send("record", record)
    except OutputError as error:
        message = ("error", error)
    teller.flush()
    release_memory()
    teller.send(*message)
