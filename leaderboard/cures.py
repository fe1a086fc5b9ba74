"""Remedies side by side: what each leaves dead, at what price, and which one is enough where.

Of the groups of one setting. A number of a remedy is the mean over layers (of all models alike) of
the mean over seeds; its range is that of the seeds' means. "Enough" is a remedy that leaves less
than `ENOUGH_DEAD` of the features dead at the end, at an error within `ENOUGH_FVU` of the best
remedy's on the layer. Cheapest is the shortest training, in steps of `COST_STEP` of raw's as
smaller differences are noise, then what needs least to be known, then the plainest name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import exp, log
from statistics import fmean, median
from typing import NamedTuple

from bench.diagnosis.rule import Cause, advised_arm, cause_of_death
from bench.records.schema import Record
from bench.sae.arms import parse_arm
from bench.sae.remedies import REMEDIES
from leaderboard.columns.activations import EFFECTIVE_RANK, GAMMA, MASSIVE
from leaderboard.columns.death import (
    ALWAYS_ON,
    END,
    END_RELU,
    END_TOPK,
    INIT,
    INIT_RELU,
    INIT_TOPK,
)
from leaderboard.columns.revival import BORN_DEAD
from leaderboard.columns.training import BIAS, FVU, FVU_ORDINARY, L0, RECOVERY
from leaderboard.cost import memory_over_raw, time_over_raw
from leaderboard.groups import CENTERED, RAW, Group, Spread, Value
from zoo.errors import UnknownName

# Arms from which on a setting is a comparison of remedies.
COMPARED = 6

ENOUGH_DEAD = 0.01
ENOUGH_FVU = 1.01
COST_STEP = 0.1


class HalfLearned(NamedTuple):
    """When a decoder bias had learned half of the mean.

    step: the median of the layers where it had for every seed, None where there are none.
    reached: on how many layers it had; layers: of so many.
    """

    step: float | None
    reached: int
    layers: int


@dataclass(frozen=True)
class Cure:
    """A remedy over the layers of a setting. Shares of the dictionary, but for durable.

    born, end: dead features, and of these by which path. durable: of those born dead, the share
    that revived for good; None where none was born dead. fvu: on ordinary tokens, over the best
    remedy's of the layer: the geometric mean over layers, and its range over them.
    always_on: share of the features. bias: share of the mean that the decoder's had learned at the
    end, and half: when it had learned half of it; None where the arm subtracts a center.
    time, memory: over raw's (`leaderboard.cost`). enough: on how many of the layers it is.
    failing: the models in which on some layer it is not.
    end_by_group, fvu_by_group: means over the layers of each group.
    """

    arm: str
    born: Spread
    born_relu: Spread | None
    born_topk: Spread | None
    end: Spread
    end_relu: Spread | None
    end_topk: Spread | None
    durable: Spread | None
    fvu: Spread
    l0: Spread | None
    recovery: Spread | None
    always_on: Spread | None
    bias: Spread | None
    half: HalfLearned | None
    time: float | None
    memory: float | None
    needs: str
    enough: int
    failing: tuple[str, ...]
    end_by_group: tuple[float, ...]
    fvu_by_group: tuple[float, ...]


@dataclass(frozen=True)
class Regime:
    """A layer: its gamma and effective rank, and the cheapest remedy that is enough, if any is.

    massive: whether it has massive tokens. cause: what features die of there at birth, None where
    that was not measured. enough: the remedies that are. dead, over_best: by remedy, the share of
    features dead at the end, and the error over that of the best remedy.
    """

    group: Group
    layer: int
    gamma: float
    effective_rank: float
    width: int
    massive: bool
    cause: Cause | None
    enough: tuple[str, ...]
    cheapest: str | None
    dead: Mapping[str, float]
    over_best: Mapping[str, float]

    @property
    def raw_dead(self) -> float | None:
        """The share of features dead at the end without a remedy."""
        return self.dead.get(RAW)

    @property
    def advised(self) -> str | None:
        """The remedy that the rule of thumb names (`bench.diagnosis.rule`)."""
        return None if self.cause is None else advised_arm(self.cause, massive=self.massive)


def compared(groups: Sequence[Group]) -> list[Group]:
    """Those groups that compare remedies with raw."""
    return [each for each in groups if RAW in each.arms and len(each.arms) >= COMPARED]


def cures(groups: Sequence[Group]) -> list[Cure]:
    """By features dead at the end, then by error.

    Remedies that some layer lacks, or has of no seed that all layers have, are left out.
    """
    layers = _layers(groups)
    arms = dict.fromkeys(arm for group in groups for arm in group.arms)
    everywhere = [arm for arm in arms if all(arm in each.dead for each in layers)]
    found = [cure for arm in everywhere if (cure := _cure(groups, layers, arm)) is not None]
    return sorted(found, key=lambda cure: (cure.end.mean, cure.fvu.mean))


def regimes(groups: Sequence[Group]) -> list[Regime]:
    """Every layer, by gamma and effective rank."""
    arms = dict.fromkeys(arm for group in groups for arm in group.arms)
    prices = {arm: _price(arm, time_over_raw(groups, arm)) for arm in arms}
    found = []
    for each in _layers(groups):
        gamma = each.group.at_layer(GAMMA.value, each.layer)
        rank = each.group.at_layer(EFFECTIVE_RANK.value, each.layer)
        if gamma is None or rank is None:
            continue
        massive = each.group.at_layer(MASSIVE.value, each.layer)
        found.append(
            Regime(
                group=each.group,
                layer=each.layer,
                gamma=gamma.mean,
                effective_rank=rank.mean,
                width=each.group.spec.card.get("tap", {}).get("width", 0),
                massive=massive is not None and massive.mean > 0,
                cause=each.cause,
                enough=tuple(each.enough),
                cheapest=min(each.enough, key=prices.__getitem__, default=None),
                dead=each.dead,
                over_best={arm: each.over_best(arm) for arm in each.dead},
            )
        )
    return sorted(found, key=lambda each: (each.gamma, each.effective_rank, each.group.label))


def needs(arm: str) -> str:
    """What must be known of the activations before training; `nothing` is a possible answer."""
    found = _needs(arm)
    return f"{', '.join(found)} of a sample" if found else "nothing"


# ------------------------------------------------------------------------------------- internals


@dataclass(frozen=True)
class _Layer:
    """What the remedies left on one layer: the means over seeds of those that were trained."""

    group: Group
    layer: int
    dead: dict[str, float]  # at the end, by arm
    error: dict[str, float]  # on ordinary tokens, by arm

    @classmethod
    def of(cls, group: Group, layer: int) -> _Layer:
        dead = {arm: group.at_layer(END.value, layer, arm) for arm in group.arms}
        error = {arm: group.at_layer(_error, layer, arm) for arm in group.arms}
        trained = [arm for arm in group.arms if dead[arm] and error[arm]]
        return cls(
            group,
            layer,
            {arm: found.mean for arm in trained if (found := dead[arm])},
            {arm: found.mean for arm in trained if (found := error[arm])},
        )

    def over_best(self, arm: str) -> float:
        """The error of a remedy over that of the best one."""
        best = min(self.error.values())
        return self.error[arm] / best if best > 0 else 1.0

    @property
    def cause(self) -> Cause | None:
        """What features die of at birth; None where raw or centered ones were not counted."""
        raw, centered = (
            self.group.at_layer(INIT.value, self.layer, arm) for arm in (RAW, CENTERED)
        )
        if raw is None or centered is None:
            return None
        return cause_of_death(raw.mean, centered.mean)

    @cached_property
    def enough(self) -> list[str]:
        """The remedies that are."""
        return [
            arm
            for arm, dead in self.dead.items()
            if dead < ENOUGH_DEAD and self.over_best(arm) <= ENOUGH_FVU
        ]


def _layers(groups: Sequence[Group]) -> list[_Layer]:
    return [_Layer.of(group, layer) for group in groups for layer in group.layers]


def _cure(groups: Sequence[Group], layers: Sequence[_Layer], arm: str) -> Cure | None:
    """The remedy over the layers; None where they have no seed in common."""
    seeds = sorted(set.intersection(*(set(group.seeds) for group in groups)))

    def over(value: Value) -> Spread | None:
        """Mean and range of the seeds' means over the layers; of seeds that every layer has."""
        means = []
        for seed in seeds:
            cells = [each.group.cells.get((each.layer, arm, seed)) for each in layers]
            numbers = [value(cell) for cell in cells if cell is not None]
            read = [number for number in numbers if number is not None]
            if read:
                means.append(fmean(read))
        return Spread.of(means)

    born, end = over(INIT.value), over(END.value)
    if born is None or end is None:
        return None
    ratios = [each.over_best(arm) for each in layers]
    by_group = [[each for each in layers if each.group is group] for group in groups]
    return Cure(
        arm=arm,
        born=born,
        born_relu=over(INIT_RELU.value),
        born_topk=over(INIT_TOPK.value),
        end=end,
        end_relu=over(END_RELU.value),
        end_topk=over(END_TOPK.value),
        durable=over(BORN_DEAD.durable.value),
        fvu=_geometric(ratios),
        l0=over(L0.value),
        recovery=over(RECOVERY.value),
        always_on=over(ALWAYS_ON.value),
        bias=over(BIAS.value) if _learns_mean(arm) else None,
        half=_half_learned(layers, arm) if _learns_mean(arm) else None,
        time=time_over_raw(groups, arm),
        memory=memory_over_raw(groups, arm),
        needs=needs(arm),
        enough=sum(arm in each.enough for each in layers),
        failing=tuple(dict.fromkeys(each.group.label for each in layers if arm not in each.enough)),
        end_by_group=tuple(fmean(each.dead[arm] for each in found) for found in by_group),
        fvu_by_group=tuple(fmean(each.over_best(arm) for each in found) for found in by_group),
    )


def _learns_mean(arm: str) -> bool:
    """Not where a center is subtracted, which leaves what two samples differ by."""
    try:
        return parse_arm(arm).center == "none"
    except UnknownName:
        return False


def _half_learned(layers: Sequence[_Layer], arm: str) -> HalfLearned | None:
    found = []
    for each in layers:
        results = (record.result for record in each.group.at(each.layer, arm) if record)
        trained = [result.training for result in results if result]
        steps = [training.bias_steps for training in trained if training and training.bias_steps]
        if steps:
            found.append([each.half for each in steps])
    if not found:
        return None
    reached = [fmean(filter(None, halves)) for halves in found if None not in halves]
    return HalfLearned(median(reached) if reached else None, len(reached), len(found))


def _geometric(ratios: Sequence[float]) -> Spread:
    """The geometric mean and the range of ratios, of which there is at least one."""
    mean = exp(fmean(log(ratio) for ratio in ratios)) if min(ratios) > 0 else 0.0
    return Spread(mean, min(ratios), max(ratios))


def _error(record: Record) -> float | None:
    """On ordinary tokens, where that is known."""
    ordinary = FVU_ORDINARY.value(record)
    return FVU.value(record) if ordinary is None else ordinary


def _price(arm: str, time: float | None) -> tuple[int, int, int, str]:
    steps = 10**6 if time is None else round(time / COST_STEP)  # an unknown price is none to praise
    return steps, len(_needs(arm)), arm.count("+") + arm.count("-"), arm


def _needs(arm: str) -> list[str]:
    try:
        choices = parse_arm(arm).choices
    except UnknownName:
        return []
    return list(dict.fromkeys(need for choice in choices for need in REMEDIES[choice].needs))
