"""One page per domain: a row per model, then a row per layer."""

from __future__ import annotations

from collections.abc import Sequence

from leaderboard.groups import RAW, Group, arms_of, by_setting
from leaderboard.markdown.layout import Page, counts, model_link, setting_line, setting_title
from leaderboard.markdown.values import (
    group_revival,
    group_value,
    layer_revival,
    layer_value,
    measured_layers,
)
from leaderboard.metrics import (
    BIAS,
    BORN_RAW,
    END,
    FVU,
    GAMMA,
    INIT,
    INIT_RELU,
    INIT_TOPK,
    NEVER,
    OWED_MEAN,
    OWED_REST,
    OWED_SPECTRUM,
    PREDICTED,
    RANK,
    REVIVAL,
)
from leaderboard.text import escape, link, table


def domain(name: str, groups: Sequence[Group]) -> str:
    """The markdown of a domain's page; `groups` are those of the domain."""
    page = Page(f"Domain: {escape(name)}")
    page.add(link("All domains", "README.md"))
    sections = by_setting(groups)
    for setting, members in sections.items():
        page.add(f"## {setting_title(setting, sections)}", setting_line(members[0]))
        page.add(counts(members))
        page.add("### Models at initialisation", _models_at_init(page, members))
        if any(OWED_REST.value(record) is not None for each in members for record in each.records):
            page.add("### What death at initialisation is owed to", _owed(page, members))
        if _trains(members):
            page.add("### Models after training", _models_after(page, members))
        page.add("### Layers at initialisation", _layers_at_init(page, members))
        if _trains(members):
            page.add("### Layers after training", _layers_after(page, members))
    return page.render()


def _trains(groups: Sequence[Group]) -> bool:
    """Whether the protocol, one for all groups, has training steps."""
    return bool(groups[0].spec.protocol.get("steps"))


def _models_at_init(page: Page, groups: Sequence[Group]) -> str:
    arms = arms_of(groups)
    headers = [
        "Model",
        page.term("Layers", "layers with a result, of those that the model has"),
        page.head(GAMMA),
        page.head(RANK),
        page.head(PREDICTED),
        page.head(INIT_RELU, RAW),
        page.head(INIT_TOPK, RAW),
        *(page.head(INIT, arm) for arm in arms),
    ]
    rows = [
        [
            model_link(group),
            measured_layers(group),
            group_value(page, group, GAMMA),
            group_value(page, group, RANK),
            group_value(page, group, PREDICTED),
            group_value(page, group, INIT_RELU, RAW),
            group_value(page, group, INIT_TOPK, RAW),
            *(group_value(page, group, INIT, arm) for arm in arms),
        ]
        for group in groups
    ]
    return table(headers, rows)


def _owed(page: Page, groups: Sequence[Group]) -> str:
    """The raw arm's death at initialisation by cause, whichever arms were run."""
    metrics = (BORN_RAW, OWED_MEAN, OWED_SPECTRUM, OWED_REST)
    headers = ["Model", *(page.head(metric) for metric in metrics)]
    rows = [
        [model_link(group), *(group_value(page, group, metric) for metric in metrics)]
        for group in groups
    ]
    return table(headers, rows)


def _models_after(page: Page, groups: Sequence[Group]) -> str:
    arms = arms_of(groups)
    headers = [
        "Model",
        *(page.head(END, arm) for arm in arms),
        page.head(REVIVAL, RAW),
        page.head(NEVER, RAW),
        page.head(BIAS, RAW),
        *(page.head(FVU, arm) for arm in arms),
    ]
    rows = [
        [
            model_link(group),
            *(group_value(page, group, END, arm) for arm in arms),
            group_revival(page, group, REVIVAL, RAW),
            group_value(page, group, NEVER, RAW),
            group_value(page, group, BIAS, RAW),
            *(group_value(page, group, FVU, arm) for arm in arms),
        ]
        for group in groups
    ]
    return table(headers, rows)


def _layers_at_init(page: Page, groups: Sequence[Group]) -> str:
    arms = arms_of(groups)
    headers = [
        "Model",
        "Layer",
        page.head(GAMMA),
        page.head(RANK),
        page.head(PREDICTED),
        page.head(INIT_RELU, RAW),
        page.head(INIT_TOPK, RAW),
        *(page.head(INIT, arm) for arm in arms),
    ]
    rows = [
        [
            model_link(group),
            str(layer),
            layer_value(page, group, GAMMA, layer, None),
            layer_value(page, group, RANK, layer, None),
            layer_value(page, group, PREDICTED, layer, None),
            layer_value(page, group, INIT_RELU, layer, RAW),
            layer_value(page, group, INIT_TOPK, layer, RAW),
            *(layer_value(page, group, INIT, layer, arm) for arm in arms),
        ]
        for group in groups
        for layer in group.layers
    ]
    return table(headers, rows)


def _layers_after(page: Page, groups: Sequence[Group]) -> str:
    arms = arms_of(groups)
    headers = [
        "Model",
        "Layer",
        *(page.head(END, arm) for arm in arms),
        page.head(REVIVAL, RAW),
        page.head(NEVER, RAW),
        page.head(BIAS, RAW),
        *(page.head(FVU, arm) for arm in arms),
    ]
    rows = [
        [
            model_link(group),
            str(layer),
            *(layer_value(page, group, END, layer, arm) for arm in arms),
            layer_revival(page, group, REVIVAL, layer, RAW),
            layer_value(page, group, NEVER, layer, RAW),
            layer_value(page, group, BIAS, layer, RAW),
            *(layer_value(page, group, FVU, layer, arm) for arm in arms),
        ]
        for group in groups
        for layer in group.layers
    ]
    return table(headers, rows)
