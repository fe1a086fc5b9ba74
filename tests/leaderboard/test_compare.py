from __future__ import annotations

import random
from pathlib import Path

import pytest
from scipy import stats

from bench.records.schema import Record
from leaderboard.columns.death import END
from leaderboard.columns.training import FVU
from leaderboard.compare import Difference, compare_folders, comparison_text, pair
from tests.leaderboard.tables import tables
from tests.records import make_grid, make_provenance, make_record, write_records
from zoo.errors import BadCorpus

MODELS = {"tiny-a": "language", "tiny-b": "vision", "tiny-c": "protein"}


@pytest.fixture
def before() -> list[Record]:
    return make_grid(models=MODELS, layers=[0, 1])


@pytest.fixture
def after() -> list[Record]:
    return make_grid(models=MODELS, layers=[0, 1], protocol={"steps": 900})


def test_equal_cells_are_paired_whatever_the_provenance(before: list[Record]) -> None:
    again = [
        make_record(r.spec, r.result, provenance=make_provenance(device="cuda")) for r in before
    ]
    found = pair(before, again)
    assert found.equal == len(found.pairs) == len(before)
    assert found.spec_keys == {}
    assert "None differs." in comparison_text(found)


def test_cells_of_other_protocols_are_paired_and_that_is_said(
    before: list[Record], after: list[Record]
) -> None:
    found = pair(before, after)
    assert len(found.pairs) == len(before)
    assert found.equal == 0
    assert found.spec_keys == {"protocol.steps": 12}
    assert "The pairs' Specs differ in: protocol.steps (12 pairs)." in comparison_text(found)
    assert all(
        (a.spec.model, a.spec.layer, a.spec.arm) == (b.spec.model, b.spec.layer, b.spec.arm)
        for a, b in found.pairs
    )


def test_the_order_does_not_matter(before: list[Record], after: list[Record]) -> None:
    shuffled = random.Random(2).sample(after, len(after))
    assert comparison_text(pair(before[::-1], shuffled)) == comparison_text(pair(before, after))


def test_the_same_spec_is_preferred_and_the_rest_stays_alone(
    before: list[Record], after: list[Record]
) -> None:
    found = pair(before, [*before, *after])
    assert found.equal == len(found.pairs) == len(before)
    assert len(found.only_b) == len(after)
    assert found.only_a == ()


def test_cells_that_could_be_paired_in_several_ways_are_not(
    before: list[Record], after: list[Record]
) -> None:
    third = make_grid(models=MODELS, layers=[0, 1], protocol={"steps": 800})
    found = pair(before, [*after, *third])
    assert found.pairs == ()
    assert (len(found.only_a), len(found.only_b)) == (12, 24)


def test_unpaired_cells_are_counted_with_their_models(before: list[Record]) -> None:
    found = pair(before, before[:-1])
    assert len(found.only_a) == 1
    assert "only in A: 1 cell (tiny-c); only in B: 0 cells." in comparison_text(found)


def test_means_and_intervals_are_over_models(before: list[Record], after: list[Record]) -> None:
    found = _find(pair(before, after).differences(), FVU.title)
    changes: dict[str, list[float]] = {}
    for a, b in zip(before, after, strict=True):
        if a.spec.arm == "raw":
            first, second = FVU.value(a), FVU.value(b)
            assert first is not None
            assert second is not None
            changes.setdefault(a.spec.model, []).append(second - first)
    means = [sum(each) / len(each) for each in changes.values()]
    center, error = sum(means) / 3, stats.sem(means)
    reach = stats.t.ppf(0.975, df=2) * error
    assert (found.pairs, found.models) == (6, 3)
    assert found.mean == pytest.approx(center)
    assert found.mean_b - found.mean_a == pytest.approx(center)
    assert found.interval == pytest.approx((center - reach, center + reach))
    every = [change for each in changes.values() for change in each]
    assert abs(found.largest) == pytest.approx(max(map(abs, every)))


def test_one_model_has_no_interval() -> None:
    records = make_grid(layers=[0, 1])
    other = make_grid(layers=[0, 1], protocol={"lr": 0.5})
    assert _find(pair(records, other).differences(), END.title).interval is None


def test_equal_differences_have_an_interval_of_no_width(before: list[Record]) -> None:
    assert _find(pair(before, before).differences(), FVU.title).interval == (0, 0)


def test_failures_on_one_side_are_counted(before: list[Record]) -> None:
    broken = [make_record(before[0].spec, BadCorpus("empty")), *before[1:]]
    assert "1 pair failed on one side only." in comparison_text(pair(before, broken))
    assert _find(pair(before, broken).differences(), FVU.title).pairs == 5


def test_folders_are_read(tmp_path: Path, before: list[Record], after: list[Record]) -> None:
    write_records(tmp_path / "a", before)
    write_records(tmp_path / "b", after)
    text = comparison_text(compare_folders(tmp_path / "a", tmp_path / "b"))
    assert text == comparison_text(pair(before, after))
    assert len(tables(text)) == 2


def _find(differences: list[Difference], title: str, arm: str = "raw") -> Difference:
    (found,) = [each for each in differences if (each.column.title, each.arm) == (title, arm)]
    return found
