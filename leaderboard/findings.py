"""What the records say, in sentences: whose features are born dead, why, and what it takes.

Numbers are means over a model's layers of the means over seeds, as in its row of the boards. A
cause is named only where the interval of its share excludes none.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

from bench.intervals import Estimate
from leaderboard.columns.death import DUE_TO_MEAN, DUE_TO_SPECTRUM, END, INIT, INIT_RAW
from leaderboard.columns.kinds import Metric
from leaderboard.columns.revival import BORN_DEAD
from leaderboard.groups import CENTERED, RAW, Group, idle_arms
from leaderboard.metric_intervals import mean_interval, share_interval
from leaderboard.text import count, escape, percent, plain
from zoo.cards import DATA_KINDS

# Below this share of the features death is nothing to write of.
LITTLE = 0.01

# Models that have a sentence of their own.
MOST_TOLD = 5


def sentences(groups: Sequence[Group], *, markdown: bool = True) -> list[str]:
    """Of the groups of one setting: a paragraph for each model in which many are born dead, the
    worst first and made activations last; then one for all in which few are. Each says whether
    the data is real or made.

    markdown: models' names are bold and every name is escaped; else plain text.
    """
    known = [(group, born) for group in groups if (born := _born(group)) is not None]
    many = [(group, born) for group, born in known if born >= LITTLE]
    many.sort(key=lambda pair: (pair[0].domain == "synthetic", -pair[1], pair[0].label))
    found = [_sentence(group, born, markdown) for group, born in many[:MOST_TOLD]]
    if rest := many[MOST_TOLD:]:
        others = [f"{_label(each, markdown)} ({percent(born)} %)" for each, born in rest]
        found.append(
            f"{count(len(rest), 'further model')} with features born dead: {_listed(others)}."
        )
    few = [group for group, born in known if born < LITTLE]
    for data in DATA_KINDS:
        if names := [_label(group, markdown) for group in few if group.data == data]:
            found.append(
                f"In {_listed(names)}, on {data} data, fewer than {percent(LITTLE)} % of the "
                "features are born dead."
            )
    return found


def plain_sentences(groups: Sequence[Group], width: int) -> list[str]:
    """The same as lines of plain text."""
    lines: list[str] = []
    for text in sentences(groups, markdown=False):
        lines += textwrap.wrap(text, width, subsequent_indent="  ")
    return lines


def _label(group: Group, markdown: bool) -> str:
    return f"**{escape(group.label)}**" if markdown else plain(group.label)


def _born(group: Group) -> float | None:
    """Share born dead in the raw arm, whether it was run or not."""
    counted = INIT.of_model(group, RAW)
    return INIT_RAW.of_model(group) if counted is None else counted


def _sentence(group: Group, born: float, markdown: bool) -> str:
    write = escape if markdown else plain
    text = (
        f"{_label(group, markdown)}, {write(group.domain)}, {group.data} data: {percent(born)} % "
        f"of the features are born dead{_cause(group)}."
    )
    return " ".join([text, *_cured(group, write)])


def _cause(group: Group) -> str:
    """What the death at birth is due to, as far as intervals carry it."""
    mean, spectrum = (_estimate(each, group) for each in (DUE_TO_MEAN, DUE_TO_SPECTRUM))
    by_mean, by_spectrum = _is_sure(mean), _is_sure(spectrum)
    points = [
        f"{percent(each.value)} points because of {name}"
        for each, name, sure in (
            (mean, "the mean", by_mean),
            (spectrum, "the spectrum", by_spectrum),
        )
        if sure and each is not None and each.value is not None
    ]
    return f": {', '.join(points)}" if points else ""


def _is_sure(estimate: Estimate | None) -> bool:
    return estimate is not None and estimate.low is not None and estimate.low > 0


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
    idle = idle_arms(group)
    acted = [arm for arm in group.arms if arm not in idle]
    ends = {arm: end for arm in acted if (end := END.of_model(group, arm)) is not None}
    steps = _steps_taken(group)
    if RAW not in ends or not steps:
        return found
    best = min(ends, key=lambda arm: (ends[arm], arm))
    shown = [arm for arm in dict.fromkeys((RAW, CENTERED, best)) if arm in ends]
    dead = _listed([f"{percent(ends[arm])} % {write(arm)}" for arm in shown])
    text = f"Dead after {count(steps, 'step')}: {dead}"
    durable = group.over_layers(BORN_DEAD.durable.value, RAW)
    if durable is not None:
        text += f"; raw, {percent(durable.mean)} % of those born dead came alive for good"
    found.append(text + ".")
    if len(ends) > 1 and _surely_many_are_dead(group, best):
        tried = [write(arm) for arm in ends]
        none = " nor ".join(["Neither " + tried[0], tried[1]])
        if len(tried) > 2:
            none = f"None of {_listed(tried) if len(tried) < 4 else f'{len(tried)} arms'}"
        found.append(f"{none} leaves fewer than {percent(LITTLE)} % dead.")
    return found


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
