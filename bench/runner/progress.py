"""The progress of a run, block by block: what is shown of it, and how long is left.

A terminal shows a live table; a notebook a bar (`bench.runner.notebook`); a log a line before the
first model is loaded, a line per block per minute, and what was found when a block is done.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from bench.plan.blocks import Block
from bench.plan.costs import BlockSeconds, parts_of, run_seconds
from bench.plan.devices import Device, device_like, named_device
from bench.records.schema import Record
from bench.runner.notebook import in_notebook, notebook_bar
from bench.runner.settings import Phase

# Seconds between two lines about a block in a log.
LINE_EVERY = 60.0

# Of the time that is left, the estimate moves towards what it should be by this share a second.
_FOLLOW = 0.1

# Blocks that a terminal shows at once; what is running comes first.
_MOST_ROWS = 12


@dataclass(eq=False)
class BlockProgress:
    """One block on its way. As `Progress` it hears of phases, steps and notes.

    expected: seconds of its parts by the plan's cost model. steps: cell-steps done; those that a
    checkpoint gave are in `resumed` as well.
    """

    block: Block
    tell: Any
    expected: BlockSeconds
    phase_name: Phase | None = None
    steps: int = 0
    resumed: int = 0
    began_at: float | None = None
    training_since: float | None = None
    ended_at: float | None = None
    told_at: float = 0.0
    done: int = 0
    failed: int = 0
    born_dead: dict[str, list[float]] = field(default_factory=dict)

    @property
    def all_steps(self) -> int:
        """Cell-steps of the whole block."""
        return self.block.steps * len(self.block.specs)

    @property
    def ended(self) -> bool:
        """Whether every cell has a record."""
        return self.done + self.failed == len(self.block.specs)

    @property
    def work(self) -> float:
        """Expected seconds of its training and of what comes after it."""
        return self.expected.training + self.expected.after

    @property
    def work_left(self) -> float:
        """Of these, what is still to be done."""
        if self.ended:
            return 0.0
        share = min(1.0, self.steps / max(1, self.all_steps))
        return self.work - share * self.expected.training

    def before_left(self, now: float, *, pace: float = 1.0) -> float:
        """Seconds of what comes before training, `pace` times as long as expected, still to go."""
        if self.training_since is not None or self.ended:
            return 0.0
        since = now - self.began_at if self.began_at else 0.0
        return max(0.0, pace * self.expected.before - since)

    @property
    def tokens_per_second(self) -> float | None:
        """Training tokens of the block's stream; None before the first steps here."""
        fresh = self.steps - self.resumed
        if self.training_since is None or fresh <= 0:
            return None
        steps = fresh / len(self.block.specs)
        return steps * self.block.protocol.batch / max(self.training_seconds, 1e-3)

    @property
    def training_seconds(self) -> float:
        """Seconds since the first training step here, until the block ended."""
        if self.training_since is None:
            return 0.0
        return (self.ended_at or time.monotonic()) - self.training_since

    @property
    def work_done(self) -> float:
        """Of the work, what was done here in those seconds."""
        fresh = max(0.0, (self.steps - self.resumed) / max(1, self.all_steps))
        return self.expected.training * fresh + (self.expected.after if self.ended else 0.0)

    def advance(self, steps: int) -> None:
        """`steps` more cell-steps are done; before training they are a checkpoint's."""
        self.steps += steps
        if self.phase_name not in ("train", "census"):
            self.resumed += steps

    def phase(self, name: Phase) -> None:
        """The block is in another phase now."""
        if name == "train" and self.training_since is None:
            self.training_since = time.monotonic()
        if self.began_at is None:
            self.began_at = self.told_at = time.monotonic()
        if name in ("load", "sample"):  # again, after it was split
            self.training_since, self.resumed = None, self.steps
        self.phase_name = name

    def note(self, text: str) -> None:
        """Something a user should know."""
        self.tell(text)

    @property
    def title(self) -> str:
        """The model and how many of its layers."""
        layers = len(self.block.layers)
        return f"{self.block.card.id}, {layers} layer{'s' * (layers > 1)}"

    @property
    def what(self) -> str:
        """The phase in words, with the step."""
        if self.ended:
            return "failed" if self.failed else "done"
        if self.phase_name not in ("train", "census"):
            return self.phase_name or "waits"
        step = self.steps // max(1, len(self.block.specs))
        return f"{self.phase_name} {step:,}/{self.block.steps:,}"


class RunProgress:
    """All blocks of a run, what came of them, and how long the rest will take."""

    def __init__(self, tell: Any = None) -> None:
        self._tell = tell or (lambda text: print(f"bench: {text}", file=sys.stderr, flush=True))
        self.blocks: list[BlockProgress] = []
        self.cells = self.done_before = 0
        self.doing = "reading the cards"
        self._device = named_device("cpu", threads=1)
        self._by_hash: dict[str, BlockProgress] = {}
        self._left: tuple[float, float] | None = None

    def plan(
        self, blocks: Sequence[Block], *, cells: int, done_before: int, device: str = "cpu"
    ) -> None:
        """The blocks that are to be measured, on what, and of how many cells the run is in all."""
        self.cells, self.done_before = cells, done_before
        self._device = device_like(device)
        self.blocks = [self._row(block) for block in blocks]
        self._by_hash = {s.hash: row for row in self.blocks for s in row.block.specs}
        self.doing = ""

    def say(self, doing: str) -> None:
        """What is done before there are blocks."""
        self.doing = doing

    def begin(self, block: Block) -> BlockProgress:
        """A block begins: what is to be told of its progress."""
        for row in self.blocks:
            if row.block is block:
                return row
        # A part of a block, or a run that was not planned.
        self.blocks.append(self._row(block))
        self._by_hash |= {s.hash: self.blocks[-1] for s in block.specs}
        return self.blocks[-1]

    def _row(self, block: Block) -> BlockProgress:
        return BlockProgress(block, self.note, parts_of(block, self._device))

    def note(self, text: str) -> None:
        """Something a user should know."""
        self._tell(text)

    def record(self, record: Record) -> BlockProgress | None:
        """A cell is done, or has failed. Its block, if that is known."""
        row = self._by_hash.get(record.hash)
        if row is not None:
            row.failed += record.failure is not None
            row.done += record.failure is None
            row.ended_at = time.monotonic() if row.ended else None
            if record.result is not None:
                share = record.result.death_init.dead / record.spec.protocol["n"]
                row.born_dead.setdefault(record.spec.arm, []).append(share)
        return row

    def seconds_left(self) -> float | None:
        """The time that is left, as one would say it: it runs down, and bends slowly where the
        estimate changes. None before the first training steps.
        """
        estimate = self._estimate()
        if estimate is None:
            return None
        now = time.monotonic()
        at, shown = self._left or (now, estimate)
        passed = now - at
        shown = max(0.0, shown - passed)
        shown += (estimate - shown) * min(1.0, _FOLLOW * passed)
        self._left = (now, shown)
        return shown

    def planned_left(self) -> float:
        """Seconds by the plan's cost model alone: all that is known before any work was done."""
        now = time.monotonic()
        return sum(row.work_left + row.before_left(now) for row in self.blocks)

    def _estimate(self) -> float | None:
        """Seconds: the work that is left by the plan's cost model, times what the work done so far
        took over what it should have; and for each block that does not train yet the same of what
        comes before.
        """
        trained = [row for row in self.blocks if row.training_since]
        done = sum(row.work_done for row in trained)
        if done <= 0.02 * min((row.work for row in trained), default=0.0):
            return None
        pace = sum(row.training_seconds for row in trained) / done
        left = pace * sum(row.work_left for row in self.blocks)
        begun = [row for row in trained if row.began_at and row.training_since]
        took = sum(float(row.training_since or 0) - float(row.began_at or 0) for row in begun)
        before, now = took / sum(row.expected.before for row in begun), time.monotonic()
        left += sum(row.before_left(now, pace=before) for row in self.blocks)
        at_work = sum(row.phase_name is not None and not row.ended for row in self.blocks)
        return left / max(1, at_work)

    @property
    def share(self) -> float:
        """Of the work of the whole run, what is done of it, 0 to 1."""
        if not self.blocks:
            return float(not self.doing)
        return 1 - sum(row.work_left for row in self.blocks) / sum(row.work for row in self.blocks)

    @property
    def summary(self) -> str:
        """One line about the whole run."""
        if self.doing:
            return self.doing
        done = sum(row.done for row in self.blocks)
        failed = sum(row.failed for row in self.blocks)
        parts = [f"{self.done_before + done} of {self.cells} cells done"]
        if failed:
            parts.append(f"{failed} failed")
        if self.blocks and all(row.ended for row in self.blocks):
            return ", ".join(parts)
        left = self.seconds_left()
        if left is None:
            parts.append(f"about {in_words(self.planned_left())} left by the plan")
        else:
            parts.append(f"{in_words(left)} left")
        return ", ".join(parts)


def in_words(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h 20 min`, `12 days`: as exactly as it is known."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes >= 3 * 24 * 60:
        return f"{round(minutes / 60 / 24):,} days"
    hours, rest = divmod(minutes, 60)
    return f"{minutes} min" if not hours else f"{hours} h {rest} min" if rest else f"{hours} h"


# ---------------------------------------------------------------------------------------- displays


@contextmanager
def show_progress(*, shown: bool = True) -> Iterator[RunProgress]:
    """A run's progress on stderr, from now until the end: as a table on a terminal, as a bar in a
    notebook, as a line per block per minute elsewhere; not `shown`, its notes alone.
    """
    if not shown:
        yield RunProgress()
    elif in_notebook():
        progress = RunProgress()
        with notebook_bar(progress):
            yield progress
    elif sys.stderr is not None and sys.stderr.isatty():
        with _live_table() as progress:
            yield progress
    else:
        with _log_lines() as progress:
            yield progress


@contextmanager
def _live_table() -> Iterator[RunProgress]:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(stderr=True, highlight=False)

    def tell(text: str) -> None:
        console.print(Text(f"bench: {text}"))

    progress = RunProgress(tell)
    with Live(
        get_renderable=lambda: _table(progress),
        console=console,
        refresh_per_second=4,
        transient=True,
        redirect_stdout=False,
    ):
        yield progress


def _table(progress: RunProgress) -> Any:
    """The blocks that are running, then those that wait, then those that are done."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    if not progress.blocks:
        return Text(f"bench: {progress.summary} ...")
    table = Table(box=None, pad_edge=False)
    table.add_column("block", no_wrap=True, overflow="ellipsis")
    table.add_column("phase", no_wrap=True)
    for title in ("cells", "tokens/s"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows_shown(progress.blocks):
        speed = row.tokens_per_second if not row.ended else None
        failed = f", {row.failed} failed" if row.failed else ""
        table.add_row(
            row.title,
            row.what,
            f"{row.done}/{len(row.block.specs)}{failed}",
            "" if speed is None else f"{speed:,.0f}",
        )
    hidden = len(progress.blocks) - min(len(progress.blocks), _MOST_ROWS)
    more = f" ({hidden} more blocks)" if hidden else ""
    return Group(table, Text(f"{progress.summary}{more}"))


def rows_shown(blocks: Sequence[BlockProgress]) -> list[BlockProgress]:
    """The blocks that a terminal has room for, in the order of the run: those at work, the next
    ones, and the last that were done.
    """

    def order(place: int) -> tuple[int, int]:
        row = blocks[place]
        if row.ended:
            return 2, -place
        return (0 if row.phase_name else 1), place

    chosen = sorted(range(len(blocks)), key=order)[:_MOST_ROWS]
    return [blocks[place] for place in sorted(chosen)]


@contextmanager
def _log_lines() -> Iterator[RunProgress]:
    progress, over = LogProgress(), threading.Event()

    def speak() -> None:
        while not over.wait(1.0):
            for line in due_lines(progress, time.monotonic()):
                progress.note(line)

    threading.Thread(target=speak, daemon=True).start()
    try:
        yield progress
    finally:
        over.set()


class LogProgress(RunProgress):
    """Says at once what is going to be measured, and of each block that is done what was found."""

    _announced = False

    def plan(
        self, blocks: Sequence[Block], *, cells: int, done_before: int, device: str = "cpu"
    ) -> None:
        super().plan(blocks, cells=cells, done_before=done_before, device=device)
        if blocks and not self._announced:
            self._announced = True
            self.note(planned_line(blocks, named_device("cpu")))

    def record(self, record: Record) -> BlockProgress | None:
        row = super().record(record)
        if row is not None and row.ended and row.done:  # why all failed is told elsewhere
            self.note(done_line(row, self.summary))
        return row


def planned_line(blocks: Sequence[Block], device: Device) -> str:
    """What is going to be measured, and how long that takes on a device by the plan."""
    cells = sum(len(block.specs) for block in blocks)
    models = list(dict.fromkeys(block.card.id for block in blocks))
    named = ", ".join(models[:6]) + (" ..." if len(models) > 6 else "")
    took = in_words(run_seconds(blocks, device))
    return (
        f"measures {cells:,} cell{'s' * (cells > 1)} of {len(models)} model"
        f"{'s' * (len(models) > 1)} ({named}); about {took} by the plan of {device.name}"
    )


def done_line(row: BlockProgress, summary: str) -> str:
    """A block that is done: what was found, means over its cells, and how far the run is."""
    found = ", ".join(f"{100 * fmean(some):.1f} % {arm}" for arm, some in row.born_dead.items())
    took = (
        ""
        if not (row.began_at and row.ended_at)
        else f" in {in_words(row.ended_at - row.began_at)}"
    )
    failed = f", {row.failed} cells failed" if row.failed else ""
    return f"{row.title}: done{took}{failed}; born dead {found}; {summary}"


def due_lines(progress: RunProgress, now: float) -> list[str]:
    """A line for each block at work of which none was written for a minute."""
    lines = []
    for row in list(progress.blocks):
        if row.phase_name is None or row.ended or now - row.told_at < LINE_EVERY:
            continue
        row.told_at = now
        speed = row.tokens_per_second
        rate = "" if speed is None else f", {speed:,.0f} tokens/s"
        lines.append(f"{row.title}: {row.what}{rate}; {progress.summary}")
    return lines
