"""Whether death at the end had settled: by the last quarter, and by how long training was."""

from __future__ import annotations

import pytest

from bench.records.schema import Record
from leaderboard import render
from leaderboard.groups import group_records
from leaderboard.settled import (
    has_settled,
    late_change,
    settled_sentence,
    unsettled_sentence,
)
from tests.records import make_grid, make_record


def _with_curve(dead: dict[int, int], *, tokens: int = 10**9, arm: str = "raw") -> Record:
    """A record whose censuses found so many dead features after so many steps."""
    record = make_record(arm=arm)
    assert record.result is not None
    assert record.result.training is not None
    first = record.result.training.checkpoints[0]
    curve = tuple(
        first.model_copy(update={"step": step, "dead_relu": 0, "dead_topk": number})
        for step, number in dead.items()
    )
    changes = {"checkpoints": curve, "steps": max(dead), "tokens": tokens}
    training = record.result.training.model_copy(update=changes)
    result = record.result.model_copy(update={"training": training})
    return record.model_copy(update={"result": result})


@pytest.mark.parametrize(
    ("dead", "change"),
    [
        ({10: 50, 75: 3, 90: 1, 100: 2}, 1),  # what was before the last quarter does not count
        ({10: 50, 70: 9, 90: 1, 100: 2}, 7),  # but the last census before it does
        ({10: 50, 20: 9, 100: 9}, 0),
        ({80: 5, 100: 2}, 3),  # no census before it: the first there is
    ],
)
def test_the_curve_is_compared_with_its_end(dead: dict[int, int], change: int) -> None:
    record = _with_curve(dead)
    n = record.spec.protocol["n"]
    assert late_change(record) == pytest.approx(change / n)
    assert has_settled(record) == (change / n < 0.01)


def test_a_curve_is_not_judged_by_one_census_nor_settled_in_a_short_training() -> None:
    assert late_change(_with_curve({100: 2})) is None
    assert has_settled(_with_curve({100: 2})) is None
    assert late_change(make_record(protocol={"steps": 0})) is None
    sample = make_record().spec.protocol["N"]
    still = {10: 2, 60: 2, 100: 2}
    assert has_settled(_with_curve(still, tokens=10 * sample)) is True
    assert has_settled(_with_curve(still, tokens=10 * sample - 1)) is False


def test_boards_say_in_how_many_cells_death_had_settled() -> None:
    records = make_grid(models={"tiny-a": "language"}, layers=[0, 1])
    settled = [has_settled(record) for record in records]
    said = settled_sentence(group_records(records))
    assert said.startswith(
        f"Death at the end had settled in {settled.count(True)} of {len(settled)} cells: "
    )
    boards = render(records)
    assert said in boards["README.md"]
    assert said in boards["language.md"]
    assert "- **Late change %**: " in boards["models/tiny-a.md"]
    assert settled_sentence(group_records(make_grid(protocol={"steps": 0}))) == ""


def test_it_is_said_where_death_had_not_settled() -> None:
    ends = {"raw": 90, "centered": 2, "whitened": 2}
    cells = [_with_curve({10: 2, 60: 2, 100: end}, arm=arm) for arm, end in ends.items()]
    said = unsettled_sentence(group_records(cells))
    assert said.startswith("Death at the end had settled in 2 of 3 cells: ")
    assert said.endswith("N tokens. Less than half had with *raw* (0 of 1).")
    assert unsettled_sentence(group_records(cells[1:])).endswith("N tokens.")
    assert unsettled_sentence(group_records(make_grid(protocol={"steps": 0}))) == ""
