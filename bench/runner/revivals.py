"""Of a trained cell: when its features that were born dead fired, and what became of them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from bench.death import revival
from bench.death.census import Census
from bench.death.extrapolation import dead_rate_at
from bench.records.schema import Chance, FirstFiring, Revival, Silence
from bench.runner.cell import Cell

# Points that a record keeps of a survival curve: more than a figure can show.
CURVE_POINTS = 64


def silence(cell: Cell) -> Silence:
    """What makes a feature silent in this cell."""
    steps, taken = cell.trainer.clock.silence, cell.trainer.step_number
    reason = None
    if taken <= steps:
        reason = (
            f"{taken} training steps are no more than the {steps} of a silence: nothing that had "
            "fired could be silent again, and the frozen sample alone decides who is alive"
        )
    return Silence(tokens=cell.born.tokens, steps=steps, reason=reason)


def first_firing(cell: Cell, born_dead: Tensor) -> FirstFiring:
    """Of the features `born_dead`, bool [n]."""
    found, fields = _survival(cell, cell.trainer.clock.first_fired, born_dead, "fired")
    return FirstFiring(**fields, fired=found.events)


def revivals(cell: Cell, born_dead: Tensor, last: Census) -> Revival:
    """Of the features `born_dead`, bool [n], by the census at the end."""
    clock = cell.trainer.clock
    fates = cell.fates(born_dead, last)
    counts: dict[str, Any] = fates.counts()
    times = revival.durable_times(clock, fates)
    _, fields = _survival(cell, times, born_dead, "revived durably")
    return Revival(
        **fields,
        **counts,
        revivals=int(clock.revivals.cpu()[born_dead].sum()),
        chance=_chance(cell, born_dead),
    )


def _survival(
    cell: Cell, times: Tensor, born_dead: Tensor, event: str
) -> tuple[revival.Survival, dict[str, Any]]:
    """When the event came, and the same as fields of a record."""
    steps = cell.trainer.step_number
    found = revival.survival(times, born_dead, steps, event)
    points, shares = revival.survival_curve(times, born_dead, steps)
    median, interval = found.in_tokens(cell.trainer.batch or 0)
    return found, {
        "born": found.born,
        "median_steps": found.median_steps,
        "interval": found.interval,
        "reason": found.reason,
        "median_tokens": median,
        "interval_tokens": interval,
        "curve": thin(list(zip(points.tolist(), shares.tolist(), strict=True)), CURVE_POINTS),
    }


def _chance(cell: Cell, born_dead: Tensor) -> Chance | None:
    """What the untrained dictionary shows of these features on the first training tokens."""
    untrained, batch = cell.untrained, cell.trainer.batch
    if untrained is None or batch is None or not bool(born_dead.any()):
        return None
    clock, tokens = untrained.clock, untrained.looked * batch
    awake = clock.fired & ~clock.silent(untrained.looked)
    whole = untrained.looked == cell.trainer.step_number
    never = dead_rate_at(
        untrained.counts.cpu()[born_dead].numpy(),
        tokens,
        cell.trainer.tokens,
        first_half=None if whole else untrained.first_half.cpu()[born_dead].numpy(),
    )
    interval = None if never.low is None or never.high is None else (never.low, never.high)
    return Chance(
        tokens=tokens,
        fired=int(clock.fired.cpu()[born_dead].sum()),
        awake=int(awake.cpu()[born_dead].sum()),
        never=never.value,
        never_interval=interval,
        reason=never.reason,
    )


def thin(points: list[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """At most `most` of the points, evenly spaced by number, the first and the last included."""
    if len(points) <= most:
        return points
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]
