"""What the records say, in sentences: whose features are born dead, why, and what it takes.

Numbers are means over a model's layers of the means over seeds, as in its row of the boards. A
cause is named only where the interval of its share excludes none. Of a model there is a headline,
for where many are listed, and a paragraph, for where it is looked at.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from bench.intervals import Estimate
from leaderboard.columns.death import DUE_TO_MEAN, DUE_TO_SPECTRUM, END, INIT, INIT_RAW
from leaderboard.columns.kinds import Metric
from leaderboard.columns.revival import BORN_DEAD
from leaderboard.groups import CENTERED, RAW, Group, idle_arms
from leaderboard.metric_intervals import mean_interval, share_interval
from leaderboard.settled import NOT_SETTLED, settled_words
from leaderboard.text import count, escape, percent, plain
from zoo.cards import DATA_KINDS

# Below this share of the features death is nothing to write of.
LITTLE = 0.01

# Models that have a sentence of their own.
MOST_TOLD = 5

_CAUSES = {"the mean": DUE_TO_MEAN, "the spectrum": DUE_TO_SPECTRUM}


class Tell(Protocol):
    """How a model in which many are born dead is told of."""

    def __call__(self, group: Group, *, markdown: bool = True) -> str: ...


def headline(group: Group, *, markdown: bool = True) -> str:
    """A model's finding in one sentence: born dead, the larger cause, centered, and the end."""
    write = escape if markdown else plain
    text = _opening(group, markdown) + _larger_cause(group)
    centered = INIT.of_model(group, CENTERED)
    if centered is not None:
        text += f"; centered {percent(centered)} %"
    ends = _ends(group)
    if ends:
        steps = count(_steps_taken(group), "step")
        text += f"; dead after {steps}: {_ends_words(group, ends, write)}"
        if _none_is_enough(group, ends):
            text += f"; nothing tried leaves fewer than {percent(LITTLE)} % dead"
    return text + "."


def paragraph(group: Group, *, markdown: bool = True) -> str:
    """A model's finding with both causes, what became of its dead features, and what is left."""
    write = escape if markdown else plain
    return " ".join([f"{_opening(group, markdown)}{_causes(group)}.", *_cured(group, write)])


def sentences(
    groups: Sequence[Group], *, markdown: bool = True, tell: Tell = paragraph
) -> list[str]:
    """Of the groups of one setting: one for each model in which many are born dead, in the order
    of `worst_first`; then one for all in which few are. Each says whether the data is real or made.

    markdown: models' names are bold and every name is escaped; else plain text.
    """
    many = worst_first(groups)
    found = [tell(group, markdown=markdown) for group in many[:MOST_TOLD]]
    if rest := many[MOST_TOLD:]:
        others = [
            f"{_label(each, markdown)} ({percent(share_born_dead(each) or 0.0)} %)" for each in rest
        ]
        found.append(
            f"{count(len(rest), 'further model')} with features born dead: {_listed(others)}."
        )
    few = [
        group for group in groups if (born := share_born_dead(group)) is not None and born < LITTLE
    ]
    for data in DATA_KINDS:
        if names := [_label(group, markdown) for group in few if group.data == data]:
            found.append(
                f"In {_listed(names)}, on {data} data, fewer than {percent(LITTLE)} % of the "
                "features are born dead."
            )
    return found


def plain_sentences(groups: Sequence[Group], width: int, tell: Tell = headline) -> list[str]:
    """The same as lines of plain text."""
    lines: list[str] = []
    for text in sentences(groups, markdown=False, tell=tell):
        lines += textwrap.wrap(text, width, subsequent_indent="  ")
    return lines


def worst_first(groups: Sequence[Group]) -> list[Group]:
    """Those in which many are born dead, the worst first and made activations last."""
    many = [(group, born) for group in groups if (born := share_born_dead(group) or 0.0) >= LITTLE]
    many.sort(key=lambda pair: (pair[0].domain == "synthetic", -pair[1], pair[0].label))
    return [group for group, _ in many]


def share_born_dead(group: Group) -> float | None:
    """Share born dead in the raw arm, whether it was run or not."""
    counted = INIT.of_model(group, RAW)
    return INIT_RAW.of_model(group) if counted is None else counted


# ------------------------------------------------------------------------------------- internals


def _label(group: Group, markdown: bool) -> str:
    return f"**{escape(group.label)}**" if markdown else plain(group.label)


def _opening(group: Group, markdown: bool) -> str:
    domain = escape(group.domain) if markdown else plain(group.domain)
    return (
        f"{_label(group, markdown)}, {domain}, {group.data} data: "
        f"{percent(share_born_dead(group) or 0.0)} % of the features are born dead"
    )


def _causes(group: Group) -> str:
    """What the death at birth is due to, as far as intervals carry it."""
    points = [f"{percent(value)} points because of {name}" for name, value in _sure_causes(group)]
    return f": {', '.join(points)}" if points else ""


def _larger_cause(group: Group) -> str:
    """The one that accounts for most."""
    causes = _sure_causes(group)
    if not causes:
        return ""
    name, value = max(causes, key=lambda each: each[1])
    return f", {percent(value)} points because of {name}"


def _sure_causes(group: Group) -> list[tuple[str, float]]:
    """Those whose share has an interval that excludes none, with the share."""
    known = ((name, _estimate(each, group)) for name, each in _CAUSES.items())
    return [
        (name, each.value)
        for name, each in known
        if each is not None and each.value is not None and _is_sure(each)
    ]


def _is_sure(estimate: Estimate) -> bool:
    return estimate.low is not None and estimate.low > 0


def _estimate(metric: Metric, group: Group) -> Estimate | None:
    """Of the model: the mean of its layers' ends. A layer's cells all know the same."""
    if metric.interval is None:
        return None
    seeds = (
        {cell.spec.seed: cell for cell in group.at(layer) if cell is not None}
        for layer in group.layers
    )
    return mean_interval(metric.interval(list(cells.values())) for cells in seeds)


def _cured(group: Group, write: Callable[[str], str]) -> list[str]:
    """What centering and the other arms leave, at birth and at the end."""
    found = []
    centered = INIT.of_model(group, CENTERED)
    if centered is not None:
        found.append(f"Centered: {percent(centered)} %.")
    ends = _ends(group)
    if not ends:
        return found
    text = f"Dead after {count(_steps_taken(group), 'step')}: {_ends_words(group, ends, write)}"
    durable = group.over_layers(BORN_DEAD.durable.value, RAW)
    if durable is not None:
        text += f"; raw, {percent(durable.mean)} % of those born dead came alive for good"
    found.append(text + ".")
    if _none_is_enough(group, ends):
        tried = [write(arm) for arm in ends]
        none = " nor ".join(["Neither " + tried[0], tried[1]])
        if len(tried) > 2:
            none = f"None of {_listed(tried) if len(tried) < 4 else f'{len(tried)} arms'}"
        found.append(f"{none} leaves fewer than {percent(LITTLE)} % dead.")
    return found


def _ends(group: Group) -> dict[str, float]:
    """What is dead at the end, of each arm that acted; none where raw was not trained."""
    idle = idle_arms(group)
    acted = [arm for arm in group.arms if arm not in idle]
    ends = {arm: end for arm in acted if (end := END.of_model(group, arm)) is not None}
    return ends if RAW in ends and _steps_taken(group) else {}


def _ends_words(group: Group, ends: Mapping[str, float], write: Callable[[str], str]) -> str:
    """`91.2 % raw (not settled) and 51.4 % centered`: of raw, centered and the best arm.

    Where all of them had not settled, that is said once.
    """
    shown = [arm for arm in dict.fromkeys((RAW, CENTERED, _best(ends))) if arm in ends]
    settled = {arm: settled_words(group.records_of(arm)) for arm in shown}
    together = len(shown) > 1 and set(settled.values()) == {NOT_SETTLED}
    words = [
        f"{percent(ends[arm])} % {write(arm)}"
        + (f" ({settled[arm]})" if settled[arm] and not together else "")
        for arm in shown
    ]
    none = "neither" if len(shown) == 2 else "none"
    return _listed(words) + (f" ({none} settled)" if together else "")


def _best(ends: Mapping[str, float]) -> str:
    return min(ends, key=lambda arm: (ends[arm], arm))


def _none_is_enough(group: Group, ends: Mapping[str, float]) -> bool:
    """Whether several arms were tried and surely all of them leave many dead."""
    return len(ends) > 1 and _surely_many_are_dead(group, _best(ends))


def _steps_taken(group: Group) -> int:
    """Of the raw arm, as records say: a limited run takes fewer than its protocol has, and arms of
    longer training more."""
    raw = (each for each in group.records if each.spec.arm == RAW)
    trained = [each.result.training for each in raw if each.result]
    return max((each.steps for each in trained if each), default=0)


def _surely_many_are_dead(group: Group, arm: str) -> bool:
    """Whether the interval of those dead at the end lies above what is little."""
    layers = [[cell for cell in group.at(layer, arm) if cell] for layer in group.layers]
    dead = mean_interval(share_interval(END.counted, cells) for cells in layers)
    return dead is not None and dead.low is not None and dead.low > LITTLE


def _listed(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else list(parts))
