"""The figure of remedies: who is dead at the end, at what error, and what a step costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from leaderboard.figures.axes import tick
from leaderboard.figures.colours import BLACK, BLUE, GREY, RED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_cures(figure: Figure, data: dict[str, Any]) -> None:
    """Two grids, remedy by model, and the frontier of death against error."""
    from matplotlib.colors import LogNorm, Normalize

    arms, models = data["arms"], data["models"]
    figure.set_size_inches(13, 2.6 + 0.22 * len(arms))
    dead, error, plane = figure.subplots(
        1, 3, width_ratios=[1, 1, 1.3], gridspec_kw={"wspace": 0.05}
    )
    worst = max((value for row in data["fvu"] for value in row if value), default=1.1)
    _grid(dead, data["dead"], models, Normalize(0, 100), 100, "dead at the end, %")
    _grid(error, data["fvu"], models, LogNorm(1, max(worst, 1.1)), 1, "FVU over the best")
    dead.set_yticks(range(len(arms)), arms)
    error.set_yticks(range(len(arms)), [""] * len(arms))
    _frontier(plane, data["points"])


def _grid(
    axes: Axes,
    values: Sequence[Sequence[float | None]],
    models: Sequence[str],
    scale: Any,
    factor: float,
    title: str,
) -> None:
    numbers = [[float("nan") if v is None else factor * v for v in row] for row in values]
    axes.set_facecolor("#d0d0d0")
    axes.imshow(numbers, aspect="auto", cmap="cividis", norm=scale, interpolation="none")
    for row, line in enumerate(numbers):
        for column, value in enumerate(line):
            if value == value:
                colour = BLACK if scale(value) > 0.5 else "white"
                text = f"{value:.2f}" if factor == 1 and value < 9.95 else f"{value:.0f}"
                if factor != 1 and 0 < value < 9.95:
                    text = f"{value:.1f}"
                axes.text(column, row, text, color=colour, size=7, ha="center", va="center")
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
            s=28 * (point["cost"] or 1) ** 2,
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
    axes.set_xlabel("dead at the end, %; larger dots: slower steps")
    axes.set_title("FVU over the best, all layers")


def _beats(one: dict[str, Any], other: dict[str, Any]) -> bool:
    keys = ("dead", "fvu")
    return all(one[key] <= other[key] for key in keys) and any(
        one[key] < other[key] for key in keys
    )
