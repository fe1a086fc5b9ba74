"""The static page: one folder that any browser opens, without a server or a request elsewhere.

The page's own files are in `static/`; the numbers go beside them as `data.js`, a script rather than
JSON because a browser does not let a local page read a local file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.death.theory import predicted_dead
from bench.records.published_saes import PublishedRecord
from bench.records.schema import Record, TrainingCheckpoint
from bench.sae.families import is_dense
from leaderboard.columns.death import END, INIT
from leaderboard.columns.kinds import Column, Table
from leaderboard.columns.tables import ArmColumn, arm_columns
from leaderboard.findings import (
    LITTLE,
    MOST_TOLD,
    headline,
    paragraph,
    share_born_dead,
    worst_first,
)
from leaderboard.groups import (
    CENTERED,
    RAW,
    CellKey,
    Group,
    Setting,
    arms_of,
    by_setting,
    sizes_as_run,
)
from leaderboard.page_names import model_page
from leaderboard.published_saes import published_data
from leaderboard.settled import JUDGED_BY, has_settled, settled_of
from leaderboard.text import count, percent, plain, url_part
from zoo.cards import DATA_KINDS

PAGE_FOLDER = "page"
DATA_SCRIPT = f"{PAGE_FOLDER}/data.js"
STATIC = Path(__file__).parent / "static"


def page_files(
    groups: Sequence[Group], published: Sequence[PublishedRecord] = ()
) -> dict[str, str]:
    """The page's files: path below the boards' folder -> content."""
    static = {
        f"{PAGE_FOLDER}/{path.name}": path.read_text(encoding="utf-8")
        for path in sorted(STATIC.iterdir())
        if path.suffix in (".html", ".css", ".js")
    }
    data = page_data(groups)
    if published:
        data["publishedSaes"] = published_data(published)
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return static | {DATA_SCRIPT: f"const GAMMABENCH = {text};\n"}


def page_data(groups: Sequence[Group]) -> dict[str, Any]:
    """What the page shows, JSON-able; numbers to six digits, null where there is none."""
    # The one of most models is what the page opens with.
    sections = by_setting(groups)
    settings = sorted(sections, key=lambda setting: -len(sections[setting]))
    arms = arms_of(groups)
    usual = [arm for arm in (RAW, CENTERED) if arm in arms] or arms
    of_model = arm_columns(Table.WEB_MODELS, groups)
    of_cell = arm_columns(Table.WEB_CELLS, groups)
    told = {
        id(group): {"rank": rank, "finding": headline(group, markdown=False)}
        | {"details": paragraph(group, markdown=False)}
        for members in sections.values()
        for rank, group in enumerate(worst_first(members))
    }
    return {
        "about": _about(groups),
        "settings": [_setting(setting, sections[setting]) for setting in settings],
        "domains": sorted({plain(group.domain, 20) for group in groups}),
        "arms": [plain(arm, 30) for arm in arms],
        "modelColumns": [_column(*each, usual) for each in of_model],
        "cellColumns": [_column(*each, usual) for each in of_cell],
        "models": [
            _model(group, settings, arms, of_model) | told.get(id(group), {}) for group in groups
        ],
        "cells": [
            _cell(index, group, arms, place, of_cell)
            for index, group in enumerate(groups)
            for place in group.cells
        ],
    }


def _setting(setting: Setting, members: Sequence[Group]) -> dict[str, Any]:
    spec = members[0].spec
    found = sizes_as_run(spec)
    sizes = ", ".join(f"{key} = {found[key]:,}" for key in ("n", "k", "N"))
    if "steps" in found:
        sizes += f", {count(found['steps'], 'step')}"
    if spec.limit is not None:
        sizes += f", LIMITED to {count(spec.limit, 'token')}"
    return {
        "key": setting.key[:8],
        "name": f"{plain(setting.name, 80)}: {sizes}",
        "expected": _expected(members[0]),
    }


def _about(groups: Sequence[Group]) -> dict[str, Any]:
    """The version that measured, the day of the newest record, and what the page's words need."""
    records = [record for group in groups for record in group.records]
    versions = {r.provenance.packages.get("gammabench") for r in records} - {None}
    return {
        "versions": sorted(plain(str(version), 20) for version in versions),
        "newest": max((plain(r.provenance.started, 40)[:10] for r in records), default=None),
        "mostTold": MOST_TOLD,
        "little": f"{percent(LITTLE)} %",
        "dataKinds": list(DATA_KINDS),
        "settledBy": JUDGED_BY,
    }


def _expected(group: Group) -> list[list[float]]:
    """The closed form of death at initialisation: gamma and share, without a fit."""
    protocol = group.spec.protocol
    if is_dense(protocol.get("family")):
        return []
    tokens = sizes_as_run(group.spec)["N"]
    gammas = [10 ** (power / 10) for power in range(-10, 31)]
    return [
        [float(f"{g:.4g}"), float(f"{predicted_dead(g, tokens, protocol['k'], protocol['n']):.4g}")]
        for g in gammas
    ]


def _column(column: Column, arm: str | None, usual: Sequence[str]) -> dict[str, Any]:
    """`usual`: the arms whose columns are shown where no arm is chosen."""
    return {
        "name": column.title,
        "title": column.title if arm is None else f"{column.title} {plain(arm, 30)}",
        "meaning": column.meaning,
        **({} if arm is None else {"arm": plain(arm, 30), "usual": arm in usual}),
        **({"settles": True} if column is END else {}),
        # The name of a function in `page.js`, which writes numbers as the boards do.
        "show": column.show.__name__,
    }


def _model(
    group: Group, settings: Sequence[Setting], arms: Sequence[str], columns: Sequence[ArmColumn]
) -> dict[str, Any]:
    """`settled`: by arm, in how many cells death had settled, of how many that can be judged."""
    numbers = {layer: group.published_layer(layer) for layer in group.layers}
    published = {str(layer): number for layer, number in numbers.items() if number is not None}
    return {
        "setting": settings.index(group.setting),
        "key": f"{group.setting.key[:8]}-{group.key[:8]}",
        "label": plain(group.label, 120),
        "name": plain(group.model, 120),
        "born": _short(share_born_dead(group)),
        "settled": {
            str(arms.index(arm)): list(found)
            for arm in group.arms
            if (found := settled_of(group.records_of(arm)))[1]
        },
        "domain": plain(group.domain, 20),
        "data": group.data,
        "layers": group.coverage,
        "failed": len(group.failed),
        "missing": len(group.missing),
        "page": f"../models/{url_part(model_page(group.model))}",
        "values": [_short(column.of_model(group, arm)) for column, arm in columns],
        "profile": [
            [layer, _short(share)] for layer, share in group.by_layer(INIT.value, RAW).items()
        ],
        **({"published": published} if published else {}),
    }


def _cell(
    index: int,
    group: Group,
    arms: Sequence[str],
    place: CellKey,
    columns: Sequence[ArmColumn],
) -> list[Any]:
    """[model, layer, arm, seed, state, link to the record, numbers, reason, curves, settled]."""
    layer, arm, seed = place
    record = group.cells[place]
    head = [index, layer, arms.index(arm), seed]
    if record is None:
        return [*head, "missing", None, None, None, None, None]
    link = f"../../records/{url_part(record.spec.model)}/{url_part(record.hash)}.json"
    if record.failure is not None:
        return [*head, "failed", link, None, plain(str(record.failure)), None, None]
    numbers = [
        _short(column.value(record)) if only in (None, arm) else None for column, only in columns
    ]
    return [*head, "measured", link, numbers, None, _curves(record), has_settled(record)]


def _curves(record: Record) -> list[list[float | None]] | None:
    """At each census of a trained cell: [step, dead by ReLU, by TopK, durable, bias progress].

    Shares of the dictionary; `durable` of the features born dead, None where none was.
    """
    training = record.result.training if record.result else None
    if training is None or not training.checkpoints:
        return None
    n, born = record.spec.protocol["n"], training.revival.born if training.revival else 0

    def durable(point: TrainingCheckpoint) -> float | None:
        fates = [each for each in (point.fates_relu, point.fates_topk) if each is not None]
        return sum(each.durable for each in fates) / born if born and fates else None

    return [
        [
            point.step,
            _curve_number(point.dead_relu / n),
            _curve_number(point.dead_topk / n),
            _curve_number(durable(point)),
            _curve_number(point.bias_progress),
        ]
        for point in training.checkpoints
    ]


def _curve_number(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
