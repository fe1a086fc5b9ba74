"""The page's tables as Parquet beside it: `models.parquet` and `cells.parquet`.

A browser makes CSV and JSON of what it shows, but no Parquet. Which files there are stands in
`downloads.js`, with the digest of the data that they were made of; there are none where pyarrow is
not installed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
from pathlib import Path
from typing import Any, NamedTuple

from zoo.files import remove, write_atomically

DOWNLOADS = "page/downloads.js"
_FILES = ("models.parquet", "cells.parquet")


class _Table(NamedTuple):
    titles: list[str]
    rows: list[list[Any]]


def downloads(data: str, *, there: bool) -> str:
    """The content of `downloads.js`. data: that of `data.js`."""
    found = {name: _digest(data) for name in _FILES} if there else {}
    return f"const GAMMABENCH_FILES = {json.dumps(found, separators=(',', ':'))};\n"


def listed_downloads(boards: Path, data: str) -> str:
    """The same for the files that are in the boards' folder."""
    return downloads(data, there=all((boards / "page" / name).is_file() for name in _FILES))


def write_downloads(boards: Path, data: str) -> tuple[str, list[Path]]:
    """Makes the files, where they are not of this data already; also what `downloads.js` says.

    Without pyarrow, or where there is nothing to show, those that are not of this data are removed.

    Raises:
        OutputError: the folder cannot be written to.
    """
    said, paths = boards / DOWNLOADS, [boards / "page" / name for name in _FILES]
    current = said.is_file() and said.read_text(encoding="utf-8") == downloads(data, there=True)
    if current and all(path.is_file() for path in paths):
        return downloads(data, there=True), paths
    shown = json.loads(data[data.index("{") : data.rindex("}") + 1])
    if not shown["models"] or importlib.util.find_spec("pyarrow") is None:
        for path in filter(Path.exists, paths):
            remove(path)
        return downloads(data, there=False), []
    for path, table in zip(paths, (_models(shown), _cells(shown)), strict=True):
        write_atomically(path, _parquet(table))
    return downloads(data, there=True), paths


# ------------------------------------------------------------------------------------- internals


def _digest(data: str) -> str:
    return hashlib.sha256(data.encode()).hexdigest()[:16]


def _models(shown: dict[str, Any]) -> _Table:
    """A row per model, as in the page's CSV."""
    columns = shown["modelColumns"]
    titles = [column["title"] for column in columns]
    rows = [
        [*_about(shown, model), _settled(model), *_as_titled(model["values"], columns)]
        for model in shown["models"]
    ]
    return _Table(["model", "domain", "data", "protocol", "settled", *titles], rows)


def _settled(model: dict[str, Any]) -> str | None:
    """In how many cells death at the end had settled, of those that can be judged."""
    judged = sum(each for _, each in model["settled"].values())
    settled = sum(each for each, _ in model["settled"].values())
    return f"{settled} of {judged} cells" if judged else None


def _cells(shown: dict[str, Any]) -> _Table:
    """A row per cell; the record's path is relative to the page."""
    columns = shown["cellColumns"]
    titles = [column["title"] for column in columns]
    rows = [
        [
            *_about(shown, shown["models"][index]),
            layer,
            shown["arms"][arm],
            seed,
            state,
            record,
            reason,
            settled,
            *_as_titled(numbers or [None] * len(titles), columns),
        ]
        for index, layer, arm, seed, state, record, numbers, reason, _, settled in shown["cells"]
    ]
    where = ["layer", "arm", "seed", "state", "record", "reason", "settled"]
    return _Table(["model", "domain", "data", "protocol", *where, *titles], rows)


def _as_titled(values: list[Any], columns: list[dict[str, Any]]) -> list[Any]:
    """Shares in percent, as their columns' titles say."""
    return [
        100 * value if column["show"] == "percent" and value is not None else value
        for value, column in zip(values, columns, strict=True)
    ]


def _about(shown: dict[str, Any], model: dict[str, Any]) -> list[str]:
    protocol = shown["settings"][model["setting"]]["name"]
    return [model["label"], model["domain"], model["data"], protocol]


def _parquet(table: _Table) -> bytes:
    import pyarrow
    import pyarrow.parquet

    columns = [list(values) for values in zip(*table.rows, strict=True)] or [[]] * len(table.titles)
    content = pyarrow.table(
        [pyarrow.array(values, _type(values)) for values in columns], names=table.titles
    )
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(content, buffer)
    return buffer.getvalue()


def _type(values: list[Any]) -> Any:
    """Of a column that may have no value at all."""
    import pyarrow

    there = {type(value) for value in values if value is not None}
    if there == {str}:
        return pyarrow.string()
    if there == {bool}:
        return pyarrow.bool_()
    return pyarrow.int64() if there == {int} else pyarrow.float64()
