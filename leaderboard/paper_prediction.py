"""What gamma and the effective rank of a published row predict of its dead features.

The tables carry no covariance; `bench.death.prediction.from_two_numbers` needs none. Its one
constant was chosen on rows of these tables, so that its error on them is in-sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from bench.sae.recipe import REFERENCE
from leaderboard.paper_tables import PaperRow

_RELU, _EITHER = "dead_pct_init_relu", "dead_pct_init_topk"

LEGEND = (
    "predicted: from their gamma and effective rank alone, with a power law for a spectrum. Its "
    "one constant (a token counts as ten) was chosen on 180 of these rows, where the mean error of "
    f"{_EITHER} is 5.65 points in-sample, and 9.75 without the constant; closed form: the "
    "paper's, from gamma alone"
)


@dataclass(frozen=True)
class Predicted:
    """A number of a row, as it was published and as it is predicted: percent of the dictionary."""

    model: str
    layer: int
    column: str
    theirs: float
    predicted: float
    closed_form: float


@dataclass(frozen=True)
class PredictionError:
    """One column over the rows that can be predicted; differences are predicted minus published."""

    column: str
    rows: int
    mean_difference: float
    mean_absolute_difference: float
    closed_form_absolute_difference: float


def predict_rows(
    rows: Sequence[PaperRow], advance: Callable[[], None] = lambda: None
) -> list[Predicted]:
    """Two numbers for each row of the `init_stats` table that has what they take.

    Rows without a width (`hidden_dim`), a gamma or an effective rank are left out. `advance` is
    called after each row: one takes a quarter of a second.
    """
    from bench.death.prediction import from_two_numbers
    from bench.death.theory import predicted_dead, predicted_relu

    n, k, tokens = REFERENCE.n, REFERENCE.k, REFERENCE.N
    found = []
    for row in rows:
        gamma, rank = row.values.get("gamma"), row.values.get("effective_rank")
        if row.width is not None and gamma is not None and rank is not None and rank >= 1:
            dead = from_two_numbers(gamma, min(rank, row.width), row.width, tokens, k, n)
            for column, predicted, closed in (
                (_EITHER, dead.dead, predicted_dead(gamma, tokens, k, n)),
                (_RELU, dead.relu, predicted_relu(gamma, tokens)),
            ):
                theirs = row.values.get(column)
                if theirs is not None:
                    shares = (theirs, 100 * predicted, 100 * closed)
                    found.append(Predicted(row.model, row.layer, column, *shares))
        advance()
    return found


def prediction_errors(predicted: Iterable[Predicted]) -> list[PredictionError]:
    """The errors by column."""
    columns: dict[str, list[Predicted]] = {}
    for each in predicted:
        columns.setdefault(each.column, []).append(each)
    return [
        PredictionError(
            column,
            len(found),
            fmean(each.predicted - each.theirs for each in found),
            fmean(abs(each.predicted - each.theirs) for each in found),
            fmean(abs(each.closed_form - each.theirs) for each in found),
        )
        for column, found in columns.items()
    ]
