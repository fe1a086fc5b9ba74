"""What is shown of a run: phases, rows, speed, and a time left that runs down without swinging."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.plan.blocks import Block, Request, make_plan
from bench.plan.costs import BlockSeconds
from bench.plan.protocol import load_protocol
from bench.runner import progress as module
from bench.runner.progress import RunProgress, due_lines, in_words, rows_shown
from tests.records import make_record
from zoo.registry import load_registry

Bench = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def blocks() -> list[Block]:
    registry = load_registry()
    cards = [registry.card(name) for name in ("synthetic-gamma4", "synthetic-gamma40")]
    settings = ["steps=100", "n=64", "k=4", "N=512", "batch=64", "buffer=256"]
    return make_plan(Request(cards, load_protocol("quick", settings=settings)), registry)


class Watch:
    """A clock that goes when it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    found = Watch()
    monkeypatch.setattr(module, "time", found)
    return found


def finish(progress: RunProgress, block: Block, *, failed: bool = False) -> None:
    """Tells of a record for each cell of the block."""
    for spec in block.specs:
        record = make_record()
        hit = record.model_copy(update={"hash": spec.hash})
        progress.record(hit)


def train(progress: RunProgress, block: Block, watch: Watch, *, resumed: int = 0) -> Iterator[int]:
    """A block on its way: ten seconds until it trains, a step a second, five for the end."""
    row, cells = progress.begin(block), len(block.specs)
    row.phase("load")
    watch.now += 5
    row.phase("sample")
    watch.now += 5
    row.advance(cells * resumed)
    row.phase("train")
    for step in range(resumed + 1, block.steps + 1):
        watch.now += 1
        row.advance(cells)
        yield step
    row.phase("census")
    watch.now += 5
    finish(progress, block)


@pytest.mark.parametrize("resumed", [0, 60])
def test_the_time_left_runs_down_without_swinging(
    blocks: list[Block], watch: Watch, monkeypatch: pytest.MonkeyPatch, resumed: int
) -> None:
    # What the cost model expects is wrong by a factor, as on a machine that it does not know.
    monkeypatch.setattr(module, "parts_of", lambda block, device: BlockSeconds(30, 300, 15))
    progress = RunProgress()
    progress.plan(blocks, cells=4, done_before=0)
    both = itertools.chain(
        train(progress, blocks[0], watch, resumed=resumed), train(progress, blocks[1], watch)
    )
    told = [(watch.now, progress.seconds_left()) for _ in both]
    end = watch.now
    known = [(at, left) for at, left in told if left is not None]
    assert len(known) > 0.9 * len(told)
    for at, left in known:
        assert left == pytest.approx(end - at, rel=0.25, abs=12)
    for (before, earlier), (now, later) in itertools.pairwise(known):
        assert abs(later - (earlier - (now - before))) < 4


def test_what_the_plan_expects_is_told_until_something_was_measured(
    blocks: list[Block], watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "parts_of", lambda block, device: BlockSeconds(30, 300, 15))
    progress = RunProgress()
    progress.plan(blocks, cells=4, done_before=0)
    assert progress.summary == "0 of 4 cells done, about 12 min left by the plan"  # 2 x 345 s
    steps = train(progress, blocks[0], watch)
    next(steps)  # ten seconds until it trains, which were expected to be 30
    assert progress.seconds_left() is None
    assert progress.planned_left() == pytest.approx(345 + 315 - 300 / 100)
    for _ in range(10):
        next(steps)
    assert "by the plan" not in progress.summary


def test_steps_of_a_checkpoint_are_progress_and_no_speed(blocks: list[Block], watch: Watch) -> None:
    progress = RunProgress()
    progress.plan(blocks, cells=4, done_before=0)
    steps = train(progress, blocks[0], watch, resumed=50)
    for _ in range(10):
        next(steps)
    row = progress.begin(blocks[0])
    assert row.what == "train 60/100"
    assert row.tokens_per_second == pytest.approx(64)
    assert 0.35 < row.work_left / row.work < 0.6


def test_a_block_that_is_split_begins_again(blocks: list[Block], watch: Watch) -> None:
    progress = RunProgress()
    progress.plan(blocks, cells=4, done_before=0)
    steps = train(progress, blocks[0], watch)
    for _ in range(10):
        next(steps)
    row = progress.begin(blocks[0])
    row.advance(-row.steps)
    row.phase("load")
    assert (row.what, row.steps, row.tokens_per_second) == ("load", 0, None)


def test_a_line_per_block_per_minute_and_none_before(blocks: list[Block], watch: Watch) -> None:
    progress = RunProgress()
    progress.plan(blocks, cells=6, done_before=2)
    lines: list[str] = []
    for _ in train(progress, blocks[0], watch):
        lines += due_lines(progress, watch.now)
    assert len(lines) == 1
    assert lines[0].startswith("synthetic-gamma4, 1 layer: train 50/100, 64 tokens/s; ")
    assert "2 of 6 cells done" in lines[0]
    assert "4 of 6 cells done" in progress.summary


def test_a_terminal_has_room_for_what_is_at_work(blocks: list[Block]) -> None:
    progress = RunProgress()
    many = [blocks[0].only(blocks[0].specs) for _ in range(40)]
    progress.plan(many, cells=80, done_before=0)
    for row in progress.blocks[:30]:
        row.done = len(row.block.specs)
    progress.blocks[35].phase("train")
    shown = rows_shown(progress.blocks)
    assert len(shown) == module._MOST_ROWS
    assert progress.blocks[35] in shown
    assert progress.blocks[29] in shown
    assert progress.blocks[0] not in shown


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (59, "59 s"), (700, "12 min"), (12_000, "3 h 20 min")]
)
def test_time_is_told_as_exactly_as_it_is_known(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_run_tells_of_every_step_and_cell(
    bench: Bench, tiny: list[str], workers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = RunProgress()

    @contextmanager
    def listen(*, shown: bool = True) -> Iterator[RunProgress]:
        yield seen

    def device(name: str) -> str:
        shown.append((len(seen.blocks), seen.summary))
        return "cpu"

    shown: list[tuple[int, str]] = []
    monkeypatch.setattr("bench.cli.run.show_progress", listen)
    monkeypatch.setattr("bench.cli.run.pick_device", device)
    options = ["synthetic-gamma4", "synthetic-gamma1", "--workers", workers]
    assert bench("run", *options, *tiny)[0] == 0
    # The blocks were shown before torch was, whose import takes seconds.
    assert shown == [(2, "loading torch")]
    assert [row.what for row in seen.blocks] == ["done", "done"]
    assert all(row.steps == row.all_steps > 0 for row in seen.blocks)
    assert seen.summary.startswith("4 of 4 cells done")
    assert Path("runs/records").is_dir()
