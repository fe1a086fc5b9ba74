"""Records as files: `<output>/records/<model>/<hash>.json`, safely read and written.

A file is written whole or not at all, and carries a digest of its content, so that a record that
was edited by hand is noticed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic

from bench.records.bounds import bounded_json
from bench.records.contradictions import contradictions
from bench.records.schema import Record
from bench.records.spec import Spec
from bench.records.versions import LIFTS, SCHEMA_VERSION, lift
from zoo.errors import BadRecord
from zoo.files import content_hash, read_bounded, write_atomically

# Is told of a file that is no record; the others are read.
OnBad = Callable[[BadRecord], object]

REDO = "Delete it and run again, or redo it with `bench run --force`."

RECORDS_FOLDER = "records"

# Bytes of a record file; one with long curves takes less than a MiB.
_LARGEST = 1 << 24


class RecordStore:
    """The records of one output folder."""

    def __init__(self, output: Path) -> None:
        self.folder = output / RECORDS_FOLDER

    def path(self, spec: Spec) -> Path:
        """Where the cell's record is, or will be."""
        return self.folder / spec.model / f"{spec.hash}.json"

    def load(self, spec: Spec) -> Record | None:
        """The cell's record; None where there is none. Raises `BadRecord`."""
        path = self.path(spec)
        return read_record(path) if path.is_file() else None

    def save(self, record: Record) -> Path:
        """Writes the record whole or not at all.

        Raises:
            OutputError: the folder cannot be written to, or the disk is full.
        """
        path = self.path(record.spec)
        write_atomically(path, document_text(record.content()))
        return path

    def paths(self) -> list[Path]:
        """All record files, in a fixed order."""
        return sorted(self.folder.glob("*/*.json"))

    def __iter__(self) -> Iterator[Record]:
        return self.read()

    def read(self, on_bad: OnBad | None = None) -> Iterator[Record]:
        """All records, in a fixed order.

        on_bad: is told of each file that is no record, or that lies in another model's folder;
        without it the first of them is raised.

        Raises:
            BadRecord: see above.
        """
        for path in self.paths():
            try:
                record = read_record(path)
                if path.parent.name != record.spec.model:
                    raise BadRecord(
                        f"{path}: is of model {record.spec.model!r}, not of its folder's",
                        "Move it to its model's folder, or delete it.",
                    )
            except BadRecord as error:
                if on_bad is None:
                    raise
                on_bad(error)
            else:
                yield record


def read_record(path: Path) -> Record:
    """The record in a file, checked, and lifted to the newest version of the schema.

    Raises:
        BadRecord: it is not JSON, of an unknown version, does not validate, was edited by hand,
            or is not the cell that its name says.
    """
    data = read_document(path, [*LIFTS, SCHEMA_VERSION])
    try:
        digest = data.pop("digest")
        record = Record.model_validate(lift(data) | {"digest": digest})
    except (KeyError, TypeError, AttributeError) as error:
        raise BadRecord(f"{path} is not a record (cannot be lifted: {error!r})", REDO) from None
    except pydantic.ValidationError as error:
        raise BadRecord(f"{path} is not a record ({first_problem(error)})", REDO) from None
    if found := next(contradictions(record), None):
        raise BadRecord(f"{path} is not a record ({found})", REDO)
    if record.hash != record.spec.hash or path.stem != record.hash:
        raise BadRecord(f"{path}: its Spec has the hash {record.spec.hash}", REDO)
    return record


def read_document(path: Path, versions: Sequence[int]) -> dict[str, Any]:
    """The JSON object in a file of records, of a known version and as its digest says.

    Raises:
        BadRecord: it is none.
    """
    try:
        data = bounded_json(read_bounded(path, _LARGEST))
    except (OSError, ValueError, RecursionError) as error:
        raise BadRecord(f"{path} is not a record ({error})", REDO) from None
    if not isinstance(data, dict) or "version" not in data:
        raise BadRecord(f"{path} is not a record (no version)", REDO)
    if data["version"] not in versions:
        read = " to ".join(map(str, dict.fromkeys((min(versions), max(versions)))))
        raise BadRecord(
            f"{path} has version {data['version']!r}; "
            f"this gammabench reads version{'s' * (len(versions) > 1)} {read}",
            "Update gammabench, or run the cell again.",
        )
    digest = data.pop("digest", None)
    if digest != content_hash(data):
        raise BadRecord(f"{path} was edited: its content does not match its digest", REDO)
    return data | {"digest": digest}


def first_problem(error: pydantic.ValidationError) -> str:
    """Where a document does not validate, and why."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}"


def document_text(content: Mapping[str, Any]) -> str:
    """What is written of a record: its content, and the digest of it."""
    whole = {**content, "digest": content_hash(content)}
    return json.dumps(whole, indent=1, allow_nan=False) + "\n"
