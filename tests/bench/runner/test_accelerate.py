"""Which blocks the processes of a launcher measure together, each with a part of the rows."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.records.store import RecordStore
from bench.runner.block import measure_block
from bench.runner.engines import make_engine
from bench.runner.engines.accelerate import AccelerateEngine
from tests.bench.runner.test_engines import launched, plan
from tests.bench.runs import comparable
from tests.made import write_made
from zoo.errors import UsageError

Bench = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("accelerate")
    write_made(folder / "cards", ["made0", "made1"], tokens=4096)
    return folder


@pytest.mark.slow
def test_processes_of_torchrun_divide_rows(folder: Path) -> None:
    program = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "-m",
        "bench",
    ]
    options = ["--engine", "accelerate", "--divide-rows"]
    process = launched(folder, "divided", *options, program=program)
    assert process.wait(300) == 0, (folder / "divided.err").read_text()
    assert (folder / "divided.out").read_text().count("12 cells: ") == 1, "one process speaks"
    expected = comparable(record for block in plan(folder) for record in measure_block(block))
    records = {record.hash: record for record in RecordStore(folder / "divided")}
    assert records.keys() == expected.keys()
    for name, record in records.items():
        assert record.result is not None
        assert "each dictionary is divided by its rows over 2 processes" in record.provenance.notes
        found = record.comparable()["result"]
        for part in ("death_init", "death_end"):
            assert found[part] == expected[name]["result"][part]


def test_what_does_not_fit_a_device_is_measured_together(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = AccelerateEngine()
    blocks = plan(folder)
    monkeypatch.setattr(engine, "_capacity", lambda: None)
    assert engine._planned(blocks, 2) == (0, blocks), "of CPUs the memory is one"
    one = [block.only(block.specs[:1]).memory for block in blocks]
    monkeypatch.setattr(engine, "_capacity", lambda: max(one))
    assert engine._planned(blocks, 2)[0] == 0
    large = plan(folder, "n=1M", models="made0")
    capacity = large[0].only(large[0].specs[:1]).memory - 1
    monkeypatch.setattr(engine, "_capacity", lambda: capacity)
    together, found = engine._planned([*blocks, *large], 2)
    cells = [spec.hash for block in found[:together] for spec in block.specs]
    assert sorted(cells) == sorted(spec.hash for block in large for spec in block.specs)
    assert found[together:] == blocks


def test_rows_are_divided_by_several_processes_alone(bench: Bench) -> None:
    code, _, err = bench("run", "tiny-gpt2", "--divide-rows")
    assert (code, err.count("\n")) == (2, 1)
    assert "--divide-rows is for processes that accelerate launch has started" in err
    with pytest.raises(UsageError, match="--divide-rows: there is one process"):
        make_engine("accelerate", divide_rows=True)
