"""A record of any older version of the schema is lifted, step by step, to the newest."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

import bench.records.versions as versions
from bench.records.schema import Record, make_record
from bench.records.store import RecordStore, read_record
from bench.records.versions import LIFTS, SCHEMA_VERSION, lift
from tests.records import make_record as example
from zoo.errors import BadCorpus, BadRecord
from zoo.files import content_hash

FOLDER = Path(__file__).parent / "old_records"
STORED = {
    path.parent.name: json.loads(path.read_text(encoding="utf-8"))
    for path in FOLDER.glob("*/*.json")
}


def test_there_is_a_lift_from_every_older_version_and_a_stored_record_of_it() -> None:
    assert list(LIFTS) == list(range(1, SCHEMA_VERSION))
    assert {record["version"] for record in STORED.values()} >= set(LIFTS)


# Not measured before version 2.
MASSIVE = ("median_norm", "norm_ratio", "massive_share", "energy_share")


@pytest.mark.parametrize("name", STORED)
def test_a_stored_record_of_version_1_becomes_one_of_version_2(name: str) -> None:
    stored = STORED[name]
    lifted = LIFTS[1](copy.deepcopy(stored))
    result, before = lifted["result"], stored["result"]
    assert result["attribution"] == before.get("attribution")
    assert result["special_tokens"] is None
    assert result["training"]["transitions"] is None
    first, old = result["training"]["first_firing"], before["training"]["revival"]
    assert first["curve"] == old.get("curve", [])
    assert (first["born"], first["fired"]) == (old["born"], old["revived"])
    assert result["training"]["revival"] is None
    assert "only the first firing" in result["training"]["revival_reason"]
    unknown = {key: result["statistics"].pop(key) for key in MASSIVE}
    assert set(unknown.values()) == {None}
    assert result["statistics"] == before["statistics"]
    assert result["prediction"] is None
    assert result["training"]["fvu_ordinary"] is None


@pytest.mark.parametrize("name", STORED)
def test_a_lifted_record_has_every_key_of_the_newest_and_no_other(name: str) -> None:
    lifted = lift(STORED[name]) | {"digest": ""}
    assert Record.model_validate(lifted).model_dump(mode="json") == lifted


def test_lifting_leaves_what_was_read_as_it_was() -> None:
    stored = STORED["tiny-first"]
    before = copy.deepcopy(stored)
    assert lift(stored)["version"] == SCHEMA_VERSION
    assert stored == before


def test_a_failed_cell_is_lifted_too(tmp_path: Path) -> None:
    failed = make_record(example().spec, BadCorpus("it is empty"), example().provenance)
    path = as_version_1(tmp_path, failed)
    assert read_record(path).content() == failed.content()


def test_a_record_that_no_lift_understands_is_refused(tmp_path: Path) -> None:
    path = as_version_1(tmp_path, example(), result={"training": 3})
    with pytest.raises(BadRecord, match="is not a record"):
        read_record(path)


def test_steps_follow_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LIFTS, 2, lambda record: record | {"new": record["version"]})
    monkeypatch.setattr(versions, "SCHEMA_VERSION", 3)
    lifted = lift(STORED["tiny-first"])
    assert (lifted["version"], lifted["new"]) == (3, 2)


def as_version_1(output: Path, record: Record, **changes: object) -> Path:
    """The record's file, as the first version would have written it."""
    content = record.content() | {"version": 1} | changes
    path = RecordStore(output).path(record.spec)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content | {"digest": content_hash(content)}), encoding="utf-8")
    return path
