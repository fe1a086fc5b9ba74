"""The list of columns: an entry of it is all that a column needs, in every medium."""

from __future__ import annotations

import json
import re

import pytest

from bench.records.schema import Record
from leaderboard import render, summary
from leaderboard.columns.kinds import (
    Table,
    by_row,
    each_arm,
    first_arm,
    in_raw,
    metric,
    raw_and_centered,
)
from leaderboard.columns.revival import BORN_DEAD
from leaderboard.columns.tables import COLUMNS, arm_columns, columns_of
from leaderboard.compare import comparison_text, pair
from leaderboard.groups import group_records
from leaderboard.text import integer
from leaderboard.web.page import STATIC, page_data
from tests.leaderboard.tables import table, tables
from tests.records import make_grid, make_record

ARMS = ["raw", "centered", "whitened"]


def layer_and_arm(record: Record) -> float:
    """A number that tells every layer and arm apart: 12 for layer 1 and the third arm."""
    return 10 * record.spec.layer + ARMS.index(record.spec.arm)


TRIAL = metric(
    "Trial",
    "a number of this test",
    layer_and_arm,
    in_raw(Table.BY_DEATH)
    | raw_and_centered(Table.WEB_MODELS)
    | each_arm(Table.DOMAIN_INIT)
    | first_arm(Table.TERMINAL)
    | by_row(Table.MODEL_DEATH, Table.WEB_CELLS, Table.COMPARISON),
    show=integer,
)


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> list[Record]:
    """Records of two layers and three arms, with one more entry in the list of columns."""
    monkeypatch.setattr("leaderboard.columns.tables.COLUMNS", [*COLUMNS, TRIAL])
    return make_grid(models={"tiny-a": "language"}, layers=[0, 1], arms=ARMS)


@pytest.mark.parametrize(
    ("page", "heading", "row", "shown"),
    [
        ("README.md", "By death at initialisation", {"Model": "tiny-a"}, {"Trial raw": "5 (0–10)"}),
        (
            "language.md",
            "Models at initialisation",
            {"Model": "tiny-a"},
            {"Trial raw": "5 (0–10)", "Trial centered": "6 (1–11)", "Trial whitened": "7 (2–12)"},
        ),
        (
            "language.md",
            "Layers at initialisation",
            {"Layer": "1"},
            {"Trial raw": "10", "Trial centered": "11", "Trial whitened": "12"},
        ),
        (
            "models/tiny-a.md",
            "Death by path",
            {"Layer": "1", "Arm": "whitened"},
            {"Trial": "12"},
        ),
    ],
)
def test_an_entry_gives_a_header_its_cells_and_a_line_of_the_legend(
    records: list[Record], page: str, heading: str, row: dict[str, str], shown: dict[str, str]
) -> None:
    text = render(records)[page]
    found = table(text, heading).row(**row)
    assert {title: cell for title, cell in found.items() if title.startswith("Trial")} == shown
    assert text.count("- **Trial**: a number of this test.") == 1
    trial = [each for each in tables(text) if any(h.startswith("Trial") for h in each.headers)]
    # It stands in no table but those that it names.
    assert len(trial) == (2 if page == "language.md" else 1)


def test_an_entry_gives_the_web_page_its_column_with_numbers(records: list[Record]) -> None:
    text = render(records)["page/data.js"]
    data = json.loads(text.removeprefix("const GAMMABENCH = ").removesuffix(";\n"))
    entry = {"name": "Trial", "meaning": "a number of this test", "show": "integer"}
    assert data["modelColumns"][-2:] == [
        {"title": f"Trial {arm}", "arm": arm, "usual": True} | entry for arm in ("raw", "centered")
    ]
    assert data["models"][0]["values"][-2:] == [5, 6]
    assert data["cellColumns"][-1] == {"title": "Trial"} | entry
    assert {(cell[1], data["arms"][cell[2]]): cell[6][-1] for cell in data["cells"]} == {
        (layer, arm): 10 * layer + place for layer in (0, 1) for place, arm in enumerate(ARMS)
    }


def test_an_entry_gives_the_terminal_and_the_comparison_their_columns(
    records: list[Record],
) -> None:
    lines = [line.split() for line in summary(records, told=False).splitlines()]
    assert (lines[1][-1], lines[2][-2:], lines[4][-1]) == ("Trial", ["raw,", "Trial"], "5")
    found = table(comparison_text(pair(records, records)), "Differences, B minus A")
    assert found.row(Arm="whitened", Metric="Trial")["A"] == "7"


def test_a_column_of_one_arm_has_no_number_in_cells_of_others(
    records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    column = metric("Trial", "a number of this test", layer_and_arm, in_raw(Table.WEB_CELLS))
    monkeypatch.setattr("leaderboard.columns.tables.COLUMNS", [column])
    data = page_data(group_records(records))
    assert [each["title"] for each in data["cellColumns"]] == ["Trial raw"]
    shown = {(cell[1], data["arms"][cell[2]]): cell[6] for cell in data["cells"]}
    assert {place: [10.0 * place[0]] for place in shown if place[1] == "raw"}.items() <= (
        shown.items()
    )
    assert all(numbers == [None] for (_, arm), numbers in shown.items() if arm != "raw")


def test_every_table_has_columns() -> None:
    groups = group_records(make_grid(arms=ARMS))
    assert [each for each in Table if not arm_columns(each, groups)] == []


def test_an_optional_column_stands_only_where_a_cell_has_its_number() -> None:
    groups = group_records(make_grid())
    titles = [each.title for each in columns_of(Table.MODEL_TRAINING, groups)]
    every = [each.title for each in columns_of(Table.MODEL_TRAINING)]
    missing = [title for title in every if title not in titles]
    optional = [each.title for each in COLUMNS if each.optional]
    assert set(missing) <= set(optional)
    assert "Recovery" in missing


def test_a_title_means_one_thing() -> None:
    meanings: dict[str, set[str]] = {}
    for each in COLUMNS:
        meanings.setdefault(each.title, set()).add(each.meaning)
        assert each.meaning
        assert each.tables, f"{each.title} stands nowhere"
    assert [title for title, found in meanings.items() if len(found) > 1] == []


def test_the_page_can_write_every_column() -> None:
    (formats,) = re.findall(r"const FORMATS = \{(.*?)\}", (STATIC / "page.js").read_text("utf-8"))
    columns = columns_of(Table.WEB_MODELS) + columns_of(Table.WEB_CELLS)
    assert {each.show.__name__ for each in columns} <= set(formats.replace(" ", "").split(","))


def with_first_firing(record: Record, born: int, median: float | None) -> Record:
    """The record with another median step of the first firing."""
    assert record.result is not None
    assert record.result.training is not None
    first = record.result.training.first_firing.model_copy(
        update={"born": born, "median_steps": median}
    )
    training = record.result.training.model_copy(update={"first_firing": first})
    return make_record(record.spec, record.result.model_copy(update={"training": training}))


def test_a_model_has_no_mean_step_where_a_layer_did_not_reach_it() -> None:
    cells = make_grid(models=["tiny-a"], layers=[0, 1, 2], arms=["raw"])
    # A layer whose features were all alive has nothing to revive and does not count.
    reached = list(map(with_first_firing, cells, (0, 9, 9), (None, 10.0, 30.0)))
    assert BORN_DEAD.first.of_model(group_records(reached)[0], "raw") == 20
    unreached = list(map(with_first_firing, cells, (0, 9, 9), (None, 10.0, None)))
    assert BORN_DEAD.first.of_model(group_records(unreached)[0], "raw") is None
