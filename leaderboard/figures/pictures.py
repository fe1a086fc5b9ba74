"""What the figures show, as plain data: one drawing kind, a caption, and the numbers to draw.

A picture's hash says whether a drawn file is current, without drawing it again.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median, quantiles
from typing import Any, Literal, TypeVar

from bench.records.schema import Fates, Record, Revival, Training, TrainingCheckpoint
from leaderboard.columns.activations import GAMMA, GAMMA_RAW, GAMMA_RMS
from leaderboard.columns.death import END, INIT, INIT_RELU, PREDICTED
from leaderboard.cures import compared
from leaderboard.figures.cures_data import cures_data, when_points
from leaderboard.figures.why import why_data, why_title
from leaderboard.groups import CENTERED, RAW, Group, Setting, arms_of, by_setting, data_words
from leaderboard.page_names import model_page
from leaderboard.text import count, escape, plain
from zoo.cards import DOMAINS
from zoo.files import content_hash

# To be raised whenever the same data would be drawn in another way.
DRAWING_VERSION = 4

FigureKind = Literal[
    "gamma_death", "why", "death_training", "fates", "revival", "bias", "heat", "when",
    "cures", "profile",
]  # fmt: skip

_PATHS = {"relu": "ReLU", "topk": "TopK"}

# Steps at which survival curves are read: more than a figure can show apart.
SURVIVAL_POINTS = 64


@dataclass(frozen=True)
class Picture:
    """One figure: its file name without suffix, how it is drawn, what it says, and its data.

    It belongs to a setting, and to one group of it where `subject` is that group's key.
    """

    name: str
    kind: FigureKind
    title: str
    caption: str
    setting: Setting
    subject: str | None
    data: dict[str, Any]

    @property
    def suffixes(self) -> tuple[str, ...]:
        """The files it is drawn to; of the models' many figures only what their pages show."""
        return ("svg",) if self.subject else ("svg", "png")

    @property
    def hash(self) -> str:
        """Changes whenever the drawing would."""
        return content_hash([DRAWING_VERSION, self.kind, self.title, self.caption, self.data])


def image(picture: Picture, base: str = "") -> str:
    """Markdown that shows the drawn picture; `base` leads to the boards' folder."""
    alt = escape(f"{picture.title}. {picture.caption}")
    return f"![{alt}]({base}figures/{picture.name}.svg)"


def pictures(groups: Sequence[Group]) -> list[Picture]:
    """All pictures that these groups have numbers for, in the order in which they are shown."""
    found: list[Picture] = []
    for setting, members in by_setting(groups).items():
        found += [
            picture for build in _OF_SETTINGS if (picture := build(setting, members)) is not None
        ]
        profiles = (_profile(setting, group) for group in members)
        found += [picture for picture in profiles if picture is not None]
    return found


# -------------------------------------------------------------------------------------- settings


def _gamma_death(setting: Setting, groups: Sequence[Group]) -> Picture | None:
    points = []
    for group in groups:
        for record in _measured(group):
            assert record.result is not None
            points.append(
                {
                    "domain": plain(group.domain, 20),
                    "arm": plain(record.spec.arm, 30),
                    "gamma": record.result.statistics.gamma,
                    "dead": INIT.value(record),
                    "relu": INIT_RELU.value(record),
                }
            )
    if not points:
        return None
    spec = groups[0].spec
    data = {
        "points": points,
        "domains": _domains(groups),
        "arms": _arms(groups),
        "tokens": min(spec.protocol["N"], spec.limit or spec.protocol["N"]),
        "k": spec.protocol["k"],
        "n": spec.protocol["n"],
    }
    caption = f"{count(len(points), 'cell')}; the curves are closed forms without a fit. "
    return _picture("gamma_death", setting, groups, "Death at initialisation", caption, data)


def _why(setting: Setting, groups: Sequence[Group]) -> Picture | None:
    data = why_data(groups)
    caption = "Means over layers and seeds. "
    return (
        None if data is None else _picture("why", setting, groups, why_title(data), caption, data)
    )


def _death_training(setting: Setting, groups: Sequence[Group]) -> Picture | None:
    def dead(record: Record) -> list[list[float]]:
        n = record.spec.protocol["n"]
        assert record.result is not None
        birth = [[0, record.result.death_init.dead / n]]
        later = [
            [point.step, (point.dead_relu + point.dead_topk) / n]
            for point in _checkpoints(record)
            if point.step > 0
        ]
        return birth + later if later else []

    lines = _lines(groups, dead)
    if not lines:
        return None
    data = {"lines": lines, "domains": _domains(groups), "arms": _arms(groups)}
    caption = "A thin line per cell, a thick one for the arm's median. "
    return _picture("death_training", setting, groups, "Death over training", caption, data)


def _fates(setting: Setting, groups: Sequence[Group], path: str) -> Picture | None:
    """What has become of features born dead by a path, over training: pooled by domain and arm."""
    found = _by_domain_and_arm(groups, partial(_fates_of, path=path))
    curves = [
        {"domain": domain, "arm": arm} | _pooled(members)
        for (domain, arm), members in sorted(found.items())
    ]
    if not curves:
        return None
    word = _PATHS[path]
    data = {
        "path": word,
        "curves": curves,
        "domains": _those_of(_domains(groups), [domain for domain, _ in found]),
        "arms": _those_of(_arms(groups), [arm for _, arm in found]),
    }
    caption = (
        f"Of all features dead by {word} at initialisation in a domain's cells. Durable: has fired "
        "on one of the last N training tokens, and is alive on the frozen sample; relapsed: has "
        "fired, and is silent or dead now. Dotted: what sampling alone shows at most, in the same "
        f"dictionary without training. {count(sum(map(len, found.values())), 'cell')}. "
    )
    title = f"What becomes of features born dead by {word}"
    return _picture("fates", setting, groups, title, caption, data, suffix=path)


def _revival(setting: Setting, groups: Sequence[Group]) -> Picture | None:
    """The arms' median survival curves by path and domain, read at common steps."""
    found = {path: _by_domain_and_arm(groups, partial(_revival_of, path=path)) for path in _PATHS}
    cells = {path: count(sum(map(len, each.values())), "cell") for path, each in found.items()}
    steps = _log_steps(max(_training_steps(each) for group in groups for each in group.records))
    curves: list[dict[str, Any]] = [
        {"path": path, "domain": domain, "arm": arm, "cells": len(members)}
        | _survival_quartiles([each.curve for each in members], steps)
        | {"chance": median(_awake_by_chance(each) / each.born for each in members)}
        for path, by_arm in found.items()
        for (domain, arm), members in sorted(by_arm.items())
    ]
    if not curves:
        return None
    data = {
        "steps": steps,
        "curves": curves,
        "domains": _those_of(_domains(groups), [curve["domain"] for curve in curves]),
        "arms": _those_of(_arms(groups), [curve["arm"] for curve in curves]),
    }
    caption = (
        "Kaplan-Meier share of the features dead at initialisation that have not revived durably: "
        "the arm's median over cells, in a band between the quartiles. Dotted: as low as sampling "
        "alone brings it at most. Only cells with features born dead by the path: "
        f"{cells['relu']} by ReLU, {cells['topk']} by TopK. "
    )
    return _picture("revival", setting, groups, "Durable revival of dead features", caption, data)


def _bias(setting: Setting, groups: Sequence[Group]) -> Picture | None:
    def progress(record: Record) -> list[list[float]]:
        return [
            [point.step, point.bias_progress]
            for point in _checkpoints(record)
            if point.step > 0 and point.bias_progress is not None
        ]

    lines = _lines(groups, progress)
    if not lines:
        return None
    data = {"lines": lines, "domains": _domains(groups), "arms": _arms(groups)}
    caption = (
        "A line per cell whose arm leaves the bias a mean to learn, coloured by its gamma; dashed "
        "where the arm is not raw. "
    )
    return _picture("bias", setting, groups, "What the bias learns of the mean", caption, data)


def _heat(setting: Setting, groups: Sequence[Group]) -> Picture | None:
    panels = {
        "gamma": [_row(group.by_layer(GAMMA.value)) for group in groups],
        "dead": [_row(group.by_layer(INIT.value, RAW)) for group in groups],
        "cured": [_row(group.by_layer(INIT.value, CENTERED)) for group in groups],
    }
    if not any(panels["gamma"]):
        return None
    data = {
        "models": [plain(group.label, 30) for group in groups],
        "depth": max(max(group.layers) for group in groups) + 1,
        "panels": panels,
    }
    caption = "Means over seeds; grey where there is no number. "
    return _picture("heat", setting, groups, "Model by layer", caption, data)


def _when(setting: Setting, groups: Sequence[Group]) -> Picture | None:
    members = compared(groups)
    points = when_points(members)
    if not points:
        return None
    caption = "A point is a layer; the cheapest remedy that is enough there. "
    return _picture("when", setting, members, "Which remedy where", caption, {"points": points})


def _cures(setting: Setting, groups: Sequence[Group]) -> Picture | None:
    members = compared(groups)
    data = cures_data(members)
    if not data["arms"]:
        return None
    caption = "Means over seeds and layers. Blue: no other remedy is better in both. "
    return _picture("cures", setting, members, "What cures dead features", caption, data)


# ---------------------------------------------------------------------------------------- models


def _profile(setting: Setting, group: Group) -> Picture | None:
    gammas = {
        metric.title: _row(group.by_layer(metric.value)) for metric in (GAMMA, GAMMA_RAW, GAMMA_RMS)
    }
    if not gammas["gamma"]:
        return None
    data = {
        "gammas": gammas,
        "predicted": _row(group.by_layer(PREDICTED.value)),
        "init": {plain(arm, 30): _row(group.by_layer(INIT.value, arm)) for arm in group.arms},
        "end": {plain(arm, 30): _row(group.by_layer(END.value, arm)) for arm in group.arms},
        "trained": bool(group.spec.protocol.get("steps")),
    }
    title = f"Layers of {plain(group.label, 60)}"
    stem = model_page(group.model).removesuffix(".md")
    name = f"{_stem(setting)}-{stem}-{group.key[:6]}"
    caption = "Means over seeds. " + _sizes([group])
    return Picture(name, "profile", title, caption, setting, group.key, data)


# ------------------------------------------------------------------------------------- internals


def _picture(
    kind: FigureKind,
    setting: Setting,
    groups: Sequence[Group],
    title: str,
    caption: str,
    data: dict[str, Any],
    *,
    suffix: str = "",
) -> Picture:
    name = "-".join([_stem(setting), kind.replace("_", "-"), *([suffix] if suffix else [])])
    return Picture(name, kind, title, caption + _sizes(groups), setting, None, data)


def _stem(setting: Setting) -> str:
    """Names a setting in a file's name."""
    readable = re.sub(r"[^a-z0-9]+", "-", setting.name.lower()).strip("-")[:30]
    return f"{readable or 'protocol'}-{setting.key[:8]}"


def _sizes(groups: Sequence[Group]) -> str:
    """What the cells have in common, and whether their data is real or made."""
    spec, protocol = groups[0].spec, groups[0].spec.protocol
    text = ", ".join(f"{key} = {protocol[key]:,}" for key in ("N", "k", "n"))
    if isinstance(steps := protocol.get("steps"), int):
        text += f", {count(steps, 'training step')}"
    text += f"; {data_words(groups)}"
    return text + (f"; limited to {count(spec.limit, 'token')}." if spec.limit else ".")


def _domains(groups: Sequence[Group]) -> list[str]:
    """The domains that occur, the known ones first and in their order."""
    found = {plain(group.domain, 20) for group in groups}
    return [name for name in DOMAINS if name in found] + sorted(found - set(DOMAINS))


def _arms(groups: Sequence[Group]) -> list[str]:
    return [plain(arm, 30) for arm in arms_of(groups)]


def _measured(group: Group) -> list[Record]:
    return [record for record in group.records if record.result is not None]


def _checkpoints(record: Record) -> Sequence[TrainingCheckpoint]:
    training = record.result.training if record.result else None
    return training.checkpoints if training else ()


def _training_steps(record: Record) -> int:
    training = record.result.training if record.result else None
    return training.steps if training else 0


_Part = TypeVar("_Part")


def _by_domain_and_arm(
    groups: Sequence[Group], read: Callable[[Training], _Part | None]
) -> dict[tuple[str, str], list[_Part]]:
    """A part of each trained cell that has it."""
    found: dict[tuple[str, str], list[_Part]] = defaultdict(list)
    for group in groups:
        for record in _measured(group):
            training = record.result.training if record.result else None
            part = None if training is None else read(training)
            if part is not None:
                found[plain(group.domain, 20), plain(record.spec.arm, 30)].append(part)
    return found


def _those_of(every: Sequence[str], found: Sequence[str]) -> list[str]:
    return [name for name in every if name in found]


def _revival_of(training: Training, path: str) -> Revival | None:
    """Of features born dead by the path; None where none was, or none was looked for."""
    revival: Revival | None = getattr(training, f"revival_{path}")
    return revival if revival is not None and revival.born else None


def _awake_by_chance(revival: Revival) -> int:
    return revival.chance.awake if revival.chance else 0


def _fates_of(training: Training, path: str) -> tuple[Revival, dict[int, Fates]] | None:
    """What became of features born dead, and what had at each census by its step."""
    revival = _revival_of(training, path)
    by_step = {each.step: getattr(each, f"fates_{path}") for each in training.checkpoints}
    known = {step: fates for step, fates in by_step.items() if step > 0 and fates is not None}
    return (revival, known) if revival and known else None


def _pooled(members: Sequence[tuple[Revival, dict[int, Fates]]]) -> dict[str, Any]:
    """Shares of the features of all cells, at the steps that all of them were counted at."""
    born = sum(revival.born for revival, _ in members)
    steps = sorted(set.intersection(*(set(fates) for _, fates in members)))
    shares = {
        name: [start]
        + [sum(getattr(fates[step], name) for _, fates in members) / born for step in steps]
        for name, start in (("durable", 0.0), ("relapsed", 0.0), ("never", 1.0))
    }
    chance = sum(_awake_by_chance(revival) for revival, _ in members) / born
    return shares | {"steps": [0, *steps], "chance": chance, "features": born}


def _lines(
    groups: Sequence[Group], read: Callable[[Record], list[list[float]]]
) -> list[dict[str, Any]]:
    """A line for each measured cell that has points."""
    lines = []
    for group in groups:
        for record in _measured(group):
            assert record.result is not None
            if points := read(record):
                gamma = record.result.statistics.gamma
                lines.append(
                    {
                        "domain": plain(group.domain, 20),
                        "arm": plain(record.spec.arm, 30),
                        "gamma": gamma,
                        "xy": points,
                    }
                )
    return lines


def _log_steps(end: int) -> list[int]:
    """0, and whole steps up to `end` that are evenly spaced on a logarithmic axis."""
    last = SURVIVAL_POINTS - 2
    return sorted({0, *(round(end ** (i / last)) for i in range(last + 1))})


def _survival_quartiles(
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


def _row(values: dict[int, float]) -> list[list[float]]:
    """Layers and their values, JSON-able."""
    return [[layer, value] for layer, value in sorted(values.items())]


_OF_SETTINGS: tuple[Callable[[Setting, Sequence[Group]], Picture | None], ...] = (
    _gamma_death,
    _why,
    _death_training,
    partial(_fates, path="relu"),
    partial(_fates, path="topk"),
    _revival,
    _bias,
    _heat,
    _when,
    _cures,
)
