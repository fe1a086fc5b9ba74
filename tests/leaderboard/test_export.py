from __future__ import annotations

import csv
import errno
import importlib.util
import io
import json
import os
import random
import re
from pathlib import Path

import pytest

from bench.intervals import binomial_interval
from bench.records.store import RecordStore
from leaderboard.export import ExportFormat, columns, dictionary, export_cells, flat_cells
from tests.leaderboard.tables import tables
from tests.records import make_grid, make_record, write_records
from zoo.errors import BadWeights, OutputError, UsageError
from zoo.install import install_line


@pytest.fixture
def output(tmp_path: Path) -> Path:
    write_records(tmp_path, make_grid(models={"tiny-a": "language", "tiny-b": "vision"}))
    bad = make_record(model="tiny-c", outcome=BadWeights('=cmd|"x", y', "two\nlines"))
    write_records(tmp_path, [bad])
    return tmp_path


def test_every_cell_is_a_row_in_a_fixed_order(output: Path) -> None:
    records = list(RecordStore(output))
    rows = flat_cells(records)
    assert {row["hash"] for row in rows} == {record.hash for record in records}
    assert flat_cells(random.Random(3).sample(records, len(records))) == rows


def test_a_key_that_only_older_records_have_is_exported() -> None:
    (old,) = flat_cells([make_record(arm="raw+auxk", protocol={"aux_codes": "relu"})])
    assert old["spec.protocol.aux_codes"] == "relu"
    (new,) = flat_cells([make_record()])
    assert new["spec.protocol.aux_codes"] is None


def test_values_are_those_of_the_records_unrounded(output: Path) -> None:
    by_hash = {record.hash: record for record in RecordStore(output)}
    for row in flat_cells(by_hash.values()):
        record = by_hash[row["hash"]]
        assert row["spec.protocol.n"] == 768
        assert row["status"] == record.status
        if record.result is None or record.result.training is None:
            assert row["result.statistics.gamma"] is None
            assert row["share_dead_end"] is None
            assert row["failure.kind"] == "BadWeights"
            continue
        revival = record.result.training.revival
        assert revival is not None
        assert row["result.training.revival.durable"] == revival.durable
        assert row["result.statistics.gamma"] == record.result.statistics.gamma
        assert row["result.training.fvu"] == record.result.training.fvu
        low_high = (
            row["result.training.revival.interval.low"],
            row["result.training.revival.interval.high"],
        )
        assert low_high == (revival.interval or (None, None))
        assert row["share_dead_end"] == record.result.death_end.dead / 768
        interval = binomial_interval(record.result.death_end.dead, 768)
        assert row["share_dead_end.low"] == interval.low
        assert row["share_dead_end.high"] == interval.high
        died = record.result.attribution
        assert died is not None
        assert row["share_owed_to_mean"] == (died["raw"] - died["centered"]) / 768
        assert row["share_owed_to_mean.low"] < row["share_owed_to_mean.high"]
        assert len(row["result.training.checkpoints"]) == len(record.result.training.checkpoints)


def test_every_leaf_of_every_record_has_a_column(output: Path) -> None:
    names = {column.name for column in columns()}

    def leaves(value: object, path: str) -> list[str]:
        if path in names or not isinstance(value, dict):
            return [path]
        return [leaf for key in value for leaf in leaves(value[key], f"{path}.{key}".lstrip("."))]

    for record in RecordStore(output):
        document = record.model_dump(mode="json")
        for leaf in leaves(document, ""):
            # A part that is null has columns below it; an interval has one for either end.
            assert leaf in names or any(name.startswith(f"{leaf}.") for name in names), leaf


def test_csv_reads_back(output: Path, tmp_path: Path) -> None:
    path, _ = export_cells(output, tmp_path / "data")
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
    expected = flat_cells(RecordStore(output))
    assert [row["hash"] for row in rows] == [row["hash"] for row in expected]
    assert [float(row["share_dead_init"] or -1) for row in rows] == [
        -1 if row["share_dead_init"] is None else row["share_dead_init"] for row in expected
    ]
    assert json.loads(rows[0]["spec.card"]) == expected[0]["spec.card"]


def test_csv_holds_no_formulas(output: Path, tmp_path: Path) -> None:
    path, _ = export_cells(output, tmp_path / "data")
    text = io.StringIO(path.read_text(encoding="utf-8"), newline="")
    cells = [cell for row in csv.reader(text) for cell in row]
    assert '\'=cmd|"x", y' in cells
    for cell in cells:
        assert not cell.startswith(("=", "+", "@", "\t")), cell


def test_json_reads_back(output: Path, tmp_path: Path) -> None:
    path, _ = export_cells(output, tmp_path / "data", ["json"])
    assert json.loads(path.read_text(encoding="utf-8")) == flat_cells(RecordStore(output))


def test_parquet_reads_back(output: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path, _ = export_cells(output, tmp_path / "data", ["parquet"])
    table = parquet.read_table(path)
    expected = flat_cells(RecordStore(output))
    for name in ("hash", "result.statistics.gamma", "share_never_fired", "provenance.git_dirty"):
        assert table[name].to_pylist() == [row[name] for row in expected]
    described = table.schema.field("result.statistics.gamma").metadata[b"description"].decode()
    assert described == "||mu|| / ||sigma|| after a per-token LayerNorm"


def test_without_pyarrow_the_remedy_is_named(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UsageError,
        match=re.escape(f"needs the package pyarrow. {install_line('parquet')}"),
    ):
        export_cells(output, tmp_path / "data", ["csv", "parquet"])
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", ["csv", "json"])
def test_the_same_records_give_the_same_bytes(
    output: Path, tmp_path: Path, name: ExportFormat
) -> None:
    first, _ = export_cells(output, tmp_path / "a", [name])
    second, _ = export_cells(output, tmp_path / "b", [name])
    assert first.read_bytes() == second.read_bytes()


def test_the_dictionary_names_every_column(output: Path) -> None:
    (found,) = tables(dictionary())
    named = [cell.strip("`") for cell in found.column("Column")]
    assert named == list(flat_cells(RecordStore(output))[0])
    row = found.row(Column="`result.statistics.gamma_rms`")
    assert row == {
        "Column": "`result.statistics.gamma_rms`",
        "Type": "number or none",
        "Meaning": "the same after dividing each token by its RMS",
    }


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no records in"):
        export_cells(tmp_path, tmp_path / "data")


@pytest.mark.parametrize("writes", [1, 2, 3])
def test_a_full_disk_leaves_all_files_as_they_were_and_names_the_option(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    to = tmp_path / "tables"
    before = {path: path.read_bytes() for path in export_cells(output, to, ["csv", "json"])}
    write_records(output, make_grid(models=("tiny-d",)))
    sync, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == writes:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError) as caught:
        export_cells(output, to, ["csv", "json"])
    assert "(No space left on device)" in caught.value.message
    assert caught.value.remedy == "Make room there, or give a folder on another disk as --to DIR."
    assert {path: path.read_bytes() for path in to.iterdir()} == before
