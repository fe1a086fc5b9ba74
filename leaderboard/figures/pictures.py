"""What the figures show, as plain data: one drawing kind, a caption, and the numbers to draw.

A picture's hash says whether a drawn file is current, without drawing it again.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import quantiles
from typing import Any, Literal

from bench.records.schema import Checkpoint, Record, Revival
from leaderboard.columns.activations import GAMMA, GAMMA_RAW, GAMMA_RMS
from leaderboard.columns.death import END, INIT, INIT_RELU, PREDICTED
from leaderboard.groups import CENTERED, RAW, Group, Setting, arms_of, by_setting
from leaderboard.page_names import model_page
from leaderboard.text import count, escape, plain
from zoo.cards import DOMAINS
from zoo.files import content_hash

# To be raised whenever the same data would be drawn in another way.
DRAWING_VERSION = 3

Kind = Literal["gamma_death", "death_training", "revival", "bias", "heat", "profile"]

# Steps at which survival curves are read: more than a figure can show apart.
SURVIVAL_POINTS = 64


@dataclass(frozen=True)
class Picture:
    """One figure: its file name without suffix, how it is drawn, what it says, and its data.

    It belongs to a setting, and to one group of it where `subject` is that group's key.
    """

    name: str
    kind: Kind
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
            picture
            for build in (_gamma_death, _death_training, _revival, _bias, _heat)
            if (picture := build(setting, members)) is not None
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


def _revival(setting: Setting, groups: Sequence[Group]) -> Picture | None:
    """The arms' median survival curves by path and domain, read at common steps."""
    found: dict[tuple[str, str, str], list[Revival]] = defaultdict(list)
    end = 0
    for group in groups:
        for record in _measured(group):
            assert record.result is not None
            if training := record.result.training:
                end = max(end, training.steps)
                paths = {"relu": training.revival_relu, "topk": training.revival_topk}
                for path, revival in paths.items():
                    if revival.curve:
                        key = path, plain(group.domain, 20), plain(record.spec.arm, 30)
                        found[key].append(revival)
    if not found:
        return None
    steps = _log_steps(end)
    curves = [
        {"path": path, "domain": domain, "arm": arm, "cells": len(members)}
        | _survival_quartiles([revival.curve for revival in members], steps)
        for (path, domain, arm), members in sorted(found.items())
    ]
    cells = {
        path: count(sum(len(members) for key, members in found.items() if key[0] == path), "cell")
        for path in ("relu", "topk")
    }
    data = {
        "steps": steps,
        "curves": curves,
        "domains": [name for name in _domains(groups) if any(name == key[1] for key in found)],
        "arms": [name for name in _arms(groups) if any(name == key[2] for key in found)],
    }
    caption = (
        "Kaplan-Meier share of the features dead at initialisation that have not fired yet: the "
        "arm's median over cells, in a band between the quartiles. Only cells with features born "
        f"dead by the path: {cells['relu']} by ReLU, {cells['topk']} by TopK. "
    )
    return _picture("revival", setting, groups, "Revival of dead features", caption, data)


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
    caption = "Means over seeds. " + _sizes(group)
    return Picture(name, "profile", title, caption, setting, group.key, data)


# ------------------------------------------------------------------------------------- internals


def _picture(
    kind: Kind,
    setting: Setting,
    groups: Sequence[Group],
    title: str,
    caption: str,
    data: dict[str, Any],
) -> Picture:
    name = f"{_stem(setting)}-{kind.replace('_', '-')}"
    return Picture(name, kind, title, caption + _sizes(groups[0]), setting, None, data)


def _stem(setting: Setting) -> str:
    """Names a setting in a file's name."""
    readable = re.sub(r"[^a-z0-9]+", "-", setting.name.lower()).strip("-")[:30]
    return f"{readable or 'protocol'}-{setting.key[:8]}"


def _sizes(group: Group) -> str:
    spec, protocol = group.spec, group.spec.protocol
    text = ", ".join(f"{key} = {protocol[key]:,}" for key in ("N", "k", "n"))
    if isinstance(steps := protocol.get("steps"), int):
        text += f", {count(steps, 'training step')}"
    return text + (f"; limited to {count(spec.limit, 'token')}." if spec.limit else ".")


def _domains(groups: Sequence[Group]) -> list[str]:
    """The domains that occur, the known ones first and in their order."""
    found = {plain(group.domain, 20) for group in groups}
    return [name for name in DOMAINS if name in found] + sorted(found - set(DOMAINS))


def _arms(groups: Sequence[Group]) -> list[str]:
    return [plain(arm, 30) for arm in arms_of(groups)]


def _measured(group: Group) -> list[Record]:
    return [record for record in group.records if record.result is not None]


def _checkpoints(record: Record) -> Sequence[Checkpoint]:
    training = record.result.training if record.result else None
    return training.checkpoints if training else ()


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
    low, median, high = (list(values) for values in zip(*rows, strict=True))
    return {"low": low, "median": median, "high": high}


def _row(values: dict[int, float]) -> list[list[float]]:
    """Layers and their values, JSON-able."""
    return [[layer, value] for layer, value in sorted(values.items())]
