"""The page's tables as Parquet beside it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from leaderboard import check_boards, write_boards
from leaderboard.boards import BOARDS_FOLDER
from tests.leaderboard.page_records import HOSTILE, make_records
from tests.records import make_record, write_records


@pytest.fixture
def page(tmp_path: Path) -> Path:
    write_records(tmp_path, make_records())
    write_boards(tmp_path, figures=False)
    return tmp_path / BOARDS_FOLDER / "page"


def shown(page: Path) -> dict[str, Any]:
    text = (page / "data.js").read_text(encoding="utf-8")
    return json.loads(text.removeprefix("const GAMMABENCH = ").removesuffix(";\n"))


def files(page: Path) -> dict[str, str]:
    text = (page / "downloads.js").read_text(encoding="utf-8")
    return json.loads(text.removeprefix("const GAMMABENCH_FILES = ").removesuffix(";\n"))


def test_pandas_reads_what_the_page_shows(page: Path) -> None:
    data = shown(page)
    assert list(files(page)) == ["models.parquet", "cells.parquet"]
    models = pd.read_parquet(page / "models.parquet")
    assert list(models["model"]) == [model["label"] for model in data["models"]]
    for place, column in enumerate(data["modelColumns"]):
        expected = pd.Series([model["values"][place] for model in data["models"]], dtype=float)
        if column["show"] == "percent":  # in the unit of the title
            expected *= 100
        pd.testing.assert_series_equal(models[column["title"]], expected, check_names=False)
    cells = pd.read_parquet(page / "cells.parquet")
    assert len(cells) == len(data["cells"])
    (failed,) = cells[cells["state"] == "failed"].to_dict("records")
    assert (failed["model"], failed["reason"][:20]) == ("tiny-d", HOSTILE[:20])
    assert pd.isna(failed["gamma"])
    measured = cells[cells["state"] == "measured"]
    assert measured["layer"].dtype == "int64"
    assert (page / measured["record"].iloc[0]).resolve().is_file()
    assert measured["FVU"].notna().all()


def test_they_are_made_again_where_records_are_new_and_only_there(page: Path) -> None:
    output, path = page.parents[1], page / "cells.parquet"
    before = path.stat().st_mtime_ns
    write_boards(output, figures=False)
    assert path.stat().st_mtime_ns == before
    write_records(output, [make_record(model="tiny-e", domain="protein")])
    assert any("downloads.js differs" in line for line in check_boards(output))
    write_boards(output, figures=False)
    assert "tiny-e" in set(pd.read_parquet(path)["model"])
    assert check_boards(output) == []


def test_without_pyarrow_there_are_none_and_none_is_offered(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, there = page.parents[1], importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pyarrow" else there(name)
    )
    write_boards(output, figures=False)  # they are of these records
    assert files(page)
    write_records(output, [make_record(model="tiny-e", domain="protein")])
    write_boards(output, figures=False)
    assert (files(page), list(page.glob("*.parquet"))) == ({}, [])
    assert check_boards(output) == []
