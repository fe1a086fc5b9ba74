"""Families of SAEs side by side: what each dies of, by the same two paths, and what cures it.

A feature that is never positive is dead by ReLU in every family. The second path is being positive
somewhere and never a code: not among the k largest (topk), or never above the threshold
(batchtopk, matryoshka, jumprelu); the family relu has none, as everything positive is a code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from bench.sae.families import DEFAULT, FAMILIES, is_dense
from bench.sae.recipe import FAMILY_KEYS
from leaderboard.columns.death import (
    ALWAYS_ON,
    END,
    END_RELU,
    END_TOPK,
    INIT_RELU,
    INIT_TOPK,
)
from leaderboard.columns.revival import BORN_DEAD
from leaderboard.columns.training import FVU, L0
from leaderboard.cures import ENOUGH_DEAD
from leaderboard.groups import RAW, Group, Value, arms_of
from zoo.files import content_hash

# What may differ between the families that are compared; relu and jumprelu are always dense.
_OF_FAMILY = frozenset({"family", "path", *FAMILY_KEYS})


@dataclass(frozen=True)
class FamilyArm:
    """An arm of a family: means over the layers that all families were trained on.

    Shares of the dictionary; None where nothing was measured. durable: of the features born dead on
    any of the layers, all seeds together, as on some layers there is one.
    aimed_l0: the L0 it is trained for, k or what its price aims at; None where it chooses its own.
    cured: on how many of the layers less than `ENOUGH_DEAD` of the features are dead at the end.
    """

    family: str
    arm: str
    born_relu: float | None
    born_second: float | None
    end_relu: float | None
    end_second: float | None
    durable: float | None
    fvu: float | None
    l0: float | None
    aimed_l0: float | None
    always_on: float | None
    cured: int


@dataclass(frozen=True)
class FamilyComparison:
    """Families measured alike: their arms in order, and on how many layers of which models."""

    arms: tuple[FamilyArm, ...]
    layers: int
    models: tuple[str, ...]
    sizes: Group

    @property
    def families(self) -> list[str]:
        """In the order of their arms."""
        return list(dict.fromkeys(each.family for each in self.arms))

    def at_one_l0(self) -> dict[str, list[FamilyArm]]:
        """By arm, those of all families that are trained for the L0 k, by their error.

        Empty where a family without a k is not among them: that is what is asked.
        """
        k = float(self.sizes.spec.protocol["k"])
        led = [each for each in self.arms if each.aimed_l0 == k and each.fvu is not None]
        if not any(is_dense(_name(each.family)) for each in led):
            return {}
        by_arm: dict[str, list[FamilyArm]] = {}
        for each in sorted(led, key=lambda each: each.fvu or 0.0):
            by_arm.setdefault(each.arm, []).append(each)
        return {arm: by_arm[arm] for arm in dict.fromkeys(each.arm for each in self.arms)}


def compared_families(groups: Sequence[Group]) -> Iterator[FamilyComparison]:
    """Of several families measured on the same layers, by the same arms."""
    alike: dict[str, list[Group]] = {}
    for group in groups:
        rest = {key: v for key, v in group.spec.protocol.items() if key not in _OF_FAMILY}
        key = content_hash([rest, group.spec.limit, group.spec.metric_version])
        alike.setdefault(key, []).append(group)
    for members in alike.values():
        found = _compare(members)
        if found is not None:
            yield found


# ------------------------------------------------------------------------------------- internals

# A group's cells of one arm on one layer, over which its seeds' mean is taken.
_Places = list[tuple[Group, int]]


def _compare(members: Sequence[Group]) -> FamilyComparison | None:
    by_family: dict[str, dict[tuple[str, int], Group]] = {}
    for group in members:
        places = by_family.setdefault(_label(group.spec.protocol), {})
        places.update({(group.key, layer): group for layer in group.layers})
    common = set.intersection(*(set(places) for places in by_family.values()))
    arms = [
        arm
        for arm in arms_of(members)
        if all(
            places[place].at_layer(END.value, place[1], arm) is not None
            for places in by_family.values()
            for place in common
        )
    ]
    if len(by_family) < 2 or not common or RAW not in arms or len(arms) < 2:
        return None
    found = [
        _family_arm(family, arm, [(by_family[family][place], place[1]) for place in sorted(common)])
        for family in sorted(by_family, key=_family_order)
        for arm in arms
    ]
    first = next(iter(by_family.values()))
    models = dict.fromkeys(first[place].label for place in sorted(common))
    return FamilyComparison(tuple(found), len(common), tuple(sorted(models)), members[0])


def _family_arm(family: str, arm: str, places: _Places) -> FamilyArm:
    def mean(value: Value) -> float | None:
        read = [group.at_layer(value, layer, arm) for group, layer in places]
        return fmean(each.mean for each in read if each) if any(read) else None

    ends = [group.at_layer(END.value, layer, arm) for group, layer in places]
    return FamilyArm(
        family=family,
        arm=arm,
        born_relu=mean(INIT_RELU.value),
        born_second=mean(INIT_TOPK.value),
        end_relu=mean(END_RELU.value),
        end_second=mean(END_TOPK.value),
        durable=_durable(arm, places),
        fvu=mean(FVU.value),
        l0=mean(L0.value),
        aimed_l0=_aimed_l0(places[0][0].spec.protocol),
        always_on=mean(ALWAYS_ON.value),
        cured=sum(end is not None and end.mean < ENOUGH_DEAD for end in ends),
    )


def _durable(arm: str, places: _Places) -> float | None:
    """The share of all features born dead on these layers that are alive for good."""
    records = [record for group, layer in places for record in group.at(layer, arm) if record]
    found = [pair for pair in map(BORN_DEAD.durable.counted, records) if pair is not None]
    born = sum(each for _, each in found)
    return sum(durable for durable, _ in found) / born if born else None


def _label(protocol: Mapping[str, Any]) -> str:
    """The family's name; and the L0 that it was led to, if it was."""
    family, target = protocol.get("family", DEFAULT), protocol.get("target_l0")
    return family if target is None else f"{family} at L0 {target:g}"


def _name(label: str) -> str:
    return label.split()[0]


def _aimed_l0(protocol: Mapping[str, Any]) -> float | None:
    target = protocol["k"]
    if is_dense(protocol.get("family")):
        target = protocol.get("target_l0")
    return None if target is None else float(target)


def _family_order(label: str) -> tuple[int, str]:
    known, name = list(FAMILIES), _name(label)
    return (known.index(name) if name in known else len(known)), label
