"""Records are written whole or not at all, and a changed one is noticed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bench.records.schema import Failure, make_record
from bench.records.store import RecordStore, read_record
from bench.records.versions import SCHEMA_VERSION
from tests.records import make_record as example
from zoo.errors import BadCorpus, BadRecord, OutputError


@pytest.fixture
def store(tmp_path: Path) -> RecordStore:
    return RecordStore(tmp_path)


def test_a_record_reads_back_as_it_was_written(store: RecordStore) -> None:
    record = example()
    path = store.save(record)
    assert path == store.folder / record.spec.model / f"{record.spec.hash}.json"
    loaded = store.load(record.spec)
    assert loaded is not None
    assert loaded.content() == record.content()
    assert [each.hash for each in store] == [record.hash]


def test_no_record_is_no_error(store: RecordStore) -> None:
    assert store.load(example().spec) is None
    assert list(store) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d["result"].update(predicted_dead=0.5), "was edited"),
        (lambda d: d["spec"].update(layer=7), "was edited"),
        (lambda d: d.update(digest="0" * 20), "was edited"),
        (lambda d: d.pop("digest"), "was edited"),
        (lambda d: d.update(version=99), "has version 99; this gammabench reads versions 1 to 2"),
        (lambda d: d.pop("version"), "no version"),
    ],
)
def test_an_edited_record_is_refused(store: RecordStore, change, says: str) -> None:
    path = store.save(example())
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(BadRecord) as caught:
        read_record(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_consistently_edited_spec_is_refused_by_its_name(store: RecordStore) -> None:
    record = example()
    path = store.save(record)
    path.rename(path.with_name("0" * 20 + ".json"))
    with pytest.raises(BadRecord, match=f"its Spec has the hash {record.hash}"):
        read_record(path.with_name("0" * 20 + ".json"))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "\x00", '{"version": 1, "x": NaN}', "[" * 100_000]
)
def test_a_broken_file_is_refused(store: RecordStore, text: str) -> None:
    path = store.save(example())
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadRecord, match="is not a record"):
        read_record(path)


def test_a_number_that_is_none_cannot_be_recorded() -> None:
    result = example().result
    assert result is not None
    with pytest.raises(ValueError, match="finite"):
        type(result).model_validate(result.model_dump() | {"predicted_dead": float("nan")})


def test_a_failed_write_leaves_the_old_record_and_no_litter(
    store: RecordStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = example()
    path = store.save(record)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        store.save(record)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_folder_that_is_a_file_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "records").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match="Give a folder that can be written to"):
        RecordStore(tmp_path).save(example())


def test_a_failed_cell_keeps_its_reason() -> None:
    good = example()
    record = make_record(good.spec, BadCorpus("it is empty", "Fill it."), good.provenance)
    assert record.status == "failed"
    assert record.result is None
    assert record.failure == Failure(kind="BadCorpus", message="it is empty", remedy="Fill it.")
    assert str(record.failure) == "it is empty. Fill it."


def test_an_unexpected_exception_keeps_its_type_and_its_first_words() -> None:
    failure = Failure.of(RuntimeError("line one\nline two " + "x" * 5000))
    assert failure.kind == "RuntimeError"
    assert failure.message.startswith("line one line two")
    assert len(failure.message) <= 2000


def test_what_is_compared_leaves_out_when_and_where() -> None:
    one = example()
    later = one.model_copy(
        update={"provenance": one.provenance.model_copy(update={"seconds": 9.9})}
    )
    assert one.comparable() == later.comparable()
    assert one.content() != later.content()
    assert one.version == SCHEMA_VERSION
