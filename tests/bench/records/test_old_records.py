"""Records that were written before the schema had all it has now still load, and are told of.

`old_records` holds one as each schema there ever was wrote it. A change of the schema adds a folder
to it and changes none.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.records.store import RecordStore, read_record
from bench.records.versions import SCHEMA_VERSION
from leaderboard import export_cells, render, write_boards

FOLDER = Path(__file__).parent / "old_records"
SCHEMAS = ("tiny-first", "tiny-curves", "tiny-attribution")
PATHS = [path for name in SCHEMAS for path in (FOLDER / name).glob("*.json")]


def test_there_is_one_of_each_schema() -> None:
    assert len(PATHS) == len(SCHEMAS) == len(list(FOLDER.iterdir()))
    trained = [json.loads(path.read_text(encoding="utf-8"))["result"] for path in PATHS]
    assert ["curve" in each["training"]["revival"] for each in trained] == [False, True, True]
    assert ["attribution" in each for each in trained] == [False, False, True]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.parent.name)
def test_an_old_record_loads_with_all_its_numbers(path: Path) -> None:
    stored = json.loads(path.read_text(encoding="utf-8"))
    record = read_record(path)
    assert record.hash == stored["hash"] == path.stem
    training = stored["result"]["training"]
    for path_of_death in ("", "_relu", "_topk"):
        first = training.pop(f"revival{path_of_death}")
        first["fired"] = first.pop("revived")
        training[f"first_firing{path_of_death}"] = first
    training["checkpoints"] = [
        each | {"fates_relu": None, "fates_topk": None} for each in training["checkpoints"]
    ]
    assert _holds(record.content(), stored | {"version": SCHEMA_VERSION}) == []


def test_old_and_new_records_make_boards_and_tables_together(tmp_path: Path) -> None:
    records = [read_record(path) for path in PATHS]
    overview = render(records)["README.md"]
    assert all(name in overview for name in SCHEMAS)
    for record, path in zip(records, PATHS, strict=True):
        target = RecordStore(tmp_path).path(record.spec)
        target.parent.mkdir(parents=True)
        target.write_bytes(path.read_bytes())
    write_boards(tmp_path, figures=False)
    cells, _ = export_cells(tmp_path, tmp_path / "export", ["json"])
    rows = json.loads(cells.read_text(encoding="utf-8"))
    assert {row["spec.model"] for row in rows} == set(SCHEMAS)


def _holds(loaded: object, stored: object, where: str = "") -> list[str]:
    """Where `loaded` lacks something of `stored`, or has another value; it may have more keys."""
    if isinstance(stored, dict) and isinstance(loaded, dict):
        missing = [f"{where}.{key}" for key in stored.keys() - loaded.keys() - {"digest"}]
        common = stored.keys() & loaded.keys()
        return missing + [
            each for key in common for each in _holds(loaded[key], stored[key], f"{where}.{key}")
        ]
    return [] if loaded == stored else [where]
