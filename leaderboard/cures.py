"""Remedies side by side: what each leaves dead, at what price, and which one is enough where.

Of the groups of one setting. A number of a remedy is the mean over layers (of all models alike) of
the mean over seeds; its range is that of the seeds' means. "Enough" is a remedy that leaves less
than `ENOUGH_DEAD` of the features dead at the end, at an error within `ENOUGH_FVU` of the best
remedy's on the layer. Cheapest is the shortest step, in steps of `COST_STEP` of raw's as shorter
differences are noise, then what needs least to be known, then the plainest name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, log
from statistics import fmean

from bench.records.schema import Record, Revival
from bench.sae.arms import parse_arm
from bench.sae.remedies import REMEDIES
from leaderboard.groups import RAW, Group, Spread, Value
from zoo.errors import UnknownName

# Arms from which on a setting is a comparison of remedies.
COMPARED = 6

ENOUGH_DEAD = 0.01
ENOUGH_FVU = 1.01
COST_STEP = 0.1


@dataclass(frozen=True)
class Cure:
    """A remedy over the layers of a setting. Shares of the dictionary, but for durable.

    born, end: dead features, and of these by which path. durable: of those born dead, the share
    that revived for good; None where none was born dead. fvu: on ordinary tokens, over the best
    remedy's of the layer: the geometric mean over layers, and its range over them.
    always_on: share of the features. cost: time of a step over raw's.
    enough: on how many of the layers it is.
    failing: the models in which on some layer it is not.
    """

    arm: str
    born: Spread
    born_relu: Spread | None
    born_topk: Spread | None
    end: Spread
    end_relu: Spread | None
    end_topk: Spread | None
    durable: Spread | None
    fvu: Spread | None
    l0: Spread | None
    recovery: Spread | None
    always_on: Spread | None
    cost: float | None
    needs: str
    enough: int
    failing: tuple[str, ...]


@dataclass(frozen=True)
class Regime:
    """A layer: its gamma and effective rank, and the cheapest remedy that is enough, if any is."""

    group: Group
    layer: int
    gamma: float
    effective_rank: float
    width: int
    raw_dead: float | None
    cheapest: str | None


def compared(groups: Sequence[Group]) -> list[Group]:
    """Those groups that compare remedies with raw."""
    return [each for each in groups if RAW in each.arms and len(each.arms) >= COMPARED]


def cures(groups: Sequence[Group]) -> list[Cure]:
    """By features dead at the end, then by error; remedies that some layer lacks are left out."""
    places = _places(groups)
    arms = dict.fromkeys(arm for group in groups for arm in group.arms)
    known = [arm for arm in arms if all(_end(group, layer, arm) for group, layer in places)]
    found = [_cure(groups, places, arm, known) for arm in known]
    return sorted(found, key=lambda cure: (cure.end.mean, cure.fvu.mean if cure.fvu else 0.0))


def regimes(groups: Sequence[Group]) -> list[Regime]:
    """Every layer, by gamma and effective rank."""
    found = []
    for group, layer in _places(groups):
        gamma = group.at_layer(_statistic("gamma"), layer)
        rank = group.at_layer(_statistic("effective_rank"), layer)
        if gamma is None or rank is None:
            continue
        raw = _end(group, layer, RAW)
        width = group.spec.card.get("tap", {}).get("width", 0)
        cheapest = min(_enough_at(group, layer), key=lambda arm: _price(groups, arm), default=None)
        found.append(
            Regime(group, layer, gamma.mean, rank.mean, width, raw.mean if raw else None, cheapest)
        )
    return sorted(found, key=lambda each: (each.gamma, each.effective_rank, each.group.label))


def needs(arm: str) -> str:
    """What must be known of the activations before training; `nothing` is a possible answer."""
    found = _needs(arm)
    return f"{', '.join(found)} of a sample" if found else "nothing"


def by_group(
    groups: Sequence[Group], arm: str, number: Callable[[Group, int, str], float | None]
) -> list[float | None]:
    """A number of a remedy in each group, the mean over its layers."""
    found = []
    for group in groups:
        spread = Spread.of(
            value for layer in group.layers if (value := number(group, layer, arm)) is not None
        )
        found.append(None if spread is None else spread.mean)
    return found


def end_dead(group: Group, layer: int, arm: str) -> float | None:
    """Share of the features dead at the end, the mean over seeds."""
    spread = _end(group, layer, arm)
    return None if spread is None else spread.mean


def error_over_best(group: Group, layer: int, arm: str) -> float | None:
    """The error over the best remedy's of the layer."""
    return _over_best(group, layer, arm, group.arms) if _has_error(group, layer, arm) else None


# ------------------------------------------------------------------------------------- internals


def _places(groups: Sequence[Group]) -> list[tuple[Group, int]]:
    return [(group, layer) for group in groups for layer in group.layers]


def _cure(
    groups: Sequence[Group], places: Sequence[tuple[Group, int]], arm: str, known: Sequence[str]
) -> Cure:
    def over(value: Value) -> Spread | None:
        """Mean and range of the seeds' means over the layers; of seeds that every layer has."""
        seeds = set.intersection(*(set(group.seeds) for group, _ in places))
        means = []
        for seed in sorted(seeds):
            cells = [group.cells.get((layer, arm, seed)) for group, layer in places]
            numbers = [value(cell) for cell in cells if cell is not None]
            read = [number for number in numbers if number is not None]
            if read:
                means.append(fmean(read))
        return Spread.of(means)

    born, end = over(_dead("death_init")), over(_dead("death_end"))
    assert born is not None
    assert end is not None
    fine = [(group, layer) for group, layer in places if arm in _enough_at(group, layer)]
    failing = dict.fromkeys(g.label for g, layer in places if (g, layer) not in fine)
    return Cure(
        arm=arm,
        born=born,
        born_relu=over(_dead("death_init", "relu")),
        born_topk=over(_dead("death_init", "topk")),
        end=end,
        end_relu=over(_dead("death_end", "relu")),
        end_topk=over(_dead("death_end", "topk")),
        durable=over(_durable),
        fvu=_geometric([_over_best(group, layer, arm, known) for group, layer in places]),
        l0=over(lambda record: _trained(record, "l0")),
        recovery=over(lambda record: _trained(record, "recovery")),
        always_on=over(_always_on),
        cost=_cost(groups, arm),
        needs=needs(arm),
        enough=len(fine),
        failing=tuple(failing),
    )


def _geometric(ratios: Sequence[float]) -> Spread:
    """The geometric mean and the range of ratios, of which there is at least one."""
    mean = exp(fmean(log(ratio) for ratio in ratios)) if min(ratios) > 0 else 0.0
    return Spread(mean, min(ratios), max(ratios))


def _enough_at(group: Group, layer: int) -> list[str]:
    found = []
    for arm in group.arms:
        end = _end(group, layer, arm)
        if end is None or end.mean >= ENOUGH_DEAD:
            continue
        if _over_best(group, layer, arm, group.arms) <= ENOUGH_FVU:
            found.append(arm)
    return found


def _over_best(group: Group, layer: int, arm: str, arms: Sequence[str]) -> float:
    """The error of a remedy over that of the best one of the layer."""
    errors = {each: group.at_layer(_fvu, layer, each) for each in arms}
    best = min(spread.mean for spread in errors.values() if spread is not None)
    mine = errors[arm]
    assert mine is not None
    return mine.mean / best if best > 0 else 1.0


def _end(group: Group, layer: int, arm: str) -> Spread | None:
    return group.at_layer(_dead("death_end"), layer, arm) if _has_error(group, layer, arm) else None


def _has_error(group: Group, layer: int, arm: str) -> bool:
    return group.at_layer(_fvu, layer, arm) is not None


def _cost(groups: Sequence[Group], arm: str) -> float | None:
    """Time of a step over that of raw, paired by model, layer and seed; the median pair's."""
    ratios = []
    for group, layer in _places(groups):
        for plain, record in zip(group.at(layer, RAW), group.at(layer, arm), strict=False):
            if plain and record and plain.step_seconds and record.step_seconds:
                ratios.append(record.step_seconds / plain.step_seconds)
    return sorted(ratios)[len(ratios) // 2] if ratios else None


def _price(groups: Sequence[Group], arm: str) -> tuple[float, int, int, str]:
    cost = _cost(groups, arm)
    steps = round((cost if cost is not None else 1.0) / COST_STEP)
    return steps, len(_needs(arm)), arm.count("+") + arm.count("-"), arm


def _needs(arm: str) -> list[str]:
    try:
        parsed = parse_arm(arm)
    except UnknownName:
        return []
    chosen = (
        parsed.center, parsed.norm, parsed.bias, parsed.start, parsed.tokens, parsed.aux,
        parsed.schedule,
    )  # fmt: skip
    found = (need for choice in chosen if choice != "none" for need in REMEDIES[choice].needs)
    return list(dict.fromkeys(found))


def _dead(when: str, path: str | None = None) -> Value:
    def value(record: Record) -> float | None:
        if record.result is None:
            return None
        death = getattr(record.result, when)
        features = death.dead if path is None else getattr(death, f"dead_{path}")
        return None if features is None else features / record.spec.protocol["n"]

    return value


def _statistic(name: str) -> Value:
    return lambda record: None if record.result is None else getattr(record.result.statistics, name)


def _trained(record: Record, name: str) -> float | None:
    training = record.result.training if record.result else None
    return None if training is None else getattr(training, name)


def _fvu(record: Record) -> float | None:
    """On ordinary tokens, where that is known."""
    ordinary = _trained(record, "fvu_ordinary")
    return _trained(record, "fvu") if ordinary is None else ordinary


def _durable(record: Record) -> float | None:
    training = record.result.training if record.result else None
    found: Revival | None = training.revival if training else None
    return found.durable / found.born if found is not None and found.born else None


def _always_on(record: Record) -> float | None:
    if record.result is None or record.result.death_end.always_on is None:
        return None
    return record.result.death_end.always_on / record.spec.protocol["n"]
