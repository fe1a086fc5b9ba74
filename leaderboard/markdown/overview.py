"""The overview: `README.md` of the boards, with the rankings of every model there is."""

from __future__ import annotations

from collections.abc import Sequence

from leaderboard.figures.pictures import Picture, image
from leaderboard.groups import CENTERED, RAW, Group, Setting, Spread, by_setting
from leaderboard.markdown.correlation import correlation
from leaderboard.markdown.layout import (
    Page,
    counts,
    model_link,
    setting_differences,
    setting_line,
    setting_title,
)
from leaderboard.markdown.values import (
    absence,
    failures,
    group_value,
    measured_layers,
    ranked,
    spread_text,
    worst_layer,
)
from leaderboard.metric_intervals import saved_interval
from leaderboard.metrics import (
    END,
    GAMMA,
    GAUSSIAN,
    INIT,
    INIT_RELU,
    INIT_TOPK,
    PREDICTED,
    RANK,
    Metric,
    Rate,
)
from leaderboard.page_names import domain_page
from leaderboard.text import DOT, count, escape, link, percent, table

_INTRODUCTION = (
    "How far the mean dominates a model's activations (gamma), how many features of a sparse "
    "autoencoder are dead because of it, and what centering saves.\n"
    "Made by `bench report` from the records in [`records/`](../records). To sort and filter, open "
    "[the page](page/index.html) in a browser."
)


def overview(groups: Sequence[Group], pictures: Sequence[Picture] = ()) -> str:
    """The page's markdown. Every group has a row in every ranking of its setting.

    `pictures` are those that were drawn; the models' own are not for this page.
    """
    page = Page("Leaderboards")
    page.add(_INTRODUCTION)
    if not groups:
        page.add("There are no records yet; `bench run` makes them.")
        return page.render()
    page.add(_domains(groups))
    sections = by_setting(groups)
    differences = setting_differences({setting: each[0] for setting, each in sections.items()})
    if len(sections) > 1:
        page.add(
            f"The records come from {count(len(sections), 'protocol')}, which are not compared "
            "with each other."
        )
    for setting, members in sections.items():
        page.add(f"## {setting_title(setting, sections)}", setting_line(members[0]))
        if differences[setting]:
            page.add(f"Unlike the others: {differences[setting]}.")
        page.add(counts(members))
        shown = [each for each in pictures if each.setting == setting and each.subject is None]
        page.add(*(image(each) for each in shown[:1]))
        page.add("### By gamma", _by_gamma(page, members))
        page.add("### By death at initialisation", _by_death(page, members))
        page.add("### By what centering saves", _by_saving(page, members))
        page.add("### Gamma against death", correlation(page, members))
        if shown[1:]:
            page.add("### Figures", *(image(each) for each in shown[1:]))
    page.add("## Failed and missing cells", _incomplete(page, sections))
    return page.render()


def _domains(groups: Sequence[Group]) -> str:
    names = sorted({group.domain for group in groups})
    return "Domains: " + f" {DOT} ".join(link(escape(name), domain_page(name)) for name in names)


def _leading(page: Page, rank: str, group: Group) -> list[str]:
    return [rank, model_link(group), link(escape(group.domain), domain_page(group.domain))]


_LEADING = ("#", "Model", "Domain")


def _by_gamma(page: Page, groups: Sequence[Group]) -> str:
    headers = [
        *_LEADING,
        page.term("Layers", "layers with a result, of those that the model has"),
        page.head(GAMMA),
        page.term("Max layer", "the layer where the ranked number is largest, with the number"),
        page.head(RANK),
    ]
    rows = [
        [
            *_leading(page, rank, group),
            measured_layers(group),
            group_value(page, group, GAMMA),
            worst_layer(group, GAMMA, None),
            group_value(page, group, RANK),
        ]
        for rank, group in ranked(groups, lambda group: _mean(group, GAMMA, None))
    ]
    return table(headers, rows, left=3)


def _by_death(page: Page, groups: Sequence[Group]) -> str:
    headers = [
        *_LEADING,
        page.head(INIT, RAW),
        page.head(INIT_RELU, RAW),
        page.head(INIT_TOPK, RAW),
        page.head(PREDICTED),
        page.head(GAUSSIAN),
        "Max layer",
    ]
    rows = [
        [
            *_leading(page, rank, group),
            *(group_value(page, group, each, RAW) for each in (INIT, INIT_RELU, INIT_TOPK)),
            group_value(page, group, PREDICTED),
            group_value(page, group, GAUSSIAN),
            worst_layer(group, INIT, RAW),
        ]
        for rank, group in ranked(groups, lambda group: _mean(group, INIT, RAW))
    ]
    return table(headers, rows, left=3)


def _by_saving(page: Page, groups: Sequence[Group]) -> str:
    saved = "raw minus centered, in points of percent, paired by layer and seed"
    headers = [
        *_LEADING,
        page.term("Saved at init", f"features dead at initialisation, {saved}"),
        page.head(INIT, RAW),
        page.head(INIT, CENTERED),
        page.term("Saved at end", f"features dead at the end of training, {saved}"),
        page.head(END, RAW),
        page.head(END, CENTERED),
    ]
    rows = [
        [
            *_leading(page, rank, group),
            _saved(page, group, INIT),
            *(group_value(page, group, INIT, arm) for arm in (RAW, CENTERED)),
            _saved(page, group, END),
            *(group_value(page, group, END, arm) for arm in (RAW, CENTERED)),
        ]
        for rank, group in ranked(groups, _mean_saved)
    ]
    return table(headers, rows, left=3)


def _saved(page: Page, group: Group, metric: Rate) -> str:
    spread = group.saved(metric.value)
    if spread is not None:
        pairs = [group.pairs(metric.value, layer) for layer in group.layers]
        return spread_text(spread, percent, saved_interval(pairs, metric.counted))
    cells = [
        cell for layer in group.layers for arm in (RAW, CENTERED) for cell in group.at(layer, arm)
    ]
    return absence(page, cells)


def _mean_saved(group: Group) -> float | None:
    return _mean_of(group.saved(INIT.value))


def _mean(group: Group, metric: Metric, arm: str | None) -> float | None:
    return _mean_of(group.over_layers(metric.value, arm))


def _mean_of(spread: Spread | None) -> float | None:
    return None if spread is None else spread.mean


def _incomplete(page: Page, sections: dict[Setting, list[Group]]) -> str:
    rows = [
        [
            model_link(group),
            setting_title(setting, sections).removeprefix("Protocol "),
            f"{len(group.cells):,}",
            f"{len(group.failed):,}" + failures(page, group.failed),
            f"{len(group.missing):,}",
        ]
        for setting, groups in sections.items()
        for group in groups
        if group.failed or group.missing
    ]
    if not rows:
        return "None."
    headers = ["Model", "Protocol", "Cells", "Failed", "Missing"]
    return table(headers, rows, left=2)
