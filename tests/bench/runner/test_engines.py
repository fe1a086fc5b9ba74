"""Wherever blocks run, the records are the same; a process that ends takes only its block along."""

from __future__ import annotations

import importlib.util
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from bench.plan.blocks import Block, Request, make_plan
from bench.plan.protocol import load_protocol
from bench.records.schema import Record
from bench.records.store import RecordStore
from bench.runner import interrupts
from bench.runner.block import measure_block
from bench.runner.checkpoints import saved_states
from bench.runner.engines import (
    auto_workers,
    dealt,
    longest_first,
    make_engine,
    split_into,
    start_imports_early,
    workers,
)
from bench.runner.engines import workers as workers_engine
from bench.runner.interrupts import interrupt_on_terminate
from bench.runner.run import Todo, run, todo
from bench.runner.settings import NoProgress, Settings
from tests.bench.runs import comparable
from tests.conftest import TINY
from tests.made import write_made
from zoo.errors import OutputError
from zoo.install import install_line
from zoo.registry import load_registry

Bench = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engines")
    write_made(folder / "cards", ["made0", "made1"], tokens=4096)
    return folder


def plan(folder: Path, *settings: str, models: str = "made*") -> list[Block]:
    registry = load_registry([folder / "cards"])
    protocol = load_protocol("quick", settings=[*TINY, *settings])
    cards = registry.select(models=[models])
    return make_plan(Request(cards=cards, protocol=protocol), registry)


def work(folder: Path, output: Path, *settings: str) -> tuple[list[Todo], RecordStore]:
    store = RecordStore(output)
    return todo(plan(folder, *settings), store), store


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, dict]:
    return comparable(record for block in plan(folder) for record in measure_block(block))


def test_blocks_are_split_until_every_worker_has_one(folder: Path) -> None:
    blocks = plan(folder)
    assert split_into(blocks, 2) == blocks
    whole = {spec.hash for block in blocks for spec in block.specs}
    for wanted in (3, 5, 12, 40):
        parts = split_into(blocks, wanted)
        assert len(parts) == min(wanted, 12)
        assert {spec.hash for part in parts for spec in part.specs} == whole
        assert sum(len(part.specs) for part in parts) == len(whole)
    assert split_into([], 3) == []


def test_processes_are_dealt_the_longest_blocks_first(folder: Path) -> None:
    blocks = [plan(folder, f"steps={steps}")[0] for steps in (1000, 4000, 2000, 3000)]
    assert [block.steps for block in longest_first(blocks, "cpu")] == [4000, 3000, 2000, 1000]
    shares = dealt(blocks, 2, "cuda:0")
    assert [sorted(block.steps for block in share) for share in shares] == [
        [1000, 4000],
        [2000, 3000],
    ]
    assert dealt([], 2, "cpu") == [[], []]


@pytest.mark.parametrize("model", ["tiny-gpt2", "tiny-dinov2", "synthetic-gamma40"])
def test_blocks_can_be_sent_to_another_process(model: str) -> None:
    registry = load_registry()
    protocol = load_protocol("quick", settings=TINY)
    (block,) = make_plan(Request(registry.select(models=[model]), protocol), registry)
    assert block.corpus is not None
    again = pickle.loads(pickle.dumps(block))
    assert again.specs == block.specs
    assert again.corpus.fingerprint() == block.corpus.fingerprint()
    ours, theirs = (corpus.examples(3) for corpus in (block.corpus, again.corpus))
    assert np.array_equal(np.asarray(next(ours)), np.asarray(next(theirs)))


@pytest.mark.parametrize("copies", [True, False], ids=["copied", "fresh"])
def test_two_workers_give_the_same_bits(
    folder: Path,
    tmp_path: Path,
    expected: dict[str, dict],
    copies: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers_engine, "_COPIES", copies and workers_engine._COPIES)
    todos, store = work(folder, tmp_path)
    records = list(run(todos, store, Settings(), make_engine("local", workers=2)))
    assert comparable(records) == expected
    assert comparable(store) == expected


@pytest.mark.skipif(not workers_engine._COPIES, reason="workers are fresh interpreters here")
def test_workers_begin_where_the_path_of_temporary_files_is_long(
    folder: Path, tmp_path: Path, expected: dict[str, dict]
) -> None:
    long = tmp_path / ("long" * 25)
    long.mkdir()
    process = launched(
        folder, "long", "--workers", "2", program=BENCH, env=os.environ | {"TMPDIR": str(long)}
    )
    assert process.wait(120) == 0, (folder / "long.err").read_text()
    assert comparable(RecordStore(folder / "long")) == expected


def crash(connection: Any, settings: Settings, threads: int) -> None:
    """A worker that is killed after its first record where the model is made1."""
    while True:
        block = connection.recv()
        if block.card.id == "made1":
            record = next(measure_block(block))
            connection.send(("record", record))
            os.kill(os.getpid(), signal.SIGKILL)
        workers._measure(workers._Teller(connection), block, settings)


def test_a_worker_that_is_killed_fails_its_cells_and_no_others(
    folder: Path, tmp_path: Path, expected: dict[str, dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers_engine, "_work", crash)
    todos, store = work(folder, tmp_path)
    records = list(run(todos, store, Settings(), make_engine("local", workers=2)))
    good = [record for record in records if record.status == "ok"]
    assert comparable(good).items() <= expected.items()
    assert [r.spec.model for r in good].count("made0") == 6
    assert [r.spec.model for r in good].count("made1") == 1
    failed = [record for record in records if record.failure is not None]
    assert len(failed) == 5
    assert {r.failure.kind for r in failed if r.failure} == {"WorkerFailed"}
    assert "made1 ended with signal SIGKILL" in str(failed[0].failure)


def test_a_worker_takes_block_after_block(
    folder: Path, tmp_path: Path, expected: dict[str, dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    start = workers_engine.WorkersEngine._start

    def counted(self: workers_engine.WorkersEngine, slot: int, settings: Settings) -> Any:
        started.append(slot)
        return start(self, slot, settings)

    monkeypatch.setattr(workers_engine.WorkersEngine, "_start", counted)
    store = RecordStore(tmp_path)
    blocks = split_into(plan(folder), 6)
    records = list(run(todo(blocks, store), store, Settings(), make_engine("local", workers=2)))
    assert comparable(records) == expected
    assert started == [0, 1]


@pytest.mark.skipif(os.name != "posix", reason="a process is killed")
def test_a_worker_that_ends_between_two_blocks_fails_what_it_was_sent(
    folder: Path, tmp_path: Path, expected: dict[str, dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers_engine, "_work", one_block_only)
    store = RecordStore(tmp_path)
    blocks = split_into(plan(folder), 4)
    records = list(run(todo(blocks, store), store, Settings(), workers_engine.WorkersEngine(1)))
    good = comparable(record for record in records if record.status == "ok")
    assert good.items() <= expected.items()
    assert {record.hash for record in records} == expected.keys()
    assert len(good) == 6, "every other block had a new worker"
    assert {r.failure.kind for r in records if r.failure} == {"WorkerFailed"}


def one_block_only(connection: Any, settings: Settings, threads: int) -> None:
    """A worker that is killed while it waits for its second block."""
    workers._measure(workers._Teller(connection), connection.recv(), settings)
    connection.poll(60)
    os.kill(os.getpid(), signal.SIGKILL)


def talkative(connection: Any, settings: Settings, threads: int) -> None:
    """A worker that has much to say when it is asked to stop."""
    with interrupt_on_terminate():
        block = connection.recv()
        connection.send(("record", next(measure_block(block))))
        try:
            time.sleep(300)
        except KeyboardInterrupt:
            connection.send(("note", "x" * 10**7))


@pytest.mark.skipif(os.name != "posix", reason="a signal asks to stop")
def test_a_worker_that_is_asked_to_stop_is_heard(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers_engine, "_work", talkative)
    records = workers_engine.WorkersEngine(1).records(plan(folder), Settings(), NoProgress())
    assert next(records).status == "ok"
    began = time.monotonic()
    records.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began < 60


def test_small_blocks_have_a_worker_for_each_thread(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = plan(folder)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert auto_workers(blocks, "cpu") == len(blocks) == 2
    assert auto_workers(split_into(blocks, 12), "cpu") == 8
    assert auto_workers(blocks, "cuda") == 1
    assert auto_workers(blocks[:1], "cpu") == 1
    assert auto_workers([], "cpu") == 1
    large = plan(folder, f"n={2**15}", "k=8")
    assert auto_workers([*blocks, *large], "cpu") == 1, "a large block uses all threads"
    monkeypatch.setattr(
        "bench.runner.engines.available_memory", lambda: int(1.5 * blocks[0].memory)
    )
    assert auto_workers(blocks, "cpu") == 1
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert auto_workers(blocks, "cpu") == 1


@pytest.mark.parametrize(
    ("workers", "device", "number", "begins"),
    [
        (None, "auto", 2, True),
        (None, "cpu", 2, True),
        (None, "cuda", 2, False),
        (None, "auto", 1, False),
        (1, "auto", 2, False),
        (2, "auto", 1, True),
        (2, "cuda", 2, False),
        (2, "auto", 0, False),
    ],
)
def test_imports_begin_early_where_there_will_be_workers(
    folder: Path,
    workers: int | None,
    device: str,
    number: int,
    begins: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun = []
    monkeypatch.setattr(workers_engine, "begin_imports", lambda: begun.append(1))
    start_imports_early(plan(folder)[:number], workers, device)
    assert bool(begun) == begins


def test_large_blocks_have_no_workers_unless_asked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []
    monkeypatch.setattr(workers_engine, "begin_imports", lambda: begun.append(1))
    large = plan(folder, f"n={2**15}", "k=8")
    start_imports_early(large, None, "cpu")
    assert begun == []
    start_imports_early(large, 2, "cpu")
    assert begun == [1]


@pytest.mark.skipif(not workers_engine._COPIES, reason="workers are fresh interpreters here")
def test_an_early_ctrl_c_is_not_for_the_process_that_imports() -> None:
    """A terminal sends it to every process of its foreground group."""
    program = "import time; from bench.runner.engines import workers as p; p.begin_imports()"
    command = [sys.executable, "-c", f"{program}; print('begun', flush=True); time.sleep(60)"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "begun\n"
        time.sleep(0.3)
        os.killpg(process.pid, signal.SIGINT)
        errors = process.stderr.read()
    assert errors.count("Traceback") == 1, errors


def launched(
    folder: Path,
    output: str,
    *options: str,
    program: list[str],
    env: dict[str, str] | None = None,
) -> subprocess.Popen:
    settings = [part for setting in TINY for part in ("--set", setting)]
    arguments = ["run", "--cards", "cards", "--model", "made*", *settings, "--output", output]
    out, err = folder / f"{output}.out", folder / f"{output}.err"
    with out.open("w", encoding="utf-8") as stdout, err.open("w", encoding="utf-8") as stderr:
        return subprocess.Popen(
            [*program, *arguments, *options], cwd=folder, stdout=stdout, stderr=stderr, env=env
        )


BENCH = [sys.executable, "-m", "bench"]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends a signal as a terminal would")
def test_an_interrupt_leaves_checkpoints_and_no_process(folder: Path) -> None:
    options = ("--workers", "2", "--set", "steps=200000", "--checkpoint-every", "1")
    process = launched(folder, "stopped", *options, program=BENCH)
    states = folder / "stopped" / "state"
    while len(saved_states(states)) < 2 and process.poll() is None:
        time.sleep(0.1)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert "Traceback" not in (folder / "stopped.err").read_text()
    assert len(children) >= 2
    _, alive = psutil.wait_procs(children, timeout=5)
    assert alive == []
    assert {saved.model for saved in saved_states(states)} == {"made0", "made1"}
    assert not list((folder / "stopped").rglob(".*")), "no half-written file"


def busy(connection: Any, settings: Settings, threads: int) -> None:
    """A worker that is busy and reports nothing."""
    interrupts.end_with_parent()
    connection.send(("note", str(os.getpid())))
    time.sleep(300)


_PARENT = """
from bench.runner.engines import workers
from bench.runner.settings import Settings
from tests.bench.runner.test_engines import busy

workers._work = busy
if __name__ == "__main__":
    worker = workers.WorkersEngine(1)._start(0, Settings())
    print(worker.connection.recv()[1], flush=True)
    worker.process.join()
"""


@pytest.mark.skipif(os.name != "posix", reason="a process is killed")
def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(_PARENT)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(["", *sys.path])}
    command = [sys.executable, str(tmp_path / "parent.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        worker = psutil.Process(int(parent.stdout.readline()))
        assert worker.is_running()
        parent.kill()
    worker.wait(timeout=10)


@pytest.mark.slow
def test_processes_of_accelerate_share_the_blocks(folder: Path, expected: dict[str, dict]) -> None:
    program = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    program += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    program += ["--module", "bench"]
    process = launched(folder, "launched", "--engine", "accelerate", program=program)
    assert process.wait(300) == 0, (folder / "launched.err").read_text()
    assert (folder / "launched.out").read_text().count("12 cells: ") == 1, "one process speaks"
    assert comparable(RecordStore(folder / "launched")) == expected


def test_accelerate_without_a_launcher_is_one_process(
    folder: Path, tmp_path: Path, expected: dict[str, dict]
) -> None:
    todos, store = work(folder, tmp_path)
    records = list(run(todos[:1], store, Settings(), make_engine("accelerate")))
    assert comparable(records).items() <= expected.items()
    assert len(records) == 6


def dying(block: Block, settings: Settings) -> list[Record]:
    if block.card.id == "made1":
        os._exit(1)
    return list(measure_block(block, settings))


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
@pytest.mark.filterwarnings("ignore")
def test_tasks_of_a_ray_cluster_give_the_same_bits(
    folder: Path, tmp_path: Path, expected: dict[str, dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.runner.engines import ray as cluster

    todos, store = work(folder, tmp_path / "good")
    records = list(run(todos, store, Settings(), make_engine("ray")))
    assert comparable(records) == expected
    monkeypatch.setattr(cluster, "_measure", dying)
    todos, store = work(folder, tmp_path / "bad")
    records = list(run(todos, store, Settings(), make_engine("ray")))
    kinds = {r.spec.model: r.failure.kind if r.failure else "ok" for r in records}
    assert kinds == {"made0": "ok", "made1": "WorkerFailed"}
    monkeypatch.setattr(cluster, "_measure", on_a_full_disk)
    todos, store = work(folder, tmp_path / "full")
    with pytest.raises(OutputError, match="cannot write"):
        list(run(todos, store, Settings(), make_engine("ray")))


def on_a_full_disk(block: Block, settings: Settings) -> OutputError:
    return OutputError("cannot write state.pt (No space left on device)")


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_ray_that_is_not_installed_is_one_clear_line(bench: Bench) -> None:
    code, _, err = bench("run", "--engine", "ray")
    assert (code, err) == (2, f"bench: Ray is not installed. {install_line('ray')}\n")


def test_workers_are_for_the_local_engine(bench: Bench) -> None:
    code, _, err = bench("run", "--engine", "accelerate", "--workers", "2")
    assert code == 2
    assert "--workers is for the local engine, not for accelerate" in err
