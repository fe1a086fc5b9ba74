"""A markdown page in the making: its blocks, headings, links and file names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from bench.sae.recipe import Recipe
from leaderboard.columns.kinds import Column
from leaderboard.groups import (
    Group,
    Setting,
    arms_of,
    data_words,
    differing,
    idle_arms,
    sizes_as_run,
)
from leaderboard.page_names import model_page
from leaderboard.text import NOTHING, Notes, count, escape, link


class Page:
    """Blocks of markdown, with the columns' meanings and the footnotes at the end.

    legend: how all columns are to be read, where it is not as on the other pages.
    """

    def __init__(self, title: str, legend: str | None = None) -> None:
        self.blocks = [f"# {title}"]
        self.notes = Notes()
        self._columns: dict[str, str] = {}
        self._legend = _LEGEND if legend is None else legend

    def add(self, *blocks: str) -> None:
        """Appends paragraphs, headings or tables."""
        self.blocks.extend(block for block in blocks if block)

    def head(self, column: Column, arm: str | None = None) -> str:
        """The header of a column, whose meaning will be explained on this page."""
        return self.term(column.title, column.meaning, arm)

    def term(self, title: str, meaning: str, arm: str | None = None) -> str:
        """A header with its meaning."""
        self._columns[title] = meaning
        return title if arm is None else f"{title} {escape(arm)}"

    def render(self) -> str:
        """The page, without a last line break."""
        blocks = list(self.blocks)
        if self._columns:
            lines = [f"- **{title}**: {text}." for title, text in self._columns.items()]
            blocks += ["## Columns", self._legend, "\n".join(lines)]
        if notes := self.notes.render():
            blocks.append(notes)
        return "\n\n".join(blocks)


_LEGEND = (
    "Shares of features are percentages of the dictionary size n, by arm where the header names "
    "one. In parentheses stands the range: over the layers in a model's row, over the seeds in a "
    "layer's row. After \N{PLUS-MINUS SIGN} stands the farther end of a 95 % interval: binomial "
    "(Wilson) over the features of all seeds; for differences Newcombe's over features, or with "
    "several seeds a paired bootstrap over them (of few seeds too narrow); for a model the mean of "
    "its layers' ends, which holds however layers depend on each other. "
    f"{NOTHING} means that there is no such number, "
    "*missing* that the cell was not run though others like it were, *failed* that it was run and "
    "has no result."
)


# -------------------------------------------------------------------------------------- settings


def setting_title(setting: Setting, settings: Iterable[Setting]) -> str:
    """The heading of a setting's section; the settings of one page have different ones."""
    title = f"Protocol {escape(setting.name)}"
    shown = [(each.name, each.limited) for each in settings]
    if shown.count((setting.name, setting.limited)) > 1:
        title += f" ({setting.key[:8]})"
    return title + (", limited" if setting.limited else "")


def setting_line(group: Group) -> str:
    """The sizes of a setting in one sentence, and a warning where the run was limited."""
    protocol, sizes = group.spec.protocol, sizes_as_run(group.spec)
    parts = [f"{key} = {shown_value(sizes[key])}" for key in ("n", "k", "N")]
    batch = protocol.get("batch")
    if "steps" in sizes and isinstance(batch, int):
        parts.append(f"{count(sizes['steps'], 'training step')} of {count(batch, 'token')}")
    parts.append(f"metric version {group.spec.metric_version}")
    data = protocol.get("seeds_vary") == "init+data"
    varied = "the initialisation and the data" if data else "the initialisation"
    line = f"{', '.join(parts)}. Seeds vary {varied}."
    if group.spec.limit is not None:
        line += f" **Limited to {count(group.spec.limit, 'token')}: a trial run, not a result.**"
    return line


def setting_details(group: Group) -> str:
    """Every other key of the protocol."""
    rest = {k: v for k, v in group.spec.protocol.items() if k not in ("n", "k", "N")}
    return ", ".join(f"{escape(key)} = {shown_value(rest[key])}" for key in sorted(rest))


def setting_differences(first: dict[Setting, Group]) -> dict[Setting, str]:
    """For each of several settings, the keys in which they differ, with its values."""
    contents = {
        setting: group.spec.protocol
        | {"limit": group.spec.limit, "metric version": group.spec.metric_version}
        for setting, group in first.items()
    }
    keys = differing(list(contents.values()))
    return {
        setting: ", ".join(
            f"{escape(key)} = {shown_value(content.get(key, _default(key)))}" for key in keys
        )
        for setting, content in contents.items()
    }


def _default(key: str) -> Any:
    """What a training does of which a protocol does not name the key; None of another key."""
    field = Recipe.model_fields.get(key)
    return None if field is None else field.default


def shown_value(value: Any) -> str:
    """A value of a protocol, as pages write it."""
    if value is None:
        return "none"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return escape(str(value))


def counts(groups: Sequence[Group]) -> str:
    """How many models, layers, arms and seeds, and what became of the cells."""
    cells = sum(len(group.cells) for group in groups)
    failed = sum(len(group.failed) for group in groups)
    missing = sum(len(group.missing) for group in groups)
    layers = sum(len(group.layers) for group in groups)
    seeds = {seed for group in groups for seed in group.seeds}
    arms = ", ".join(escape(arm) for arm in arms_of(groups))
    idle = {arm: None for group in groups for arm in idle_arms(group)}
    note = ""
    if idle:
        after = f"{groups[0].spec.protocol['dead_after']:,}"
        note = (
            f" A loss on dead features begins after {after} tokens, more than these trainings had: "
            f"{' and '.join(map(escape, idle))} did not act."
        )
    return (
        f"{count(len(groups), 'model')} on {data_words(groups)}, {count(layers, 'layer')}, "
        f"arms {arms}, "
        f"{count(len(seeds), 'seed')}: {count(cells, 'cell')}, of which "
        f"{cells - failed - missing:,} measured, {failed:,} failed, {missing:,} missing.{note}"
    )


def model_link(group: Group, folder: str = "models/") -> str:
    """The model's name as a link to its page."""
    return link(escape(group.label), f"{folder}{model_page(group.model)}")
