"""Folders that commands are given: checkpoints, SAEs, dumps, records, and published tables."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.hostile.corpora import NO_FILES, bomb
from tests.hostile.words import VALUES, spoiled
from tests.records import make_grid, make_record, write_records
from zoo.files import content_hash

Named = Iterator[tuple[str, Path]]

JSONS = {
    "empty": b"",
    "half": b'{"a": ',
    "list": b"[]",
    "null": b"null",
    "number": b"3",
    "deep": b'{"a":' * 50_000,
    "deep list": b"[" * 100_000,
    "digits": b'{"n": ' + b"9" * 6000 + b"}",
    "nan": b'{"n": NaN, "model_type": NaN}',
    "not utf-8": b'{"\xff": 1}',
    "utf-16": '{"a": 1}'.encode("utf-16"),
    "null bytes": bytes(1000),
    "lone surrogate": b'{"model_type": "\\ud800", "id": "\\udfff"}',
    "twice": b'{"a": 1, "a": 2}',
    "html": b"<!DOCTYPE html>",
}


def folders_like(good: Path, to: Path, names: list[str]) -> Named:
    """Copies of a folder in each of which one of the files named is something else."""
    for name in names:
        for wrong, data in JSONS.items():
            copy = Path(shutil.copytree(good, to / f"{name} {wrong}"))
            (copy / name).write_bytes(data)
            yield f"{name}: {wrong}", copy
        for wrong, make in NO_FILES.items():
            copy = Path(shutil.copytree(good, to / f"{name} {wrong}"))
            (copy / name).unlink()
            make(copy / name)
            yield f"{name}: {wrong}", copy
        copy = Path(shutil.copytree(good, to / f"without {name}"))
        (copy / name).unlink()
        yield f"without {name}", copy


def folders_saying(good: Path, to: Path, name: str, keys: list[str]) -> Named:
    """Copies of a folder in which a key of a JSON file has each of some values."""
    document = json.loads((good / name).read_text())
    chosen = {key: document.get(key, 1) for key in keys}
    for number, (wrong, changed) in enumerate(spoiled(chosen, every=19)):
        copy = Path(shutil.copytree(good, to / f"said {number}"))
        (copy / name).write_text(json.dumps(document | changed))
        yield f"{name}: {wrong}", copy


def outputs(to: Path) -> Named:
    """Output folders with one good record and one bad, or with what is none."""
    good = [make_record(model="tiny-a")]
    for wrong, data in JSONS.items():
        yield f"record {wrong}", _output(to / f"record {wrong}", good, data)
    document = json.loads(json.dumps(make_grid(models=["tiny-b"], layers=[0])[0].content()))
    for number, (wrong, changed) in enumerate(spoiled(document, every=101)):
        text = json.dumps(_signed(changed)).encode()
        yield f"record, {wrong}", _output(to / f"spoiled {number}", good, text)
    for wrong, make in NO_FILES.items():
        folder = _output(to / f"no record {wrong}", good, None)
        make(folder / "records" / "tiny-a" / f"{'0' * 20}.json")
        yield f"record is {wrong}", folder
        (to / f"records {wrong}").mkdir()
        make(to / f"records {wrong}" / "records")
        yield f"records is {wrong}", to / f"records {wrong}"
        folder = _output(to / f"state {wrong}", good, None)
        (folder / "state" / "abc").mkdir(parents=True)
        make(folder / "state" / "abc" / "state.pt")
        yield f"state is {wrong}", folder
    (to / "no folder").write_text("x")
    yield "file", to / "no folder"
    yield "nowhere", to / "nowhere"


def _output(folder: Path, records: list[Any], data: bytes | None) -> Path:
    write_records(folder, records)
    if data is not None:
        (folder / "records" / "tiny-a" / f"{'0' * 20}.json").write_bytes(data)
    return folder


def _signed(document: Any) -> Any:
    """With the hash and digest that its author would have given it."""
    try:
        content = {key: value for key, value in document.items() if key != "digest"}
        content["hash"] = content_hash(content["spec"])
        return content | {"digest": content_hash(content)}
    except (ValueError, TypeError, KeyError):
        return document


def csvs(header: str) -> Iterator[tuple[str, bytes]]:
    """Tables that claim to be published ones with this header."""
    columns = header.split(",")
    yield "empty", b""
    yield "header alone", header.encode()
    yield "other header", b"a,b\n1,2\n"
    yield "twice a column", (header + "," + columns[0] + "\n" + "1," * len(columns) + "1").encode()
    yield "zeros", bytes(4096)
    yield "not utf-8", header.encode() + b"\n\xff\xfe"
    yield "utf-16", header.encode("utf-16")
    yield "long field", header.encode() + b"\n" + b"x" * (1 << 18)
    yield "quote", header.encode() + b'\n"' + b"x," * 1000
    yield "gzip", bomb(b"a")
    for value in (*map(str, VALUES), "nan", "inf", "-1e400", "9" * 6000, "=1+1", "\x1b[31m", "١"):
        row = ",".join([value.replace("\n", " ")] * len(columns))
        yield f"all {value[:20]}", f"{header}\n{row}\n{row}\n".encode("utf-8", "surrogatepass")
