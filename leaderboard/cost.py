"""What a remedy costs beside raw: the time of its training, and the memory it takes.

Of several layers the median one's. Time is that of a step over raw's, times the steps: of steps
measured by themselves (`bench.records.prices`) where there are any, else of those of one run.
Memory is what `bench plan` counts of the SAE in training, with nearly all features dead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache

from pydantic import ValidationError

from bench.plan.memory import training_memory
from bench.records.schema import Record
from bench.sae.arms import parse_arm
from bench.sae.recipe import Recipe
from leaderboard.groups import RAW, Group
from zoo.errors import UnknownName


def time_over_raw(groups: Sequence[Group], arm: str) -> float | None:
    """The time of a training over raw's; None where it was not measured."""
    found = []
    for group in groups:
        for layer in group.layers:
            step, steps = _step_over_raw(group, layer, arm), _steps_over_raw(group, layer, arm)
            if step is not None and steps is not None:
                found.append(step * steps)
    return _median(found)


def step_over_raw(group: Group, layers: Sequence[int], arm: str) -> float | None:
    """The time of a step over raw's, of steps that were measured by themselves; else None."""
    found = (_measured_step_over_raw(group, layer, _stepping_as(arm)) for layer in layers)
    return _median(ratio for ratio in found if ratio is not None)


def memory_over_raw(groups: Sequence[Group], arm: str) -> float | None:
    """The memory of an SAE in training over raw's, as it is counted; None of an unknown arm."""
    found = [_memory_of(group, arm) for group in groups]
    return _median(ratio for ratio in found if ratio is not None)


def measured_alone(groups: Iterable[Group]) -> bool:
    """Whether times are of steps that were measured by themselves."""
    return any(group.prices for group in groups)


def _step_over_raw(group: Group, layer: int, arm: str) -> float | None:
    """The time of a step over raw's; of a run, that of the pair of seeds with the fastest raw."""
    arm = _stepping_as(arm)
    alone = _measured_step_over_raw(group, layer, arm)
    if alone is not None:
        return alone
    pairs = [
        (plain.step_seconds, record.step_seconds)
        for plain, record in zip(group.at(layer, RAW), group.at(layer, arm), strict=False)
        if plain and record and plain.step_seconds and record.step_seconds
        if plain.provenance.started == record.provenance.started
    ]
    if not pairs:
        return None
    plain_seconds, seconds = min(pairs)
    return seconds / plain_seconds


def _measured_step_over_raw(group: Group, layer: int, arm: str) -> float | None:
    raw, ours = (group.prices.get((layer, name)) for name in (RAW, arm))
    return ours / raw if raw and ours else None


def _stepping_as(arm: str) -> str:
    """The arm whose steps are the same: longer training has more of them."""
    try:
        parsed = parse_arm(arm)
    except UnknownName:
        return arm
    return replace(parsed, schedule="none").name if parsed.schedule == "longer" else arm


def _steps_over_raw(group: Group, layer: int, arm: str) -> float | None:
    taken = [_steps(group.at(layer, name)) for name in (RAW, arm)]
    return taken[1] / taken[0] if taken[0] and taken[1] else None


def _steps(records: Iterable[Record | None]) -> int | None:
    """Of the first that was trained."""
    results = (record.result for record in records if record is not None)
    trained = (result.training for result in results if result is not None)
    return next((training.steps for training in trained if training is not None), None)


def _memory_of(group: Group, arm: str) -> float | None:
    width = group.spec.card.get("tap", {}).get("width")
    sizes = tuple(
        sorted((k, v) for k, v in group.spec.protocol.items() if k in Recipe.model_fields)
    )
    try:
        return _memory_over_raw(sizes, width, arm) if isinstance(width, int) else None
    except (UnknownName, ValidationError):
        return None


@cache
def _memory_over_raw(sizes: tuple[tuple[str, object], ...], width: int, arm: str) -> float:
    recipe = Recipe(**dict(sizes))  # type: ignore[arg-type]
    raw, ours = (training_memory(recipe, width, parse_arm(name)) for name in (RAW, arm))
    return ours / raw


def _median(values: Iterable[float]) -> float | None:
    found = sorted(values)
    return found[len(found) // 2] if found else None
