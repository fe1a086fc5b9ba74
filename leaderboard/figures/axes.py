"""Panels, the scales and ticks of their axes, and values written into a grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from leaderboard.figures.colours import BLACK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure


def domain_panels(figure: Figure, domains: Sequence[str], label: str) -> dict[str, Axes]:
    """A panel for each domain, at most three side by side, on one scale."""
    columns = min(3, len(domains))
    rows = -(-len(domains) // columns)
    figure.set_size_inches(max(5.0, 1.2 + 2.6 * columns), 1.1 + 2.3 * rows)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    places = grid.ravel()
    for axes, domain in zip(places, domains, strict=False):
        axes.set_title(domain)
    for axes in places[len(domains) :]:
        axes.set_axis_off()
    # The lowest panel of each column, which need not be in the last row.
    for axes in places[max(0, len(domains) - columns) : len(domains)]:
        axes.tick_params(labelbottom=True)
        axes.set_xlabel("training step")
    for row in grid:
        row[0].set_ylabel(label)
    return dict(zip(domains, places, strict=False))


def step_grid(figure: Figure, labels: Sequence[str], domains: Sequence[str]) -> Any:
    """Panels over training steps: a row for each label, a column for each domain."""
    figure.set_size_inches(max(5.0, 1.4 + 1.75 * len(domains)), 1.2 + 2.0 * len(labels))
    # Each has limits of its own, which `share_axes` sets: axes that share some ask all others for
    # them whenever they are measured.
    grid = figure.subplots(len(labels), len(domains), squeeze=False)
    for axes in grid.ravel():
        axes.label_outer()
    for row, label in zip(grid, labels, strict=True):
        row[0].set_ylabel(label)
    for axes, domain in zip(grid[0], domains, strict=True):
        axes.set_title(domain)
    for axes in grid[-1]:
        axes.set_xlabel("training step")
    return grid


def share_axes(axes: Axes, end: float) -> None:
    """Percent over steps from 0 to `end`, stated: limits that panels share must not be those that
    an empty one happens to have."""
    from matplotlib.ticker import FixedLocator, NullLocator

    axes.set_xscale("symlog", linthresh=1)
    axes.set_xlim(0, 1.05 * max(end, 1))
    axes.set_ylim(-3, 103)
    step_ticks(axes)
    # The limits stay: ticks would be found again each time that axes are measured or drawn.
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(FixedLocator(axes.xaxis.get_majorticklocs().tolist()))


def shared_legend(figure: Figure, colours: dict[str, str]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colour, linewidth=2.2) for colour in colours.values()]
    figure.legend(handles, list(colours), loc="outside right center")


def step_ticks(axes: Axes) -> None:
    """Steps as people write them: 100, 20k, 1M; no powers of ten."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes.xaxis.set_major_formatter(FuncFormatter(tick))
    axes.xaxis.set_minor_formatter(NullFormatter())


def gamma_ticks(axis: Axis) -> None:
    """1, 2, 5, 10 on a logarithmic axis: any range of a factor 2.5 holds one."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(tick))


def layer_ticks(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("layer")


def tick(value: float, _: int | None) -> str:
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if abs(value) >= 1e3 else f"{value:g}"


def write_values(
    axes: Axes, grid: Sequence[Sequence[float]], scale: Normalize, show: Callable[[float], str]
) -> None:
    """Each value in its cell, dark on the light half of the colours and light on the dark one."""
    for row, values in enumerate(grid):
        for column, value in enumerate(values):
            if value == value:
                colour = BLACK if scale(value) > 0.5 else "white"
                axes.text(column, row, show(value), color=colour, size=7, ha="center", va="center")
