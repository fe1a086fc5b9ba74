"""The static page: one folder that any browser opens, without a server or a request elsewhere.

The page's own files are in `static/`; the numbers go beside them as `data.js`, a script rather than
JSON because a browser does not let a local page read a local file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.records.schema import Record
from leaderboard.groups import CENTERED, RAW, Group, Setting, Spread, arms_of, by_setting
from leaderboard.markdown.values import measured_layers
from leaderboard.metrics import (
    BIAS,
    END,
    FVU,
    GAMMA,
    GAMMA_RAW,
    GAMMA_RMS,
    INIT,
    INIT_RELU,
    INIT_TOPK,
    L0,
    NEVER,
    PREDICTED,
    RANK,
    REVIVAL,
    Metric,
    RevivalMetric,
)
from leaderboard.page_names import model_page
from leaderboard.text import count, integer, plain, url_part

FOLDER = "page"
STATIC = Path(__file__).parent / "static"

_OF_CELL = (
    GAMMA,
    GAMMA_RAW,
    GAMMA_RMS,
    RANK,
    PREDICTED,
    INIT_RELU,
    INIT_TOPK,
    INIT,
    END,
    REVIVAL,
    NEVER,
    BIAS,
    FVU,
    L0,
)
_SAVED = "raw minus centered, in points of percent, paired by layer and seed"
_BY_ARM = (INIT, END, FVU)


def page_files(groups: Sequence[Group]) -> dict[str, str]:
    """The page's files: path below the boards' folder -> content."""
    static = {
        f"{FOLDER}/{path.name}": path.read_text(encoding="utf-8")
        for path in sorted(STATIC.iterdir())
        if path.suffix in (".html", ".css", ".js")
    }
    text = json.dumps(page_data(groups), separators=(",", ":"), allow_nan=False)
    return static | {f"{FOLDER}/data.js": f"const GAMMABENCH = {text};\n"}


def page_data(groups: Sequence[Group]) -> dict[str, Any]:
    """What the page shows, JSON-able; numbers to six digits, null where there is none."""
    settings = list(by_setting(groups))
    arms = arms_of(groups)
    return {
        "settings": [_setting(setting, groups) for setting in settings],
        "domains": sorted({plain(group.domain, 20) for group in groups}),
        "arms": [plain(arm, 30) for arm in arms],
        "modelColumns": _model_columns(),
        "cellColumns": [_column(metric) for metric in _OF_CELL],
        "models": [_model(group, settings) for group in groups],
        "cells": [
            _cell(index, group, arms, place)
            for index, group in enumerate(groups)
            for place in group.cells
        ],
    }


def _setting(setting: Setting, groups: Sequence[Group]) -> dict[str, Any]:
    spec = next(group.spec for group in groups if group.setting == setting)
    sizes = ", ".join(f"{key} = {spec.protocol[key]:,}" for key in ("n", "k", "N"))
    if isinstance(steps := spec.protocol.get("steps"), int):
        sizes += f", {count(steps, 'step')}"
    if spec.limit is not None:
        sizes += f", LIMITED to {count(spec.limit, 'token')}"
    return {"key": setting.key[:8], "name": f"{plain(setting.name, 40)}: {sizes}"}


def _column(
    metric: Metric | RevivalMetric, title: str | None = None, meaning: str | None = None
) -> dict[str, Any]:
    show = metric.show if isinstance(metric, Metric) else integer
    return {
        "title": title or metric.title,
        "meaning": meaning or metric.meaning,
        # The name of a function in `page.js`, which writes numbers as the boards do.
        "show": show.__name__,
    }


def _model_columns() -> list[dict[str, Any]]:
    """The columns whose numbers `_model` gives, in the same order."""
    found = [_column(metric) for metric in (GAMMA, RANK, PREDICTED)]
    found += [
        _column(metric, f"{metric.title} {arm}") for metric in _BY_ARM for arm in (RAW, CENTERED)
    ]
    return found + [
        _column(metric, f"Saved at {when}", f"features dead {text}, {_SAVED}")
        for metric, when, text in (
            (INIT, "init", "at initialisation"),
            (END, "end", "at the end of training"),
        )
    ]


def _model(group: Group, settings: Sequence[Setting]) -> dict[str, Any]:
    spreads = [group.over_layers(metric.value) for metric in (GAMMA, RANK, PREDICTED)]
    spreads += [
        group.over_layers(metric.value, arm) for metric in _BY_ARM for arm in (RAW, CENTERED)
    ]
    spreads += [group.saved(metric.value) for metric in (INIT, END)]
    return {
        "setting": settings.index(group.setting),
        "key": f"{group.setting.key[:8]}-{group.key[:8]}",
        "label": plain(group.label, 120),
        "domain": plain(group.domain, 20),
        "layers": measured_layers(group),
        "failed": len(group.failed),
        "missing": len(group.missing),
        "page": f"../models/{url_part(model_page(group.model))}",
        "values": [_mean(spread) for spread in spreads],
    }


def _cell(index: int, group: Group, arms: Sequence[str], place: tuple[int, str, int]) -> list[Any]:
    """[model, layer, arm, seed, state, link to the record, numbers, reason]."""
    layer, arm, seed = place
    record = group.cells[place]
    head = [index, layer, arms.index(arm), seed]
    if record is None:
        return [*head, "missing", None, None, None]
    link = f"../../records/{url_part(record.spec.model)}/{url_part(record.hash)}.json"
    if record.failure is not None:
        return [*head, "failed", link, None, plain(str(record.failure))]
    return [*head, "measured", link, _numbers(record), None]


def _numbers(record: Record) -> list[float | None]:
    return [_short(_value(metric, record)) for metric in _OF_CELL]


def _value(metric: Metric | RevivalMetric, record: Record) -> float | None:
    if isinstance(metric, Metric):
        return metric.value(record)
    revival = metric.of(record)
    return None if revival is None else revival.median_steps


def _mean(spread: Spread | None) -> float | None:
    return None if spread is None else _short(spread.mean)


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
