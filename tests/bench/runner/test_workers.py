"""The protocol of workers: each message has an answer or an end, on a full disk too."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bench.plan.blocks import Block, Request, make_plan
from bench.plan.protocol import load_protocol
from bench.records.schema import Record
from bench.records.store import RecordStore
from bench.runner.checkpoints import saved_states
from bench.runner.engines import split_into, workers
from bench.runner.engines.workers import WorkersEngine
from bench.runner.settings import NoProgress, Settings
from tests.bench.runs import comparable
from tests.conftest import TINY
from tests.made import write_made
from zoo import files
from zoo.registry import load_registry

# Far more than these tests take on a busy machine, and far less than for ever.
SECONDS = 240


def plan(folder: Path, *settings: str) -> list[Block]:
    """Three blocks of a cell each."""
    registry = load_registry([folder])
    protocol = load_protocol("quick", settings=[*TINY, *settings], arms=["raw"], seeds=[0])
    found = make_plan(Request(cards=[registry.cards["made"]], protocol=protocol), registry)
    return split_into(found, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_made(tmp_path_factory.mktemp("workers") / "cards", ["made"])


@pytest.fixture
def blocks(folder: Path) -> list[Block]:
    return plan(folder)


@pytest.fixture
def long(folder: Path) -> list[Block]:
    """Two blocks that take an hour."""
    return plan(folder, "steps=1000000")[:2]


def drop(monkeypatch: pytest.MonkeyPatch, lost: str) -> list[str]:
    """The first message of a kind is lost on the way; the kinds that were lost are returned."""
    receive, done = workers._Worker.receive, []

    def lossy(self: workers._Worker) -> tuple[str, Any]:
        if lost == "damaged" and not done:
            self.connection.recv()
            done.append(lost)
            raise ValueError("half a message")
        while True:
            heard = self.heard
            kind, content = receive(self)
            if kind != lost or done:
                return kind, content
            self.heard = heard
            done.append(kind)

    monkeypatch.setattr(workers._Worker, "receive", lossy)
    return done


@pytest.mark.parametrize("lost", ["record", "done", "advance", "beat", "damaged"])
def test_message_of_a_worker_that_is_lost_ends_in_records_of_all_cells(
    blocks: list[Block], lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = drop(monkeypatch, lost)
    began = time.monotonic()
    records = list(WorkersEngine(1).records(blocks, Settings(), NoProgress()))
    assert time.monotonic() - began < SECONDS
    assert {r.hash for r in records} == {spec.hash for b in blocks for spec in b.specs}
    failed = [str(r.failure) for r in records if r.failure is not None]
    assert done == [lost]
    if lost in ("record", "damaged"):
        assert len(failed) == 1
        assert re.search("lost a record|lost a message|sent a damaged message", failed[0])
    else:
        assert failed == []


def test_block_that_is_lost_fails_its_cells_and_no_others(
    blocks: list[Block], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "BLOCK_COMES", 1.0)
    take, lost = workers._Worker.take, []

    class Deaf:
        def send(self, block: Block) -> None:
            lost.append(block)

    def lossy(self: workers._Worker, block: Block) -> None:
        connection = self.connection
        if not lost:
            self.connection = Deaf()  # type: ignore[assignment]
        take(self, block)
        self.connection = connection

    monkeypatch.setattr(workers._Worker, "take", lossy)
    began = time.monotonic()
    records = list(WorkersEngine(1).records(blocks, Settings(), NoProgress()))
    assert time.monotonic() - began < SECONDS
    failed = {r.hash for r in records if r.failure is not None}
    assert failed == {spec.hash for spec in lost[0].specs}
    assert len(records) == sum(len(block.specs) for block in blocks)


@pytest.mark.skipif(os.name != "posix", reason="a signal asks to stop")
@pytest.mark.parametrize("lost", ["ask_to_stop", "dismiss", "nothing"])
def test_worker_that_does_not_hear_a_stop_ends_all_the_same(
    tmp_path: Path, long: list[Block], lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    if lost != "nothing":
        method = getattr(workers._Worker, lost)

        def deaf(self: workers._Worker) -> None:
            calls.append(self)
            if len(calls) > 1:
                method(self)

        monkeypatch.setattr(workers._Worker, lost, deaf)
    settings = Settings(states=tmp_path / "state")
    with pytest.raises(Enough), closing(stopped(long, settings)) as records:
        list(records)
    assert len(saved_states(tmp_path / "state")) == 2, "each worker left a checkpoint"


@pytest.mark.skipif(os.name != "posix", reason="a signal asks to stop")
def test_worker_that_cannot_write_its_last_checkpoint_ends_too(
    tmp_path: Path, long: list[Block], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_work", on_a_full_disk)
    settings = Settings(states=tmp_path / "state", save_every=3600)
    with pytest.raises(Enough), closing(stopped(long, settings)) as records:
        list(records)
    assert saved_states(tmp_path / "state") == []


def on_a_full_disk(connection: Any, settings: Settings, threads: int) -> None:
    """A worker that can write nothing."""

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    files.os.fsync = full
    workers._work(connection, settings, threads)


def stopped(blocks: list[Block], settings: Settings) -> Generator[Record, None, None]:
    """The records of two workers that are stopped when both are at work, and end soon."""
    records = WorkersEngine(2).records(blocks, settings, Impatient())
    try:
        yield from records
    finally:
        began = time.monotonic()
        records.close()
        assert time.monotonic() - began < SECONDS


class Enough(Exception):
    """The test has seen enough."""


class Impatient(NoProgress):
    """Progress that ends a run when its workers have had time to begin their blocks."""

    def __init__(self) -> None:
        self.since: float | None = None

    def advance(self, steps: int) -> None:
        self.since = self.since or time.monotonic()
        if time.monotonic() > self.since + 4:
            raise Enough


def mounted(folder: Path, kib: int) -> bool:
    """Whether a file system of that size could be mounted there."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)]
    return (
        shutil.which("mount") is not None
        and not subprocess.run(command, capture_output=True, check=False).returncode
    )


@pytest.mark.slow
def test_full_disk_is_one_line_and_a_rerun_equals_an_undisturbed_one(tmp_path: Path) -> None:
    write_made(tmp_path / "cards", ["made0", "made1"])
    if not mounted(tmp_path / "small", 400):
        pytest.skip("no file system may be mounted here")
    settings = [part for setting in (*TINY, "steps=1500") for part in ("--set", setting)]
    command = [sys.executable, "-m", "bench", "run", "--cards", "cards", "--model", "made*"]
    command += ["--arm", "raw", *settings, "--workers", "2"]

    def run(output: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, "--checkpoint-every", "0.2", "--output", output],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    try:
        full = run("small")
        assert full.returncode == 2, full.stderr
        assert re.fullmatch(r"bench: cannot write .*No space left on device.*\n", full.stderr)
        subprocess.run(["mount", "-o", "remount,size=64m", tmp_path / "small"], check=True)
        assert run("small").returncode == 0
        assert run("large").returncode == 0
        small, large = (RecordStore(tmp_path / name) for name in ("small", "large"))
        assert comparable(small) == comparable(large)
    finally:
        subprocess.run(["umount", tmp_path / "small"], check=False)
