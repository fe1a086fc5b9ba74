"""What two numbers of a published row predict, against the functions that do."""

from __future__ import annotations

import pytest

from bench.death.prediction import from_two_numbers
from bench.death.theory import predicted_dead
from leaderboard.paper_prediction import predict_rows, prediction_errors
from leaderboard.paper_tables import PaperRow


def row(model: str, layer: int, width: int | None = None, **values: float) -> PaperRow:
    return PaperRow(model, layer, "language", values, width)


def test_rows_are_predicted_from_two_of_their_numbers():
    rows = [
        row("a", 1, 768, gamma=1.5, effective_rank=41.7, dead_pct_init_topk=54.9),
        row("a", 2, 64, gamma=0.9, effective_rank=65.0, dead_pct_init_topk=18.7,
            dead_pct_init_relu=0.5),
        row("b", 1, 64, gamma=0.9, dead_pct_init_topk=18.7),
        row("c", 1, gamma=0.9, effective_rank=65.0, dead_pct_init_topk=18.7),
    ]  # fmt: skip
    calls: list[int] = []
    found = predict_rows(rows, lambda: calls.append(1))
    assert len(calls) == len(rows)
    assert [(each.model, each.layer) for each in found] == [("a", 1), ("a", 2), ("a", 2)]
    # A rank above the width, as rounding gives it, is the width.
    expected = [from_two_numbers(1.5, 41.7, 768, 100_000, 64, 8192).dead]
    expected += [from_two_numbers(0.9, 64, 64, 100_000, 64, 8192).dead]
    errors = [100 * share - theirs for share, theirs in zip(expected, (54.9, 18.7), strict=True)]
    either, by_relu = prediction_errors(found)
    assert (either.column, either.rows) == ("dead_pct_init_topk", 2)
    assert either.mean_difference == pytest.approx(sum(errors) / 2)
    assert either.mean_absolute_difference == pytest.approx(sum(map(abs, errors)) / 2)
    closed = [100 * predicted_dead(gamma, 100_000, 64, 8192) for gamma in (1.5, 0.9)]
    off = (abs(closed[0] - 54.9) + abs(closed[1] - 18.7)) / 2
    assert either.closed_form_absolute_difference == pytest.approx(off)
    assert by_relu.rows == 1
