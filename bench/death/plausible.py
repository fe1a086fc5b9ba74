"""Is a record what a measurement would have given? What is not impossible, but should be looked at.

`bench.records.bounds` refuses what no cell can be. Here are identities that measured numbers keep,
and how far deaths have been seen from what is predicted. A doubt is a line for a person to read,
no verdict: a new kind of model may be further off than any before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from bench.death.theory import predicted_dead, predicted_relu
from bench.records.schema import Record, Result, Statistics

# Relative: of sums over some 1e5 tokens in float64, and of the token norm that LayerNorm leaves.
_SUMS, _NORM = 1e-6, 1e-3

# LayerNorm's eps of 1e-5 makes tokens of very small variance shorter than sqrt(width).
_SHORTEST = 0.5

# Points of n between death at initialisation and what is predicted. Over the published rows the
# closed form is off by 1.2 points (ReLU) and 8.2 (total) on average, by 27 and 43 at most on the
# committed ones, where the variance sits in few directions; the prediction from the moments by far
# less.
RELU_LIMIT, DEAD_LIMIT, MOMENTS_LIMIT = 0.35, 0.6, 0.3


def doubts(record: Record) -> list[str]:
    """What is odd about a record, a phrase each; nothing for failed cells."""
    if record.result is None:
        return []
    found = [*_of_statistics(record.result.statistics), *_of_predictions(record, record.result)]
    if record.spec.arm.partition("+")[0] == "raw":
        found += _of_deaths(record, record.result)
    return found


def _of_statistics(found: Statistics) -> Iterator[str]:
    ratio = found.mean_norm / found.sigma_norm if found.sigma_norm else math.inf
    if not math.isclose(ratio, found.gamma_raw, rel_tol=_SUMS):
        yield f"gamma_raw is {found.gamma_raw:.4g}, its parts give {ratio:.4g}"
    if found.effective_rank > min(found.width, found.tokens):
        yield f"an effective rank of {found.effective_rank:.4g} of {found.tokens} tokens"
    # A normalised token has the length sqrt(width), so ||mu||^2 + ||sigma||^2 is the width; and
    # each outlier dimension says what ||mu||^2 is.
    expected = found.width * found.gamma**2 / (1 + found.gamma**2)
    for each in found.outlier_dims:
        if expected > 0 and each.share > _NORM:
            share = each.mean**2 / each.share / expected
            if not _SHORTEST <= share <= 1 + _NORM:
                yield (
                    f"a gamma of {found.gamma:.4g} at width {found.width} does not go with the "
                    f"mean of dimension {each.index}"
                )
                return


def _of_predictions(record: Record, result: Result) -> Iterator[str]:
    protocol, stats = record.spec.protocol, result.statistics
    by_relu = predicted_relu(stats.gamma, stats.tokens)
    dead = predicted_dead(stats.gamma, stats.tokens, int(protocol["k"]), int(protocol["n"]))
    # Families without k have no death by TopK.
    either = (dead, by_relu)
    if abs(result.predicted_relu - by_relu) > _SUMS:
        yield f"predicted_relu is {result.predicted_relu:.4g}, gamma gives {by_relu:.4g}"
    if min(abs(result.predicted_dead - value) for value in either) > _SUMS:
        yield f"predicted_dead is {result.predicted_dead:.4g}, gamma gives {dead:.4g}"


def _of_deaths(record: Record, result: Result) -> Iterator[str]:
    n = int(record.spec.protocol["n"])
    relu, dead = result.death_init.dead_relu / n, result.death_init.dead / n
    predicted = [
        ("dead by ReLU at initialisation", relu, result.predicted_relu, RELU_LIMIT),
        ("dead at initialisation", dead, result.predicted_dead, DEAD_LIMIT),
    ]
    if result.prediction is not None:
        predicted.append(
            ("dead at initialisation", dead, result.prediction.dead, MOMENTS_LIMIT),
        )
    # Chance between dictionaries of few features.
    chance = 3 / math.sqrt(n)
    for what, share, expected, limit in predicted:
        if abs(share - expected) > limit + chance:
            yield f"{share:.1%} are {what}, {expected:.1%} are predicted"
