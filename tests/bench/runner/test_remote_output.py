"""Output folders at a URL: several runs share them, and a run goes on where another was lost."""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import fsspec
import pytest

from bench.plan.blocks import Block, Request, make_plan
from bench.plan.protocol import load_protocol
from bench.records import mirror as mirrors
from bench.records.mirror import Mirror, mirror_of, open_output
from bench.records.store import RecordStore
from bench.runner import block as blocks_room
from bench.runner import claims, loop
from bench.runner import run as runs
from bench.runner.block import measure_block
from bench.runner.claims import claimed
from bench.runner.engines.local import LocalEngine
from bench.runner.measure import measure
from bench.runner.run import pending_blocks, run, todo
from bench.runner.settings import NoProgress, Settings
from tests.bench.runs import Killed, KilledAfter, Listener, comparable
from tests.conftest import TINY
from tests.made import write_made
from tests.records import make_grid, write_records
from zoo.errors import MeasuredElsewhere, OutputError, UsageError
from zoo.registry import load_registry

Bench = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> list[Block]:
    """Two blocks, of two cells each."""
    folder = write_made(tmp_path_factory.mktemp("made") / "cards", ["made0", "made1"], tokens=4096)
    registry = load_registry([folder])
    request = Request(
        cards=registry.select(models=["made*"]),
        protocol=load_protocol("quick", settings=TINY),
        layers=[0],
    )
    return make_plan(request, registry)


@pytest.fixture(scope="module")
def expected(plan: list[Block]) -> dict[str, dict]:
    return comparable(record for block in plan for record in measure_block(block))


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4().hex}/out"


def node(url: str, **options: Any) -> tuple[Path, Settings]:
    """What a run on another machine works in, and its settings."""
    folder = open_output(url)
    return folder, Settings(states=folder / "state", mirror=mirror_of(folder), **options)


def claimant(url: str, tmp_path: Path) -> Mirror:
    return Mirror(url, tmp_path / uuid.uuid4().hex)


def keys(s3: Any) -> set[str]:
    """The objects of the bucket, without the empty ones that stand for folders."""
    listed = s3.list_objects_v2(Bucket="bucket")["Contents"]
    return {item["Key"] for item in listed if not item["Key"].endswith("/")}


def test_a_working_folder_follows_what_is_there(url: str) -> None:
    first = mirror_of(open_output(url))
    assert first is not None
    path = first.folder / "records/m/a.json"
    path.parent.mkdir(parents=True)
    path.write_text("one")
    first.push(path)
    second = mirror_of(open_output(url))
    assert second is not None
    copy = second.folder / "records/m/a.json"
    assert copy.read_text() == "one"
    path.write_text("other")
    prices = first.folder / "prices.json"
    prices.write_text("{}")
    first.push(path, prices)
    second.pull()
    assert copy.read_text() == "other"
    assert (second.folder / prices.name).read_text() == "{}"
    first.remove(path, first.folder / "records/m/never-there.json")
    second.pull()
    assert not copy.exists()


def test_a_place_that_cannot_be_an_output_is_refused(tmp_path: Path) -> None:
    assert open_output(f"file://{tmp_path}") == tmp_path
    assert mirror_of(tmp_path) is None
    with pytest.raises(UsageError, match=r"cannot be written to. Give s3://BUCKET/PREFIX"):
        open_output("https://host/out")


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("s3://", "names nothing"),
        ("s3:///", "names nothing"),
        ("S3://bucket/out", "begin in small letters"),
        ("file://relative/out", "no whole path"),
        ("file://~/out", "no whole path"),
    ],
)
def test_what_only_looks_like_an_output_is_no_folder_of_that_name(place: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        open_output(place)


def test_tables_of_an_output_at_a_url_go_into_a_folder_that_stays(
    bench: Bench, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The store of this process is as good as another here.
    monkeypatch.setattr("bench.cli.output.LOST_WITH_THE_PROCESS", ())
    write_records(tmp_path / "made", make_grid(layers=[0]))
    Mirror(url, tmp_path / "made").push(tmp_path / "made" / "records")
    code, _, err = bench("export", "--output", url)
    assert (code, "Give --to DIR" in err) == (2, True)
    code, _, err = bench("export", "--output", url, "--to", "s3://bucket/tables")
    assert (code, "give a folder of this machine" in err) == (2, True)
    assert bench("export", "--output", url, "--to", "tables")[0] == 0
    assert (tmp_path / "tables" / "cells.csv").is_file()
    with pytest.raises(OutputError, match="--output: nosuch://a cannot be opened"):
        open_output("nosuch://a")


def test_an_interrupted_record_is_complete(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(source: Any, target: Any, size: int) -> None:
        while piece := source.read(100):
            target.write(piece)
            time.sleep(0.01)

    monkeypatch.setattr(shutil, "copyfileobj", slow)
    mirror = claimant(url, tmp_path)
    path = mirror.folder / "records/m/a.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x" * 2000)
    threading.Timer(0.05, signal.raise_signal, [signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        mirror.push(path)
    (stored,) = mirror.list("records").values()
    assert stored.size == 2000


def test_only_one_of_many_that_begin_at_once_claims_a_block(
    url: str, tmp_path: Path, plan: list[Block], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "_PAUSE", 0.2)
    monkeypatch.setattr(claims, "_TRIES", 10)
    inside, most, won = Counter[str](), [0], []
    ended, begun = threading.Event(), threading.Barrier(4)

    def contend() -> None:
        begun.wait()
        try:
            with claimed(claimant(url, tmp_path), plan[0]):
                inside["now"] += 1
                most[0] = max(most[0], inside["now"])
                won.append(threading.get_ident())
                ended.wait(5)
                inside["now"] -= 1
        except MeasuredElsewhere:
            pass

    threads = [threading.Thread(target=contend) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(1.0)
    ended.set()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert claimant(url, tmp_path).list("claims") == {}


def age(url: str) -> None:
    """Makes all claims look as if they had not been touched for longer than the lease."""
    for path, file in fsspec.filesystem("memory").store.items():
        if path.startswith(f"{url.removeprefix('memory:/')}/claims"):
            file.created -= timedelta(seconds=2 * claims.CLAIM_SECONDS)


def test_a_claim_holds_while_its_owner_lives(
    url: str, tmp_path: Path, plan: list[Block], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "_PAUSE", 0.01)
    monkeypatch.setattr(claims, "TOUCH_SECONDS", 0.02)
    with claimed(claimant(url, tmp_path), plan[0]):
        (before,) = claimant(url, tmp_path).list("claims").values()
        age(url)
        for _ in range(500):
            (now,) = claimant(url, tmp_path).list("claims").values()
            if now.modified > before.modified:
                break
            time.sleep(0.01)
        with pytest.raises(MeasuredElsewhere, match="at work on them"):
            claims._take(claimant(url, tmp_path), plan[0])
        with claimed(claimant(url, tmp_path), plan[1]):
            pass
    lost = claims._take(claimant(url, tmp_path), plan[0])  # and is never heard of again
    who = pytest.raises(MeasuredElsewhere, match=r"at work on them \(process \d+ on ")
    with who, claimed(claimant(url, tmp_path), plan[0]):
        pass
    age(url)
    with claimed(claimant(url, tmp_path), plan[0]):
        names = [Path(name).name for name in claimant(url, tmp_path).list("claims")]
        assert len(names) == 1
        assert lost.name not in names


@pytest.mark.parametrize("content", [b"", b'{"owner": "a", "cel', b'{"owner": "a"}', b"[]"])
def test_a_claim_that_cannot_be_read_counts(
    url: str, tmp_path: Path, plan: list[Block], content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "_PAUSE", 0.01)
    half = claims._take(claimant(url, tmp_path), plan[0])
    place = f"{url}/{claims.CLAIMS}/{half.parent.name}/{half.name}"
    fsspec.filesystem("memory").pipe(place, content)
    with pytest.raises(MeasuredElsewhere, match="its claim could not be read"):
        claims._take(claimant(url, tmp_path), plan[0])
    age(url)
    with claimed(claimant(url, tmp_path), plan[0]):
        assert half.name not in [Path(name).name for name in claimant(url, tmp_path).list("claims")]


def test_two_runs_at_one_prefix_measure_each_cell_once(
    s3: Any, plan: list[Block], expected: dict[str, dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "_PAUSE", 0.01)
    measured: list[str] = []

    def counted(block: Block, *rest: Any, **options: Any) -> Any:
        measured.extend(spec.hash for spec in block.specs)
        return measure_block(block, *rest, **options)

    monkeypatch.setattr(blocks_room, "measure_block", counted)
    engine, progress = LocalEngine(), NoProgress()
    (_, ours), (_, theirs) = (node("s3://bucket/shared") for _ in range(2))
    first = engine.records(plan, ours, progress)
    found = [next(first)]  # holds the first block while the other run goes through
    others = list(engine.records(plan, theirs, progress))
    left = {r.hash for r in others if r.failure and r.failure.is_elsewhere}
    assert left == {spec.hash for spec in plan[0].specs}
    found += first
    assert comparable(found) == expected
    assert sorted(measured) == sorted(expected)
    folder = open_output("s3://bucket/shared")
    assert comparable(RecordStore(folder)) == expected
    assert keys(s3) == {
        f"shared/records/{s.model}/{s.hash}.json" for block in plan for s in block.specs
    }
    monkeypatch.setattr(claims, "_LOOK", 0.0)
    began = time.monotonic()
    claims.wait_for_others(node("s3://bucket/shared")[1].mirror, plan)
    assert time.monotonic() - began < claims.CLAIM_SECONDS, "there is nothing to wait for"
    again = todo(plan, RecordStore(folder), force=True)
    assert len(pending_blocks(again)) == 2
    state = Settings(states=folder / "state", mirror=mirror_of(folder))
    redone = list(run(again, RecordStore(folder), state, progress=runs.RunProgress()))
    assert comparable(redone) == expected
    assert set(Counter(measured).values()) == {2}, "what is asked for anew is measured anew"


def test_cells_left_to_a_run_that_was_lost_are_measured_at_the_end(
    url: str,
    tmp_path: Path,
    plan: list[Block],
    expected: dict[str, dict],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(claims, "_PAUSE", 0.01)
    monkeypatch.setattr(runs, "wait_for_others", lambda mirror, blocks: age(mirror.url))
    claims._take(claimant(url, tmp_path), plan[0])  # and is never heard of again
    folder, settings = node(url)
    store, notes = RecordStore(folder), []
    progress = runs.RunProgress()
    monkeypatch.setattr(progress, "note", notes.append)
    assert comparable(run(todo(plan, store), store, settings, progress=progress)) == expected
    assert "cells left to other runs: 2; waits up to 60 seconds" in notes[-1]


def test_what_was_killed_goes_on_from_its_checkpoint_elsewhere(
    s3: Any, plan: list[Block], expected: dict[str, dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    block = plan[0]
    steps: list[int] = []
    stepped = loop.step_begins
    monkeypatch.setattr(loop, "step_begins", lambda: (steps.append(1), stepped())[1])
    _, settings = node("s3://bucket/lost", save_every=0)
    with pytest.raises(Killed):
        list(measure(block, settings, KilledAfter(7 * len(block.specs))))
    assert sorted(key.rpartition("/")[2] for key in keys(s3)) == ["block.json", "state.pt"]
    assert len(steps) == 7
    _, elsewhere = node("s3://bucket/lost", save_every=0)
    rest = Listener()
    found = comparable(measure(block, elsewhere, rest))
    assert found == {spec.hash: expected[spec.hash] for spec in block.specs}
    assert rest.notes == ["made0: resumes after step 6 of 12"]
    assert len(steps) == 7 + 6
    assert all("/records/" in key for key in keys(s3)), "the checkpoint is removed with its records"


def test_commands_read_and_write_a_bucket(
    s3: Any, bench: Bench, arguments: list[str], without_figures: None
) -> None:
    place = ["--output", "s3://bucket/runs"]
    asked = ["run", *arguments, "--layer", "0", "--save-saes", *place]
    code, out, err = bench(*asked)
    assert code == 0, err
    assert "leaderboards: s3://bucket/runs/leaderboards/README.md" in out
    assert "0 measured now, 2 done before" in bench(*asked)[1]
    (row,) = json.loads(bench("status", *place, "--json")[1])
    assert (row["done"], row["failed"]) == (2, 0)
    assert bench("validate", "s3://bucket/runs")[1] == "2 good, 0 bad\n"
    assert bench("report", "--check", *place)[0] == 0
    assert {key.split("/")[1] for key in keys(s3)} == {"leaderboards", "records", "saes"}
    key = next(key for key in keys(s3) if "/records/" in key)
    s3.put_object(Bucket="bucket", Key=key, Body=b"{}")
    code, _, err = bench("status", *place)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"bench: s3://bucket/{key} is not a record (no version)")


@pytest.mark.parametrize("command", [["run", "tiny-gpt2"], ["status"], ["report"]])
def test_a_bucket_that_is_not_there_is_one_line(command: list[str], s3: Any, bench: Bench) -> None:
    code, out, err = bench(*command, "--output", "s3://nowhere/runs")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("bench: s3://nowhere/runs cannot be read (")
    assert err.endswith("Check the bucket's name, and AWS_REGION.\n")


@pytest.mark.parametrize("command", [["run", "tiny-gpt2"], ["status"]])
def test_credentials_are_asked_for(
    command: list[str], s3: Any, bench: Bench, without_credentials: None
) -> None:
    s3.put_object(Bucket="bucket", Key="runs/records/made/a.json", Body=b"{}")
    code, out, err = bench(*command, "--output", "s3://bucket/runs")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("bench: s3://bucket/runs cannot be read (")
    assert "Name credentials that have access (AWS_ACCESS_KEY_ID" in err


@pytest.mark.parametrize("command", [["run", "tiny-gpt2"], ["report"], ["status"]])
def test_results_are_not_lost_with_the_process(command: list[str], bench: Bench) -> None:
    code, out, err = bench(*command, "--output", "memory://runs")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("bench: --output memory://runs: what is written there is lost when")
    assert "s3://BUCKET/FOLDER" in err


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leaderboard.figures.store.available", lambda: False)
    monkeypatch.setattr("leaderboard.boards.figure_problems", lambda *_: [])


def test_an_upload_is_tried_again(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrors, "_PAUSE", 0.0)
    mirror, tries = claimant(url, tmp_path), []
    system = type(fsspec.filesystem("memory"))
    real = system.open

    def failing(self: Any, path: str, mode: str = "rb", **options: Any) -> Any:
        if mode == "wb":
            tries.append(path)
            if len(tries) < 3:
                raise OSError("slow down")
        return real(self, path, mode, **options)

    monkeypatch.setattr(system, "open", failing)
    mirror.check_writable()
    assert len(tries) == 3
    tries[:] = []
    monkeypatch.setattr(mirrors, "_TRIES", 2)
    with pytest.raises(OutputError, match=r"memory://.* cannot be written to \(slow down\)"):
        mirror.check_writable()
    assert replace(mirror, url="memory://other").list("records") == {}
