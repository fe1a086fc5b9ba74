"""All cells as one flat table (CSV, JSON, Parquet), and its data dictionary.

The columns are the record's schema written out: a nested part's fields follow its name and a dot.
What the schema says of a field is what the dictionary says of the column.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel

from bench.plan.protocol import AXES, GONE, Protocol
from bench.records.data_kind import data_of_record
from bench.records.published_saes import SAMPLE_KEYS, PublishedRecord, PublishedStore
from bench.records.schema import Record
from bench.records.store import OnBad, RecordStore
from bench.sae.arms import PRESETS
from leaderboard.columns.death import (
    DUE_TO_MEAN,
    DUE_TO_NEITHER,
    DUE_TO_SPECTRUM,
    END,
    INIT,
)
from leaderboard.columns.kinds import Metric
from leaderboard.columns.revival import BORN_DEAD
from leaderboard.text import NOTHING, escape, table
from zoo.errors import UsageError
from zoo.files import write_together
from zoo.install import install_line

ExportFormat = Literal["csv", "json", "parquet"]
DICTIONARY = "cells.md"
_PUBLISHED = "published-saes"

# Shares that are asked for most, beside the numbers of features that records hold.
_DERIVED: dict[str, Metric] = {
    "share_dead_init": INIT,
    "share_dead_end": END,
    "share_durable": BORN_DEAD.durable,
    "share_relapsed": BORN_DEAD.relapsed,
    "share_never_fired": BORN_DEAD.never,
    "share_owed_to_mean": DUE_TO_MEAN,
    "share_owed_to_spectrum": DUE_TO_SPECTRUM,
    "share_owed_to_neither": DUE_TO_NEITHER,
}
_ENDS = {
    "": "share: ",
    ".low": "lower end of the 95 % interval, over features, of the share: ",
    ".high": "upper end of the 95 % interval, over features, of the share: ",
}

# Spreadsheets take text that begins so for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")

_Kind = Literal["integer", "number", "text", "boolean", "JSON"]
_KINDS: dict[Any, _Kind] = {int: "integer", float: "number", str: "text", bool: "boolean"}


@dataclass(frozen=True)
class ExportColumn:
    """One column: where it is in a record, and what the schema says of it."""

    name: str
    kind: _Kind
    nullable: bool
    description: str
    read: Callable[[Mapping[str, Any]], Any]


def export_cells(
    output: Path,
    folder: Path,
    formats: Sequence[ExportFormat] = ("csv",),
    *,
    on_bad: OnBad | None = None,
) -> list[Path]:
    """Writes `cells.<format>` and the data dictionary `cells.md` of an output folder's records.

    Where there are records of published SAEs, `published-saes.<format>` and `.md` too.

    Returns:
        The files written.

    Raises:
        BadRecord: a record is broken, edited, or of an unknown version, and there is no `on_bad`,
            which is told of it and lets the others be written.
        UsageError: Parquet was asked for and pyarrow is not installed, or there are no records.
        OutputError: the folder cannot be written to.
    """
    if "parquet" in formats and importlib.util.find_spec("pyarrow") is None:
        raise UsageError("Parquet needs the package pyarrow", install_line("parquet"))
    cells = flat_cells(RecordStore(output).read(on_bad))
    published = flat_published(PublishedStore(output).read(on_bad))
    if not cells and not published:
        raise UsageError(f"no records in {output}", "`bench run` makes some.")
    files: dict[Path, str | bytes] = {}
    if cells:
        named = cell_columns()
        files |= _files(folder / DICTIONARY, cells, named, formats, dictionary())
    if published:
        shown = published_columns()
        text = _dictionary("Columns of published SAEs", _ABOUT_PUBLISHED, shown)
        files |= _files(folder / f"{_PUBLISHED}.md", published, shown, formats, text)
    # A table is of little use without the dictionary of its columns.
    write_together(files, place="as --to DIR")
    return list(files)


def _files(
    described: Path,
    rows: Sequence[dict[str, Any]],
    named: Sequence[ExportColumn],
    formats: Sequence[ExportFormat],
    text: str,
) -> dict[Path, str | bytes]:
    """The rows in each format, and the dictionary of their columns."""
    files = {described.with_suffix(f".{each}"): _WRITERS[each](rows, named) for each in formats}
    return {**files, described: text + "\n"}


def flat_published(records: Iterable[PublishedRecord]) -> list[dict[str, Any]]:
    """A row per published SAE, failed ones included; the same for records in any order."""
    rows = []
    for record in records:
        document = record.model_dump(mode="json")
        rows.append({column.name: column.read(document) for column in published_columns()})
    keys = ("spec.domain", "spec.model", "spec.layer", "name", "hash")
    return sorted(rows, key=lambda row: tuple(row[key] for key in keys))


def flat_cells(records: Iterable[Record]) -> list[dict[str, Any]]:
    """A row per cell, failed ones included; the same for records in any order."""
    rows = []
    for record in records:
        document = record.model_dump(mode="json")
        row = {column.name: column.read(document) for column in columns()}
        rows.append(row | {"data": data_of_record(record)} | _derived(record))
    keys = ("spec.domain", "spec.model", "spec.layer", "spec.arm", "spec.seed", "hash")
    return sorted(rows, key=lambda row: tuple(row[key] for key in keys))


def _derived(record: Record) -> dict[str, float | None]:
    """The shares with the ends of their intervals over features."""
    row: dict[str, float | None] = {}
    for name, metric in _DERIVED.items():
        row[name] = metric.value(record)
        found = metric.interval([record]) if metric.interval and row[name] is not None else None
        row[f"{name}.low"], row[f"{name}.high"] = (found.low, found.high) if found else (None, None)
    return row


def dictionary() -> str:
    """The data dictionary as markdown: every column, its type, and what it means."""
    about = "One row per cell: a model, a layer, an arm and a seed. A failed cell has a "
    return _dictionary("Columns of the cells", about, [*columns(), *_derived_columns()])


_ABOUT_PUBLISHED = "One row per published SAE and layer; nothing was trained. A failed one has a "


def _dictionary(title: str, about: str, named: Sequence[ExportColumn]) -> str:
    rows = [
        [
            f"`{column.name}`",
            column.kind + (" or none" if column.nullable else ""),
            escape(column.description) if column.description else NOTHING,
        ]
        for column in named
    ]
    about += (
        "`failure` and no `result`. None is an empty field in CSV and null elsewhere; columns of "
        "the type JSON hold JSON text. In CSV, text that a spreadsheet would take for a formula "
        "begins with an apostrophe."
    )
    return f"# {title}\n\n{about}\n\n{table(['Column', 'Type', 'Meaning'], rows, 3)}"


@cache
def columns() -> tuple[ExportColumn, ...]:
    """The columns that the schema gives, in its order."""
    return tuple(_of_model(Record, ()))


@cache
def cell_columns() -> list[ExportColumn]:
    """Those of `flat_cells`: what records say, and what follows from it."""
    return [*columns(), *_derived_columns()]


def published_columns() -> tuple[ExportColumn, ...]:
    """Those of published SAEs, of whose protocol only the sample's keys are there."""
    sampled = {f"spec.protocol.{key}" for key in SAMPLE_KEYS}
    found = _of_model(PublishedRecord, ())
    return tuple(c for c in found if c.name in sampled or not c.name.startswith("spec.protocol."))


# ------------------------------------------------------------------------------------- the schema


def _of_model(model: type[BaseModel], path: tuple[str, ...], nullable: bool = False) -> Iterator:
    for name, field in model.model_fields.items():
        if path == ("spec", "protocol") and name in AXES:
            continue
        annotation, optional = _without_none(field.annotation)
        where, none = (*path, name), nullable or optional
        if where == ("spec", "protocol"):
            # A protocol that was recorded before a key came up lacks it.
            annotation, none = Protocol, True
        if where == ("result", "attribution"):
            text = field.description or ""
            for preset in PRESETS:
                yield from _leaf(int, (*where, preset), True, text)
        elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from _of_model(annotation, where, none)
        else:
            yield from _leaf(annotation, where, none, field.description or "")
        if where == ("spec", "protocol"):
            for key, instead in GONE.items():
                yield from _leaf(str, (*where, key), True, f"In older records only. {instead}")


def _leaf(
    annotation: Any, path: tuple[str, ...], nullable: bool, text: str
) -> Iterator[ExportColumn]:
    """A column; for a tuple of fixed length a column per item."""
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is tuple and Ellipsis not in arguments:
        for index, kind in enumerate(arguments):
            name = ("low", "high")[index] if len(arguments) == 2 else str(index)
            yield ExportColumn(
                ".".join((*path, name)), _kind(kind), nullable, text, _reader(path, index)
            )
        return
    yield ExportColumn(".".join(path), _kind(annotation), nullable, text, _reader(path))


def _without_none(annotation: Any) -> tuple[Any, bool]:
    """The annotation without its bounds and without None, and whether None was among it."""
    if typing.get_origin(annotation) is Annotated:
        return _without_none(typing.get_args(annotation)[0])
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        rest = [each for each in typing.get_args(annotation) if each is not type(None)]
        alone = _without_none(rest[0])[0] if len(rest) == 1 else annotation
        return alone, len(rest) < len(annotation.__args__)
    return annotation, False


def _kind(annotation: Any) -> _Kind:
    annotation, _ = _without_none(annotation)
    if typing.get_origin(annotation) is Literal:
        annotation = type(typing.get_args(annotation)[0])
    return _KINDS.get(annotation, "JSON")


def _reader(path: tuple[str, ...], index: int | None = None) -> Callable[[Mapping[str, Any]], Any]:
    def read(document: Mapping[str, Any]) -> Any:
        value: Any = document
        for key in path:
            if value is None:
                return None
            # A protocol of an older version may lack a key.
            value = value.get(key)
        return value if index is None or value is None else value[index]

    return read


def _derived_columns() -> list[ExportColumn]:
    def column(name: str, text: str, kind: _Kind = "number", nullable: bool = True) -> ExportColumn:
        return ExportColumn(name, kind, nullable, text, lambda document: None)

    data = "whether the model read real data or made data; of older records too"
    return [
        column("data", data, "text", nullable=False),
        *(
            column(name + end, prefix + metric.meaning)
            for name, metric in _DERIVED.items()
            for end, prefix in _ENDS.items()
        ),
    ]


# ------------------------------------------------------------------------------------- the formats


def csv_text(rows: Sequence[dict[str, Any]], named: Sequence[ExportColumn] = ()) -> str:
    """Rows of cells as CSV in which no text is a formula."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _csv_value(value) for key, value in row.items()} for row in rows)
    return buffer.getvalue()


def _csv_value(value: Any) -> Any:
    value = _text(value)
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _json(rows: Sequence[dict[str, Any]], named: Sequence[ExportColumn]) -> str:
    return json.dumps(rows, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _parquet(rows: Sequence[dict[str, Any]], named: Sequence[ExportColumn]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    types_ = {
        "integer": pyarrow.int64(),
        "number": pyarrow.float64(),
        "boolean": pyarrow.bool_(),
    }
    schema = pyarrow.schema(
        [
            pyarrow.field(
                column.name,
                types_.get(column.kind, pyarrow.string()),
                column.nullable,
                {"description": column.description},
            )
            for column in named
        ]
    )
    arrays = [[_text(row[field.name]) for row in rows] for field in schema]
    content = pyarrow.table(
        [pyarrow.array(values, field.type) for values, field in zip(arrays, schema, strict=True)],
        schema=schema,
    )
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(content, buffer)
    return buffer.getvalue()


_Writer = Callable[[Sequence[dict[str, Any]], Sequence[ExportColumn]], str | bytes]
_WRITERS: dict[ExportFormat, _Writer] = {
    "csv": csv_text,
    "json": _json,
    "parquet": _parquet,
}


def _text(value: Any) -> Any:
    """Lists and mappings as JSON text; everything else as it is."""
    if isinstance(value, list | dict):
        return json.dumps(value, sort_keys=True, ensure_ascii=False)
    return value
