"""Prices beside records: read as they were written, of layers and sizes they were measured at."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.cli.validate import check_file
from bench.records.prices import PRICES_FILE, Price, Prices, read_prices, write_prices
from tests.records import make_record, make_spec
from zoo.errors import BadRecord


def made() -> Prices:
    spec = make_spec(model="tiny-a", layer=1)
    steps = [("tiny-a", 1, "raw", 1.0), ("tiny-a", 1, "raw+ghost", 2.5), ("tiny-b", 1, "raw", 9.0)]
    return Prices(
        protocol=spec.protocol | {"steps": 7},
        provenance=make_record(spec).provenance,
        steps=tuple(
            Price(model=model, layer=layer, arm=arm, seconds=seconds)
            for model, layer, arm, seconds in steps
        ),
    )


def test_prices_are_read_as_they_were_written(tmp_path: Path) -> None:
    assert read_prices(tmp_path) is None
    check_file(write_prices(tmp_path, made()))
    assert read_prices(tmp_path) == made()


def test_prices_are_of_a_layer_and_of_steps_of_one_size() -> None:
    spec = make_spec(model="tiny-a", layer=1)
    # Trainings of other lengths take the same steps.
    assert made().of_layer(spec) == {"raw": 1.0, "raw+ghost": 2.5}
    assert made().of_layer(make_spec(model="tiny-a", layer=0)) == {}
    larger = make_spec(model="tiny-a", layer=1, protocol={"n": 2 * spec.protocol["n"]})
    assert made().of_layer(larger) == {}


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("2.5", "2.4", "was edited"),
        ('"version": 1', '"version": 7', "has version 7"),
        ("{", "", "is not a record"),
    ],
)
def test_what_is_no_file_of_prices_is_refused(
    tmp_path: Path, before: str, after: str, says: str
) -> None:
    path = write_prices(tmp_path, made())
    path.write_text(path.read_text(encoding="utf-8").replace(before, after, 1), encoding="utf-8")
    with pytest.raises(BadRecord, match=says) as caught:
        read_prices(tmp_path)
    assert PRICES_FILE in str(caught.value)
    with pytest.raises(BadRecord):
        check_file(path)
