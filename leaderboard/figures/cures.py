"""The figures of remedies: which is enough where; who is dead at the end, and at what price."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from leaderboard.figures.axes import tick, write_values
from leaderboard.figures.colours import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, YELLOW

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure


# Of the remedies, in the order of their names; where there are more, colours are used again.
_REMEDIES = (BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW, RED)


# Where classes of gamma and of the effective rank, over the width, end. The few layers that there
# are fill classes, and would not fill a finer grid.
_GAMMAS, _RANKS = (2.0, 8.0), (0.2, 0.5)

# Layers of one remedy in one class that are named; of more their number.
_NAMED = 3


def draw_when(figure: Figure, data: dict[str, Any]) -> None:
    """A heat map of gamma by effective rank, in the colour of the remedy; a class whose layers take
    several is divided among them."""
    points = data["points"]
    remedies = sorted({point["remedy"] for point in points if point["remedy"] is not None})
    colours: dict[str | None, str] = {
        each: _REMEDIES[i % len(_REMEDIES)] for i, each in enumerate(remedies)
    }
    figure.set_size_inches(9, 4.2)
    axes = figure.subplots()
    for column in range(len(_GAMMAS) + 1):
        for row in range(len(_RANKS) + 1):
            found: dict[str | None, list[str]] = {}
            for point in points:
                if (_class(point["gamma"], _GAMMAS), _class(point["rank"], _RANKS)) == (
                    column,
                    row,
                ):
                    found.setdefault(point["remedy"], []).append(point["label"])
            _tiles(axes, column, row, found, colours)
    axes.set_xlim(0, len(_GAMMAS) + 1)
    axes.set_ylim(0, len(_RANKS) + 1)
    axes.grid(visible=False)
    axes.set_xticks(
        [i + 0.5 for i in range(len(_GAMMAS) + 1)], _classes([f"{each:g}" for each in _GAMMAS])
    )
    axes.set_yticks(
        [i + 0.5 for i in range(len(_RANKS) + 1)],
        _classes([f"{100 * each:g} %" for each in _RANKS]),
    )
    axes.tick_params(length=0)
    axes.set_xlabel("gamma")
    axes.set_ylabel("effective rank over the width")


def _class(value: float, ends: Sequence[float]) -> int:
    return sum(value >= end for end in ends)


def _classes(ends: Sequence[str]) -> list[str]:
    between = [f"{low} to {high}" for low, high in pairwise(ends)]
    return [f"under {ends[0]}", *between, f"{ends[-1]} or more"]


def _tiles(
    axes: Axes,
    column: int,
    row: int,
    found: dict[str | None, list[str]],
    colours: dict[str | None, str],
) -> None:
    """A class's tile for each remedy, as high as its share of the layers."""
    from matplotlib.patches import Rectangle

    if not found:
        empty = Rectangle((column, row), 1, 1, fill=False, hatch="///", edgecolor=GREY, alpha=0.35)
        axes.add_patch(empty)
        return
    layers, low = sum(map(len, found.values())), float(row)
    for remedy, labels in found.items():
        height, colour = len(labels) / layers, colours.get(remedy, BLACK)
        axes.add_patch(
            Rectangle((column, low), 1, height, facecolor=colour, edgecolor="white", linewidth=2)
        )
        named = labels if len(labels) <= _NAMED else [f"{len(labels)} layers"]
        axes.text(
            column + 0.5,
            low + height / 2,
            "\n".join([remedy or "none is enough", *named]),
            color=BLACK if colour in (ORANGE, SKY, YELLOW, PURPLE) else "white",
            size=7.5,
            ha="center",
            va="center",
        )
        low += height


def draw_cures(figure: Figure, data: dict[str, Any]) -> None:
    """Two grids, remedy by model, and the frontier of death against error."""
    from matplotlib.colors import LogNorm, Normalize

    arms, models = data["arms"], data["models"]
    figure.set_size_inches(13, 2.6 + 0.22 * len(arms))
    dead, error, plane = figure.subplots(
        1, 3, width_ratios=[1, 1, 1.3], gridspec_kw={"wspace": 0.05}
    )
    worst = max((value for row in data["fvu"] for value in row), default=1.1)
    percents = [[100 * share for share in row] for row in data["dead"]]
    _grid(dead, percents, models, Normalize(0, 100), _percent, "dead at the end, %")
    scale = LogNorm(1, max(worst, 1.1))
    _grid(error, data["fvu"], models, scale, _ratio, "FVU over the best")
    dead.set_yticks(range(len(arms)), arms)
    error.set_yticks(range(len(arms)), [""] * len(arms))
    _frontier(plane, data["points"])


def _percent(value: float) -> str:
    return f"{value:.1f}" if 0 < value < 9.95 else f"{value:.0f}"


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value < 9.95 else f"{value:.0f}"


def _grid(
    axes: Axes,
    values: Sequence[Sequence[float]],
    models: Sequence[str],
    scale: Normalize,
    show: Callable[[float], str],
    title: str,
) -> None:
    axes.imshow(values, aspect="auto", cmap="cividis", norm=scale, interpolation="none")
    write_values(axes, values, scale, show)
    axes.grid(visible=False)
    axes.set_title(title)
    axes.set_xticks(range(len(models)), models, rotation=40, ha="right", rotation_mode="anchor")
    axes.tick_params(length=0)


def _frontier(axes: Axes, points: Sequence[dict[str, Any]]) -> None:
    """Means over all layers: nearer to the lower left corner is better; larger costs more."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    best = [point for point in points if not any(_beats(other, point) for other in points)]
    for point in sorted(points, key=lambda point: point in best):
        on_frontier = point in best
        axes.scatter(
            100 * point["dead"],
            point["fvu"],
            s=28 * (point["time"] or 1) ** 2,
            color=BLUE if on_frontier else RED if point["arm"] == "raw" else GREY,
            zorder=3,
            clip_on=False,
        )
    shown = sorted(best, key=lambda point: point["fvu"])
    raw = [point for point in points if point["arm"] == "raw" and point not in best]
    for place, point in enumerate([*shown, *raw]):
        axes.annotate(
            point["arm"],
            (100 * point["dead"], point["fvu"]),
            xytext=(12, 12 if place % 2 else -16),
            textcoords="offset points",
            size=8,
            arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.6},
        )
    axes.set_yscale("log")
    highest = max((point["fvu"] for point in points), default=2.0)
    axes.set_ylim(0.93, max(2.0, 1.3 * highest))
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(tick))
    axes.yaxis.set_minor_formatter("")
    widest = max((100 * point["dead"] for point in points), default=0.0)
    axes.set_xlim(-0.04 * max(widest, 1.0), 1.12 * max(widest, 1.0))
    axes.set_xlabel("dead at the end, %; larger dots: longer training")
    axes.set_title("FVU over the best, all layers")


def _beats(one: dict[str, Any], other: dict[str, Any]) -> bool:
    keys = ("dead", "fvu")
    return all(one[key] <= other[key] for key in keys) and any(
        one[key] < other[key] for key in keys
    )
