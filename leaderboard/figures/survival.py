"""What the figures of revival show, as plain data: fates at the censuses, survival curves."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import quantiles
from typing import Any, TypeVar

from bench.records.schema import Fates, Record, Revival, Training
from leaderboard.groups import Group
from leaderboard.text import plain

# Steps at which survival curves are read: more than a figure can show apart.
SURVIVAL_POINTS = 64


def training_steps(record: Record) -> int:
    training = record.result.training if record.result else None
    return training.steps if training else 0


_Part = TypeVar("_Part")


def by_domain_and_arm(
    groups: Sequence[Group], read: Callable[[Training], _Part | None]
) -> dict[tuple[str, str], list[_Part]]:
    """A part of each trained cell that has it."""
    found: dict[tuple[str, str], list[_Part]] = defaultdict(list)
    for group in groups:
        for record in group.records:
            training = record.result.training if record.result else None
            part = None if training is None else read(training)
            if part is not None:
                found[plain(group.domain, 20), plain(record.spec.arm, 30)].append(part)
    return found


def revival_of(training: Training, path: str) -> Revival | None:
    """Of features born dead by the path; None where none was, or none was looked for."""
    revival: Revival | None = getattr(training, f"revival_{path}")
    return revival if revival is not None and revival.born else None


def awake_by_chance(revival: Revival) -> int:
    return revival.chance.awake if revival.chance else 0


def fates_of(training: Training, path: str) -> tuple[Revival, dict[int, Fates]] | None:
    """What became of features born dead, and what had at each census by its step."""
    revival = revival_of(training, path)
    by_step = {each.step: getattr(each, f"fates_{path}") for each in training.checkpoints}
    known = {step: fates for step, fates in by_step.items() if step > 0 and fates is not None}
    return (revival, known) if revival and known else None


def pooled(members: Sequence[tuple[Revival, dict[int, Fates]]]) -> dict[str, Any]:
    """Shares of the features of all cells, at the steps that all of them were counted at."""
    born = sum(revival.born for revival, _ in members)
    steps = sorted(set.intersection(*(set(fates) for _, fates in members)))
    shares = {
        name: [start]
        + [sum(getattr(fates[step], name) for _, fates in members) / born for step in steps]
        for name, start in (("durable", 0.0), ("relapsed", 0.0), ("never", 1.0))
    }
    chance = sum(awake_by_chance(revival) for revival, _ in members) / born
    return shares | {"steps": [0, *steps], "chance": chance, "features": born}


def log_steps(end: int) -> list[int]:
    """0, and whole steps up to `end` that are evenly spaced on a logarithmic axis."""
    last = SURVIVAL_POINTS - 2
    return sorted({0, *(round(end ** (i / last)) for i in range(last + 1))})


def survival_quartiles(
    curves: Sequence[Sequence[tuple[float, float]]], steps: Sequence[int]
) -> dict[str, list[float]]:
    """Quartiles and median over step functions (step, share), which are 1 before they begin."""
    columns: list[list[float]] = [[] for _ in steps]
    for curve in curves:
        times = [time for time, _ in curve]
        for column, step in zip(columns, steps, strict=True):
            index = bisect_right(times, step)
            column.append(curve[index - 1][1] if index else 1.0)
    rows = [
        quantiles(column * 2 if len(column) == 1 else column, method="inclusive")
        for column in columns
    ]
    low, middle, high = (list(values) for values in zip(*rows, strict=True))
    return {"low": low, "median": middle, "high": high}
