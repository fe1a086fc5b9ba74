"""Killed at any moment, a rerun completes and the records equal an undisturbed run's."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.cli.main import run_cli
from bench.plan.blocks import Block, Request, make_plan
from bench.plan.protocol import load_protocol
from bench.records.store import RecordStore
from bench.runner.block import failed_records, measure_block
from bench.runner.cell import Cell
from bench.runner.checkpoints import resume_blocks, saved_states
from bench.runner.run import run, todo
from bench.runner.settings import Settings
from bench.sae.trainer import Trainer
from leaderboard.figures import store
from tests.bench.runs import Killed, KilledAfter, Listener, comparable
from tests.conftest import TINY
from tests.made import write_made
from zoo.errors import OutputError, TrainingFailed, WorkerFailed
from zoo.registry import load_registry

KILLS = 8


def run_arguments(output: str, *options: str) -> list[str]:
    """`bench run` on three models of three layers; a checkpoint is written after every step."""
    settings = [part for setting in TINY for part in ("--set", setting)]
    arguments = ["run", "--cards", "cards", "--model", "made*", *settings, "--output", output]
    return [*arguments, "--checkpoint-every", "0", *options]


def start(folder: Path, output: str, *options: str) -> subprocess.Popen:
    """It in a process of its own; stderr in a file."""
    with open(folder / f"{output}.err", "w", encoding="utf-8") as err:
        return subprocess.Popen(
            [sys.executable, "-m", "bench", *run_arguments(output, *options)],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=err,
        )


def start_imported(folder: Path, output: str, *options: str) -> BaseProcess:
    """The same by a copy of a process that has imported everything, which takes most of the time
    of so small a run: a kill at a random moment meets work, not imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bench.runner.block", __name__])
    arguments = (folder, run_arguments(output, *options), f"{output}.err")
    process = context.Process(target=_run, args=arguments)
    process.start()
    return process


def _run(folder: Path, arguments: list[str], err: str) -> None:
    os.chdir(folder)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(err, os.O_WRONLY | os.O_CREAT), 2)
    store.available = lambda: False  # no figures: they take longer than the rest of so small a run
    sys.exit(run_cli(arguments))


def ended(process: BaseProcess) -> int | None:
    """Its exit code, once it has ended."""
    process.join()
    return process.exitcode


def errors(folder: Path, output: str) -> str:
    return (folder / f"{output}.err").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interruption")
    write_made(folder / "cards", ["made0", "made1", "made2"])
    return folder


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> tuple[dict[str, dict], float]:
    """Records of a run left alone, and how long it took."""
    assert ended(start_imported(folder, "first")) == 0, errors(folder, "first")
    began = time.monotonic()
    assert ended(start_imported(folder, "undisturbed")) == 0, errors(folder, "undisturbed")
    seconds = time.monotonic() - began
    return comparable(RecordStore(folder / "undisturbed")), seconds


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="copies a process")
@pytest.mark.parametrize("seed", range(KILLS))
def test_killed_at_a_random_moment_a_rerun_completes_to_the_same_records(
    folder: Path, undisturbed: tuple[dict[str, dict], float], seed: int
) -> None:
    expected, seconds = undisturbed
    moments = random.Random(seed)
    options = ("--workers", str(1 + seed % 2))
    for attempt in range(5):
        output = f"killed{seed}-{attempt}"
        process = start_imported(folder, output, *options)
        # Sooner after each run that had ended: the undisturbed one may have been slower.
        time.sleep(moments.uniform(0.1, 1.0) * seconds / 1.5**attempt)
        process.kill()
        if ended(process) == -signal.SIGKILL:
            break
    else:
        pytest.fail("runs end before they can be killed")
    # What is there is whole, and is what an undisturbed run gives.
    assert comparable(RecordStore(folder / output)).items() <= expected.items()
    assert ended(start_imported(folder, output)) == 0, errors(folder, output)
    assert comparable(RecordStore(folder / output)) == expected
    assert not (folder / output / "state").exists(), "what is done leaves no checkpoint"


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends a signal as a terminal would")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_saves_what_is_done_and_exits_with_130(
    folder: Path, number: signal.Signals
) -> None:
    """Long training and no checkpoint but the one that the signal asks for."""
    options = ("--set", "steps=100000", "--checkpoint-every", "100000")
    for seconds in (2, 15, 60):  # on a busy machine training has not begun at the first
        output = f"interrupted{number}after{seconds}"
        process = start(folder, output, *options)
        while not errors(folder, output):  # it says what it will measure once it has imported
            time.sleep(0.1)
        time.sleep(seconds)
        process.send_signal(number)
        assert process.wait(60) == 130
        err = errors(folder, output)
        assert "interrupted; run the same command again to go on" in err
        assert "Traceback" not in err
        saved = saved_states(folder / output / "state")
        if saved:
            break
    assert saved
    assert all(0 < state.step < 100_000 for state in saved)
    assert not RecordStore(folder / output).paths()


# ------------------------------------------------------------------- within this process, fast


def blocks(folder: Path, *, settings: Sequence[str] = (), **changes: Any) -> list[Block]:
    """Two layers of stored activations, three arms; AuxK is on from the third step."""
    protocol = load_protocol(
        "quick",
        settings=[*TINY, "dead_after=128", "aux_k=8", *settings],
        arms=["raw", "centered", "raw+auxk"],
    )
    registry = load_registry([folder / "cards"])
    cards = registry.select(models=["made0"])
    request = Request(cards=cards, protocol=protocol, **{"layers": [0, 2], **changes})
    return make_plan(request, registry)


def measured(block: Block, settings: Settings, progress: Any = None) -> dict[str, dict]:
    return comparable(measure_block(block, settings, progress))


# A price that follows what was active, which is state too.
LED = [("family=relu", "target_l0=4", "warmup=0"), ("family=jumprelu", "target_l0=4", "l0=1")]


@pytest.mark.parametrize(
    ("killed_at", "settings"),
    [*((step, ()) for step in (1, 2, 3, 5, 8, 11, 12)), (6, LED[0]), (9, LED[1])],
)
def test_killed_at_a_step_it_goes_on_to_the_same_bits(
    folder: Path, tmp_path: Path, killed_at: int, settings: tuple[str, ...]
) -> None:
    """12 steps of which every second refills the buffer; curves are compared too."""
    (block,) = blocks(folder, settings=settings)
    cells = len(block.specs)
    saving = Settings(states=tmp_path / "state", save_every=0)
    with pytest.raises(Killed):
        measured(block, saving, KilledAfter(killed_at * cells))
    # The checkpoint of the step that was under way had not been written.
    saved = saved_states(tmp_path / "state")
    assert [state.step for state in saved] == ([killed_at - 1] if killed_at > 1 else [])
    rest = Listener()
    assert measured(block, saving, rest) == measured(block, Settings())
    assert rest.steps == 12 * cells, "what was done before counts as progress"
    said = [f"made0: resumes after step {killed_at - 1} of 12"] if killed_at > 1 else []
    assert rest.notes == said


def test_killed_again_and_again_it_still_ends_the_same(folder: Path, tmp_path: Path) -> None:
    (block,) = blocks(folder)
    settings = Settings(states=tmp_path / "state", save_every=0)
    for step in range(2, 12, 3):
        with pytest.raises(Killed):
            measured(block, settings, KilledAfter(step * len(block.specs)))
    records = list(measure_block(block, settings))
    assert comparable(records) == measured(block, Settings())
    assert {r.provenance.resumed for r in records} == {4}


class Interrupts(Listener):
    """Progress during which a terminal sends Ctrl-C, when so many steps were done."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.last = steps

    def advance(self, steps: int) -> None:
        super().advance(steps)
        if self.steps == self.last:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("step", [5, 12])
def test_an_interrupt_stops_after_its_step_even_the_last_one(
    folder: Path, tmp_path: Path, step: int
) -> None:
    (block,) = blocks(folder, settings=["seeds=[0, 1]"])
    settings = Settings(states=tmp_path / "state", save_every=1000)
    with pytest.raises(KeyboardInterrupt):
        measured(block, settings, Interrupts(step * len(block.specs)))
    assert [state.step for state in saved_states(tmp_path / "state")] == [step]
    rest = Listener()
    assert measured(block, settings, rest) == measured(block, Settings())
    assert rest.notes == [f"made0: resumes after step {step} of 12"]
    assert rest.steps == 12 * len(block.specs)


def test_notes_made_before_a_block_goes_on_are_kept(folder: Path, tmp_path: Path) -> None:
    (block,) = blocks(folder)
    settings = Settings(states=tmp_path / "state", save_every=0)
    with pytest.raises(Killed):
        list(measure_block(block, settings, KilledAfter(7 * len(block.specs)), notes=["first"]))
    for record in measure_block(block, settings, notes=["first", "split in two"]):
        assert record.provenance.notes == ("first", "split in two")


@pytest.mark.parametrize("saved_at_every_step", [False, True])
def test_a_loss_that_is_looked_at_late_fails_only_its_cell(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved_at_every_step: bool
) -> None:
    """As on an accelerator, where a look makes the device wait."""
    init, begin = Trainer.__init__, Cell.begin_step

    def late(self: Trainer, *given: Any, **named: Any) -> None:
        init(self, *given, **named)
        self._looks_every = 64

    def diverge(self: Cell, batch: Tensor) -> Tensor:
        breaks = self.trainer.arm.aux != "none" and self.trainer.step_number == 3
        return begin(self, batch) * (torch.nan if breaks else 1)

    monkeypatch.setattr(Trainer, "__init__", late)
    monkeypatch.setattr(Cell, "begin_step", diverge)
    (block,) = blocks(folder, settings=["checkpoints=1"])
    states = tmp_path / "state" if saved_at_every_step else None
    found = measured(block, Settings(states=states, save_every=0))
    failures = [r["failure"]["message"] for r in found.values() if r["failure"]]
    assert failures == ["the loss is not finite at step 3"] * 2
    assert len(found) == 6


def test_an_update_that_overflows_before_a_census_fails_only_its_cell(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    took = Trainer.took_step

    def overflow(self: Trainer, loss: Tensor) -> None:
        took(self, loss)
        if self.arm.aux != "none" and self.step_number == 12:
            self.sae.W_enc[0, 0] = torch.inf

    monkeypatch.setattr(Trainer, "took_step", overflow)
    (block,) = blocks(folder)
    found = measured(block, Settings())
    failures = [r["failure"]["message"] for r in found.values() if r["failure"]]
    assert failures == ["the weights are not finite after step 11"] * 2
    assert sorted(r["status"] for r in found.values()) == ["failed"] * 2 + ["ok"] * 4


def test_cells_that_lost_their_process_go_on_from_its_checkpoint(
    folder: Path, tmp_path: Path
) -> None:
    (block,) = blocks(folder)
    store = RecordStore(tmp_path)
    settings = Settings(states=tmp_path / "state", save_every=0)
    with pytest.raises(Killed):
        measured(block, settings, KilledAfter(7 * len(block.specs)))
    for record in failed_records(block, WorkerFailed("killed", "Take fewer workers.")):
        store.save(record)
    assert list(run(todo([block], store), store, settings)) == []
    assert [saved.step for saved in saved_states(tmp_path / "state")] == [6]
    records = list(run(todo([block], store, failed=True), store, settings))
    assert {record.provenance.resumed for record in records} == {1}
    assert comparable(records) == measured(block, Settings())
    assert not (tmp_path / "state").exists()


@pytest.mark.skipif(os.name != "posix", reason="limits the size of a file")
def test_a_full_disk_stops_the_run_at_a_checkpoint(folder: Path, tmp_path: Path) -> None:
    import resource

    (block,) = blocks(folder)
    settings = Settings(states=tmp_path / "state", save_every=0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*state\.pt \(File too large\)"):
            measured(block, settings)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_cell_that_had_diverged_stays_failed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    took = Trainer.took_step

    def diverge(self: Trainer, loss: Tensor) -> None:
        if self.arm.aux != "none" and self.step_number == 3:
            raise TrainingFailed("the loss is not finite at step 3", "Lower the learning rate.")
        took(self, loss)

    monkeypatch.setattr(Trainer, "took_step", diverge)
    (block,) = blocks(folder)
    settings = Settings(states=tmp_path / "state", save_every=0)
    undisturbed = measured(block, Settings())
    assert sorted(r["status"] for r in undisturbed.values()) == ["failed"] * 2 + ["ok"] * 4
    with pytest.raises(Killed):
        measured(block, settings, KilledAfter(9 * len(block.specs)))
    monkeypatch.setattr(Trainer, "took_step", took)
    assert measured(block, settings) == undisturbed


@pytest.mark.parametrize("damage", ["cut short", "a wrong byte", "other versions", "no JSON"])
def test_a_checkpoint_that_cannot_be_used_is_ignored_and_said(
    folder: Path, tmp_path: Path, damage: str
) -> None:
    (block,) = blocks(folder)
    settings = Settings(states=tmp_path / "state", save_every=0)
    with pytest.raises(Killed):
        measured(block, settings, KilledAfter(9 * len(block.specs)))
    (saved,) = saved_states(tmp_path / "state")
    state, summary = saved.folder / "state.pt", saved.folder / "block.json"
    content = bytearray(state.read_bytes())
    if damage == "cut short":
        state.write_bytes(content[:-1000])
    elif damage == "a wrong byte":
        content[len(content) // 2] ^= 1
        state.write_bytes(content)
    elif damage == "other versions":
        summary.write_text(summary.read_text().replace('"torch": "', '"torch": "1.'))
    else:
        summary.write_text("{")
    progress = Listener()
    assert measured(block, settings, progress) == measured(block, Settings())
    if damage != "no JSON":
        assert len(progress.notes) == 1
        assert "ignored" in progress.notes[0]


def test_blocks_are_grouped_as_the_checkpoint_was(folder: Path, tmp_path: Path) -> None:
    """Whatever memory is free now, and also where more cells are asked for than before."""
    (block,) = blocks(folder, layers=[2])
    settings = Settings(states=tmp_path / "state", save_every=0)
    with pytest.raises(Killed):
        measured(block, settings, KilledAfter(6 * len(block.specs)))
    wider = blocks(folder, layers=None, memory=1)
    assert [each.layers for each in wider] == [[0], [1], [2]]
    (whole,) = blocks(folder, layers=None)
    again = resume_blocks([whole], tmp_path / "state")
    assert [each.layers for each in again] == [[2], [0, 1]]
    assert {s.hash for b in again for s in b.specs} == {s.hash for s in whole.specs}
    assert resume_blocks(blocks(folder, layers=[0]), tmp_path / "state")[0].layers == [0]


def test_a_part_of_a_block_goes_on_from_the_whole_block_s_checkpoint(
    folder: Path, tmp_path: Path
) -> None:
    (block,) = blocks(folder)
    settings = Settings(states=tmp_path / "state", save_every=0)
    with pytest.raises(Killed):
        measured(block, settings, KilledAfter(7 * len(block.specs)))
    part = block.only(spec for spec in block.specs if spec.layer == 2 and spec.arm != "raw")
    progress = Listener()
    expected = measured(block, Settings())
    assert measured(part, settings, progress).items() <= expected.items()
    assert progress.notes == ["made0: resumes after step 6 of 12"]


def test_status_says_what_is_half_done(
    folder: Path, tmp_path: Path, bench: Callable[..., tuple[int, str, str]]
) -> None:
    (block,) = blocks(folder)
    settings = Settings(states=Path("runs/state"), save_every=0)
    with pytest.raises(Killed):
        measured(block, settings, KilledAfter(7 * len(block.specs)))
    code, out, _ = bench("status")
    assert code == 0
    assert "6 cells, step 6 of 12" in out
