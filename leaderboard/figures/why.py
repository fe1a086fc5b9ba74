"""The figure that tells the story alone: who is born dead, of what, and what centering leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from leaderboard.columns.activations import GAMMA
from leaderboard.columns.death import DUE_TO_MEAN, DUE_TO_NEITHER, DUE_TO_SPECTRUM, END, INIT_RAW
from leaderboard.figures.colours import BLUE, MEAN, NEITHER, RED, SPECTRUM
from leaderboard.figures.titles import FEWEST_FOR_SHARE
from leaderboard.groups import CENTERED, RAW, Group
from leaderboard.text import number, percent, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Models that the figure has room for: those with most features born dead.
MOST_BARS = 16

_PARTS = {"mean": DUE_TO_MEAN, "spectrum": DUE_TO_SPECTRUM, "neither": DUE_TO_NEITHER}
_COLOURS = {"mean": MEAN, "spectrum": SPECTRUM, "neither": NEITHER}


def why_data(groups: Sequence[Group]) -> dict[str, Any] | None:
    """A row per model, the most dead first; None where no record knows the causes."""
    rows: list[dict[str, Any]] = []
    for group in groups:
        parts = {name: part.of_model(group) for name, part in _PARTS.items()}
        born = INIT_RAW.of_model(group)
        if born is None or None in parts.values():
            continue
        gamma = GAMMA.of_model(group)
        rows.append(
            {
                "model": plain(group.label, 32),
                "data": group.data,
                "gamma": None if gamma is None else number(gamma),
                "born": born,
                "features": _features(group),
                **parts,
                "raw": END.of_model(group, RAW),
                "centered": END.of_model(group, CENTERED),
            }
        )
    rows.sort(key=lambda row: (-row["born"], row["model"]))
    return {"rows": rows[:MOST_BARS], "models": len(rows)} if rows else None


def why_title(data: dict[str, Any]) -> str:
    """What the figure finds: how much of the death at birth the mean accounts for."""
    born = sum(row["born"] for row in data["rows"])
    if not born:
        return "No features are born dead"
    mean = sum(row["mean"] for row in data["rows"]) / born
    features = sum(row["features"] for row in data["rows"])
    if features < FEWEST_FOR_SHARE:
        return f"Of all features, {features:,} are born dead"
    return f"Of the features born dead, {percent(mean)} % are dead because of the mean"


def _features(group: Group) -> int:
    """Born dead in the raw arm, of all layers and seeds; a layer's cells all know the same."""
    found = {
        (record.spec.layer, record.spec.seed): counted[0]
        for record in group.records
        if (counted := INIT_RAW.counted(record)) is not None
    }
    return sum(found.values())


def draw_why(figure: Figure, data: dict[str, Any]) -> None:
    """Left the bars, in three parts; right who is dead at the end, raw and centered."""
    rows = data["rows"]
    places = range(len(rows))
    trained = any(row["raw"] is not None or row["centered"] is not None for row in rows)
    figure.set_size_inches(9 if trained else 6.5, 1.9 + 0.26 * len(rows))
    panels = figure.subplots(1, 2 if trained else 1, sharey=True, squeeze=False)[0]
    left = [0.0] * len(rows)
    for name in _PARTS:
        wide = [100 * max(0.0, row[name]) for row in rows]
        panels[0].barh(places, wide, left=left, color=_COLOURS[name], label=name, height=0.7)
        left = [a + b for a, b in zip(left, wide, strict=True)]
    panels[0].set_title("born dead, % of n, because of")
    if trained:
        # The first is larger, and seen where the second covers it.
        for arm, colour, marker, size in ((RAW, RED, "o", 46), (CENTERED, BLUE, "D", 16)):
            points = [(100 * row[arm], at) for at, row in enumerate(rows) if row[arm] is not None]
            panels[1].scatter(
                [x for x, _ in points], [y for _, y in points], color=colour, marker=marker, s=size,
                label=arm, zorder=3, clip_on=False,
            )  # fmt: skip
        panels[1].set_title("dead at the end of training, % of n")
    for axes in panels:
        axes.set_xlim(0, 100)
        axes.grid(visible=False, axis="y")
        # Below the axes, where no data can be.
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3)
    mixed = len({row["data"] for row in rows}) > 1  # else the caption says it
    labels = [
        row["model"]
        + (f", {row['data']} data" if mixed else "")
        + (f"  (gamma {row['gamma']})" if row["gamma"] else "")
        for row in rows
    ]
    panels[0].set_yticks(places, labels)
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
