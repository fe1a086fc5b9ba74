"""What the figures show, as plain data: one drawing kind, a caption, and the numbers to draw.

A picture's hash says whether a drawn file is current, without drawing it again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean, median
from typing import Any, Literal

from bench.records.schema import Record, TrainingCheckpoint
from leaderboard.columns.activations import GAMMA, GAMMA_RAW, GAMMA_RMS
from leaderboard.columns.death import END, INIT, INIT_RELU, PREDICTED
from leaderboard.cures import compared
from leaderboard.figures import titles
from leaderboard.figures.cures_data import cures_data, when_points
from leaderboard.figures.survival import (
    awake_by_chance,
    by_domain_and_arm,
    fates_of,
    log_steps,
    pooled,
    revival_of,
    survival_quartiles,
    training_steps,
)
from leaderboard.figures.why import why_data, why_title
from leaderboard.groups import (
    CENTERED,
    RAW,
    Group,
    Setting,
    arms_of,
    by_setting,
    data_words,
    sizes_as_run,
)
from leaderboard.page_names import model_page
from leaderboard.text import count, escape, plain
from zoo.cards import DOMAINS
from zoo.files import content_hash

# To be raised whenever the same data would be drawn in another way.
DRAWING_VERSION = 7

FigureKind = Literal[
    "gamma_death", "why", "death_training", "fates", "revival", "bias", "heat", "when",
    "cures", "profile",
]  # fmt: skip

# Arms that figures of lines can tell apart.
MOST_LINES = 7

_PATHS = {"relu": "ReLU", "topk": "TopK"}


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
    sizes = sizes_as_run(groups[0].spec)
    data = {
        "points": points,
        "domains": _domains(groups),
        "arms": _arms(groups),
        "tokens": sizes["N"],
        "k": sizes["k"],
        "n": sizes["n"],
    }
    caption = f"{count(len(points), 'cell')}; the curves are closed forms without a fit. "
    return _picture("gamma_death", setting, groups, titles.gamma_death_title(data), caption, data)


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

    groups, chosen = _few_arms(groups)
    lines = _lines(groups, dead)
    if not lines:
        return None
    data = {"lines": lines, "domains": _domains(groups), "arms": _arms(groups)}
    caption = chosen + "A thin line per cell, a thick one for the arm's median. "
    return _picture(
        "death_training", setting, groups, titles.death_training_title(data), caption, data
    )


def _fates(setting: Setting, groups: Sequence[Group], path: str) -> Picture | None:
    """What has become of features born dead by a path, over training: pooled by domain and arm."""
    groups, chosen = _few_arms(groups)
    found = by_domain_and_arm(groups, partial(fates_of, path=path))
    curves = [
        {"domain": domain, "arm": arm} | pooled(members)
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
    caption = chosen + (
        f"Of all features dead by {word} at initialisation in a domain's cells. Durable: has fired "
        "on one of the last N training tokens, and is alive on the frozen sample; relapsed: has "
        "fired, and is silent or dead now. Dotted: what sampling alone shows at most, in the same "
        f"dictionary without training. {count(sum(map(len, found.values())), 'cell')}. "
    )
    return _picture("fates", setting, groups, titles.fates_title(data), caption, data, suffix=path)


def _revival(setting: Setting, groups: Sequence[Group]) -> Picture | None:
    """The arms' median survival curves by path and domain, read at common steps."""
    groups, chosen = _few_arms(groups)
    found = {path: by_domain_and_arm(groups, partial(revival_of, path=path)) for path in _PATHS}
    cells = {path: count(sum(map(len, each.values())), "cell") for path, each in found.items()}
    steps = log_steps(max(training_steps(each) for group in groups for each in group.records))
    curves: list[dict[str, Any]] = [
        {"path": path, "domain": domain, "arm": arm, "cells": len(members)}
        | {"features": sum(each.born for each in members)}
        | survival_quartiles([each.curve for each in members], steps)
        | {"chance": median(awake_by_chance(each) / each.born for each in members)}
        for path, by_arm in found.items()
        for (domain, arm), members in sorted(by_arm.items())
    ]
    if not curves:
        return None
    data = {
        "steps": steps,
        "curves": curves,
        "paths": _those_of(list(_PATHS), [curve["path"] for curve in curves]),
        "domains": _those_of(_domains(groups), [curve["domain"] for curve in curves]),
        "arms": _those_of(_arms(groups), [curve["arm"] for curve in curves]),
    }
    caption = chosen + (
        "Kaplan-Meier share of the features dead at initialisation that have not revived durably: "
        "the arm's median over cells, in a band between the quartiles. Dotted: as low as sampling "
        "alone brings it at most. Only cells with features born dead by the path: "
        f"{cells['relu']} by ReLU, {cells['topk']} by TopK. "
    )
    return _picture("revival", setting, groups, titles.revival_title(data), caption, data)


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
    return _picture("bias", setting, groups, titles.bias_title(data), caption, data)


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
    return _picture("heat", setting, groups, titles.heat_title(data), caption, data)


def _when(setting: Setting, groups: Sequence[Group]) -> Picture | None:
    members = compared(groups)
    points = when_points(members)
    if not points:
        return None
    caption = "The cheapest remedy that is enough on each layer; hatched where none was measured. "
    data = {"points": points}
    return _picture("when", setting, members, titles.when_title(data), caption, data)


def _cures(setting: Setting, groups: Sequence[Group]) -> Picture | None:
    members = compared(groups)
    data = cures_data(members)
    if not data["arms"]:
        return None
    caption = "Means over seeds and layers. Blue: no other remedy is better in both. "
    return _picture("cures", setting, members, titles.cures_title(data), caption, data)


# ---------------------------------------------------------------------------------------- models


def _profile(setting: Setting, group: Group) -> Picture | None:
    gammas = {
        metric.title: _row(group.by_layer(metric.value)) for metric in (GAMMA, GAMMA_RAW, GAMMA_RMS)
    }
    if not gammas["gamma"]:
        return None
    (group,), chosen = _few_arms([group])
    data = {
        "gammas": gammas,
        "predicted": _row(group.by_layer(PREDICTED.value)),
        "init": {plain(arm, 30): _row(group.by_layer(INIT.value, arm)) for arm in group.arms},
        "end": {plain(arm, 30): _row(group.by_layer(END.value, arm)) for arm in group.arms},
        "trained": bool(group.spec.protocol.get("steps")),
    }
    title = titles.profile_title(plain(group.label, 60), data)
    stem = model_page(group.model).removesuffix(".md")
    name = f"{_stem(setting)}-{stem}-{group.key[:6]}"
    caption = f"{chosen}Means over seeds. {_sizes([group])}"
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
    spec = groups[0].spec
    sizes = sizes_as_run(spec)
    text = ", ".join(f"{key} = {sizes[key]:,}" for key in ("N", "k", "n"))
    if "steps" in sizes:
        text += f", {count(sizes['steps'], 'training step')}"
    text += f"; {data_words(groups)}"
    return text + (f"; limited to {count(spec.limit, 'token')}." if spec.limit else ".")


def _domains(groups: Sequence[Group]) -> list[str]:
    """The domains that occur, the known ones first and in their order."""
    found = {plain(group.domain, 20) for group in groups}
    return [name for name in DOMAINS if name in found] + sorted(found - set(DOMAINS))


def _arms(groups: Sequence[Group]) -> list[str]:
    return [plain(arm, 30) for arm in arms_of(groups)]


def _few_arms(groups: Sequence[Group]) -> tuple[Sequence[Group], str]:
    """The groups with the arms that lines have colours for, and words on which these are.

    Of too many: raw and centered ones, and those that end with the fewest dead.
    """
    every = arms_of(groups)
    if len(every) <= MOST_LINES:
        return groups, ""
    ends: dict[str, list[float]] = {}
    for arm in every:
        of_models = (END.of_model(group, arm) for group in groups)
        ends[arm] = [share for share in of_models if share is not None]
    trained = [arm for arm in every if ends[arm]]
    known = sorted(trained, key=lambda arm: fmean(ends[arm])) or every
    first = [arm for arm in (RAW, CENTERED) if arm in known]
    others = [arm for arm in known if arm not in first][: MOST_LINES - len(first)]
    kept = {*first, *others}
    fewer = [
        replace(
            group, cells={place: cell for place, cell in group.cells.items() if place[1] in kept}
        )
        for group in groups
        if kept & set(group.arms)
    ]
    named = f"{' and '.join(first)} and " if first else ""
    fewest = f"the {len(others)} that end with fewest dead" if trained else f"{len(others)} more"
    return fewer, f"Of {len(every)} arms {named}{fewest}. "


def _measured(group: Group) -> list[Record]:
    return [record for record in group.records if record.result is not None]


def _checkpoints(record: Record) -> Sequence[TrainingCheckpoint]:
    training = record.result.training if record.result else None
    return training.checkpoints if training else ()


def _those_of(every: Sequence[str], found: Sequence[str]) -> list[str]:
    return [name for name in every if name in found]


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
