"""A record that somebody made up is refused or shown; it never stops the telling of the others."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.cli.main import run_cli
from bench.records.schema import Record
from bench.records.store import RecordStore, read_record
from bench.records.versions import SCHEMA_VERSION
from leaderboard import comparison_text, render, summary
from leaderboard.compare import pair
from leaderboard.export import _WRITERS, cell_columns, flat_cells
from leaderboard.figures.drawing import available, draw
from leaderboard.figures.pictures import pictures
from leaderboard.groups import group_records
from tests.records import make_grid, make_record, write_records
from zoo.errors import BadRecord
from zoo.files import content_hash

Where = tuple[str | int, ...]

# As JSON writes them: Python would not write some of these.
NUMBERS = [
    *("0", "-1", "1", "2", "1e-300", "5e-324", "-1e9", "1e12", "1e150", "1.7e308", "1e400"),
    *("10" + "0" * 400, str(2**63 - 1), str(2**63), "9" * 5000, "NaN", "-Infinity"),
]
OTHERS = ["null", "true", '"x"', '""', '"\\ud800"', "[]", "{}", "[1]", '{"a": 1}', '"9"']


def places(value: Any, where: Where = ()) -> Iterator[Where]:
    """Every part of a JSON document that is no container, and empty containers."""
    inside = value.items() if isinstance(value, dict) else ()
    inside = enumerate(value) if isinstance(value, list) else inside
    below = [place for key, each in inside for place in places(each, (*where, key))]
    yield from below or [where]


EXAMPLES = [
    json.loads(json.dumps(make_record(arm=arm, layer=layer, seed=7, **more).content()))
    for arm in ("raw", "centered")
    for layer, more in ((0, {}), (1, {"protocol": {"steps": 0}}))
]
PLACES = [[place for place in places(each) if place[0] != "digest"] for each in EXAMPLES]
# Those of a few numbers that are shares of others; the rest are drawn from all.
OFTEN = [
    *(("spec", "protocol", key) for key in ("n", "k", "N", "steps", "family")),
    ("spec", "card", "tap", "layers"),
    ("spec", "layer"),
    ("result", "death_init", "dead_relu"),
    ("result", "statistics", "gamma"),
]


@st.composite
def made_up(draw: st.DrawFn) -> dict[str, Any]:
    """A record with up to three of its parts replaced, and a right hash and digest."""
    which = draw(st.integers(0, len(EXAMPLES) - 1))
    document = copy.deepcopy(EXAMPLES[which])
    spots = st.sampled_from(OFTEN) | st.sampled_from(PLACES[which])
    for place in draw(st.lists(spots, min_size=1, max_size=3)):
        text = draw(st.sampled_from(NUMBERS) | st.sampled_from(OTHERS))
        *outer, last = place
        target = document
        for key in outer:
            target = target[key] if isinstance(target, dict | list) else {}
        if isinstance(target, dict | list):
            target[last] = Raw(text)
    return document


class Raw(str):
    """JSON text that stands for itself."""


def as_text(value: Any) -> str:
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k)}:{as_text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(as_text, value)) + "]"
    return json.dumps(value)


def write(store: RecordStore, document: dict[str, Any]) -> Path:
    """The record as its author would have written it: what can be right about it is."""
    text = as_text(document)
    name = "0" * 20
    try:
        content = json.loads(text)
        content["hash"] = name = content_hash(content["spec"])
        text = json.dumps(content | {"digest": content_hash(content)})
    except (ValueError, TypeError, RecursionError):
        pass
    path = store.folder / "tiny-a" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


GOOD = make_grid(models=["tiny-a", "tiny-b"], layers=[0])


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=made_up())
def test_a_made_up_record_is_refused_in_a_line_or_told_with_the_others(
    tmp_path: Path, document: dict[str, Any]
) -> None:
    path = write(RecordStore(tmp_path), document)
    bad: list[BadRecord] = []
    read = list(RecordStore(tmp_path).read(bad.append))
    path.unlink()
    assert len(read) + len(bad) == 1
    for error in bad:
        assert path.name in str(error)
        assert "\n" not in str(error)
    every = [*GOOD, *read]
    assert "tiny-b" in render(every)["README.md"]
    assert "tiny-b" in summary(every)
    pictures(group_records(every))
    rows = flat_cells(every)
    for form in ("csv", "json"):
        assert _WRITERS[form](rows, cell_columns())
    comparison_text(pair(GOOD, every))


@pytest.mark.skipif(not available(), reason="matplotlib is not installed")
@pytest.mark.parametrize("gamma", [0.0, 5e-324, 1e16])
def test_figures_and_parquet_take_every_number_that_the_schema_takes(
    tmp_path: Path, gamma: float
) -> None:
    pytest.importorskip("pyarrow")
    document = copy.deepcopy(EXAMPLES[0])
    statistics = document["result"]["statistics"]
    for key in ("gamma", "gamma_raw", "gamma_rms"):
        statistics[key] = gamma
    document["result"]["training"]["fvu"] = statistics["mean_norm"] = 1e150
    (record,) = [read_record(write(RecordStore(tmp_path), document))]
    for picture in pictures(group_records([record])):
        assert draw(picture)["svg"].startswith(b"<?xml")
    assert _WRITERS["parquet"](flat_cells([record]), cell_columns())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An output folder with good records and three bad files."""
    write_records(tmp_path, GOOD)
    store = RecordStore(tmp_path)
    document = copy.deepcopy(EXAMPLES[0])
    document["result"]["death_init"]["dead_relu"] = -(10**9)
    write(store, document)
    (store.folder / "tiny-a" / "not-json.json").write_text("{", encoding="utf-8")
    moved = store.paths()[-1]
    other = store.folder / "tiny-z" / moved.name
    other.parent.mkdir()
    other.write_bytes(moved.read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        ["report", "--output", "DIR"],
        ["export", "--output", "DIR", "--format", "csv"],
        ["compare", "DIR", "DIR"],
        ["status", "--output", "DIR"],
        ["validate", "DIR"],
    ],
    ids=lambda command: command[0],
)
def test_each_command_names_every_bad_record_and_goes_on(
    folder: Path,
    command: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("leaderboard.figures.store.available", lambda: False)
    code = run_cli([str(folder) if word == "DIR" else word for word in command])
    out, err = capsys.readouterr()
    assert code == 2
    lines = err.splitlines()
    expected = 2 if command[0] == "validate" else 3 * (2 if command[0] == "compare" else 1)
    assert len(lines) == expected, err
    assert all(line.startswith("bench: ") and ".json" in line for line in lines)
    # The record in another model's folder is good as a file.
    assert out == f"{len(GOOD) + 1} good, 2 bad\n" if command[0] == "validate" else out


def test_boards_of_a_folder_with_bad_records_are_those_of_the_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leaderboard.figures.store.available", lambda: False)
    assert run_cli(["report", "--output", str(folder)]) == 2
    assert run_cli(["report", "--check", "--output", str(folder)]) == 2
    page = (folder / "leaderboards" / "README.md").read_text(encoding="utf-8")
    assert "tiny-b" in page
    assert "tiny-z" not in page


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (("result", "death_init", "dead_relu"), 769, "death_init counts more features than n"),
        (("result", "death_init", "dead_relu"), -1, "result.death_init.dead_relu"),
        (("result", "statistics", "tokens"), 8193, "above the protocol's N"),
        (("result", "statistics", "gamma"), -1.0, "result.statistics.gamma"),
        (("result", "statistics", "gamma"), Raw("1e400"), "1e400 is not a number"),
        (("result", "statistics", "gamma"), Raw("1" + "0" * 400), "too large a number"),
        (("result", "statistics", "effective_rank"), 65.0, "effective_rank is not between"),
        (("result", "training", "l0"), 769.0, "training.l0 is above n"),
        (("result", "training", "revival", "durable"), 700, "revival does not add up to born"),
        (("result", "attribution", "raw"), 769, "attribution.raw is above n"),
        (("result", "predicted_dead"), 1.1, "result.predicted_dead"),
        (("spec", "layer"), 4, "layer 4 is not below the card's 4"),
        (("spec", "layer"), 10**9, "spec.layer"),
        (("spec", "protocol"), {}, "its protocol has no n"),
        (("spec", "protocol", "k"), 769, "its protocol has n = 768, k = 769"),
        (("spec", "protocol", "lr"), "fast", "protocol.lr is a str"),
        (("version",), SCHEMA_VERSION + 1, "has version"),
    ],
)
def test_what_no_cell_can_be_is_refused_by_its_name(
    tmp_path: Path, place: Where, value: Any, says: str
) -> None:
    document = copy.deepcopy(EXAMPLES[0])
    target: Any = document
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    with pytest.raises(BadRecord) as caught:
        read_record(write(RecordStore(tmp_path), document))
    assert says in str(caught.value)


def unbounded(schema: Any, where: str = "") -> Iterator[str]:
    """The numbers of a JSON schema that may be of any size."""
    if isinstance(schema, dict):
        kinds = {"maximum", "exclusiveMaximum", "const", "enum"}
        if schema.get("type") in ("integer", "number") and not kinds & schema.keys():
            yield where
        for key, value in schema.items():
            yield from unbounded(value, f"{where}.{key}" if key != "properties" else where)
    elif isinstance(schema, list):
        for value in schema:
            yield from unbounded(value, where)


def test_every_number_of_a_record_is_bounded() -> None:
    schema = Record.model_json_schema()
    assert list(unbounded(schema)) == []
    assert list(unbounded({"properties": {"a": {"type": "number"}}})) == [".a"]
