"""Draws pictures with matplotlib. The same picture gives the same bytes (of one matplotlib).

Every domain has a marker of its own beside its colour. The background is opaque white, so that
a figure reads the same on a light and a dark page.
"""

from __future__ import annotations

import importlib.util
import io
import statistics
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bench.death.theory import predicted_dead, predicted_relu
from leaderboard.figures.axes import (
    domain_panels,
    gamma_ticks,
    layer_ticks,
    share_axes,
    shared_legend,
    step_grid,
    step_ticks,
    write_values,
)
from leaderboard.figures.colours import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    YELLOW,
)
from leaderboard.figures.cures import draw_cures, draw_when
from leaderboard.figures.pictures import Picture
from leaderboard.figures.why import draw_why
from leaderboard.groups import CENTERED, RAW, WHITENED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DOMAIN_STYLES = {
    "language": (BLUE, "o"),
    "vision": (RED, "s"),
    "protein": (GREEN, "^"),
    "genomic": (PURPLE, "D"),
    "synthetic": (BLACK, "X"),
}
_OTHER_DOMAINS = ((SKY, "v"), (ORANGE, "P"), (YELLOW, "*"))
_ARM_COLOURS = {
    RAW: RED,
    f"{RAW}+auxk": ORANGE,
    f"{RAW}+auxk-relu": PURPLE,
    CENTERED: BLUE,
    WHITENED: GREEN,
}
_OTHER_ARMS = (PURPLE, SKY, BLACK, GREY, ORANGE, GREEN)

# A gamma below it is none, on a logarithmic axis.
_LEAST = 1e-9

_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.labelcolor": BLACK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.color": "#e5e5e5",
    "grid.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "savefig.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "gammabench",
    "text.parse_math": False,
    "xtick.color": BLACK,
    "ytick.color": BLACK,
}


def available() -> bool:
    """Whether matplotlib is installed; imports nothing."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(picture: Picture) -> dict[str, bytes]:
    """The picture as files: suffix -> bytes."""
    with _style():
        figure = compose(picture)
        return {suffix: _saved(figure, suffix) for suffix in picture.suffixes}


def compose(picture: Picture) -> Figure:
    """The figure, laid out and ready to be saved."""
    from matplotlib.figure import Figure

    with _style():
        # Finding a layout takes as long as drawing: the models' many figures have a fixed one.
        figure = Figure(layout=None if picture.kind == "profile" else "constrained")
        _DRAWERS[picture.kind](figure, picture.data)
        # About 10 characters of this size to the inch, and 15 of the caption's.
        title = textwrap.fill(picture.title, int(10 * figure.get_figwidth()))
        figure.suptitle(title, fontsize=11, fontweight="bold", color=BLACK)
        # `k = 16` is not broken.
        caption = picture.caption.replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")
        caption = textwrap.fill(caption, int(15 * figure.get_figwidth()))
        figure.supxlabel(caption, fontsize=8, color="#555555")
        if (engine := figure.get_layout_engine()) is not None:
            # Once for all files; with an engine, even "none", each is drawn twice.
            engine.execute(figure)
            figure.set_layout_engine(None)
    return figure


@contextmanager
def _style() -> Iterator[None]:
    from matplotlib import rc_context

    with rc_context(_STYLE), warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


# What would make the bytes depend on when and with what they were made.
_METADATA: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
}


def _saved(figure: Figure, suffix: str) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=suffix, dpi=144, metadata=_METADATA[suffix])
    return buffer.getvalue()


# ----------------------------------------------------------------------------------------- kinds


def _gamma_death(figure: Figure, data: dict[str, Any]) -> None:
    from matplotlib.collections import PathCollection

    figure.set_size_inches(9, 4.2)
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    gammas = [point["gamma"] for point in data["points"] if point["gamma"] > _LEAST]
    low, high = min(gammas, default=1.0) / 1.7, max(gammas, default=1.0) * 1.7
    grid = [low * (high / low) ** (i / 200) for i in range(201)]
    tokens, k, n = data["tokens"], data["k"], data["n"]
    curves: tuple[tuple[Axes, str, list[float], str], ...] = (
        (left, "dead", [predicted_dead(g, tokens, k, n) for g in grid], "by either path"),
        (right, "relu", [predicted_relu(g, tokens) for g in grid], "by ReLU"),
    )
    styles = _domain_styles(data["domains"])
    # Of many points each is smaller, down to a quarter.
    size = max(0.25, min(1.0, (200 / max(len(data["points"]), 1)) ** 0.5))
    for axes, key, predicted, title in curves:
        axes.plot(
            grid, _percent(predicted), color=BLACK, linewidth=1.2, label="closed form", zorder=4
        )
        for domain in data["domains"]:
            colour, marker = styles[domain]
            for raw in (False, True):
                points = [
                    (point["gamma"], 100 * point[key])
                    for point in data["points"]
                    if point["domain"] == domain and (point["arm"] == RAW) == raw
                ]
                axes.scatter(
                    *_xy(points),
                    s=size * (30 if raw else 18),
                    marker=marker,
                    facecolors=colour if raw else "none",
                    edgecolors="white" if raw else colour,
                    linewidths=size * (0.4 if raw else 0.8),
                    label=domain if raw else None,
                    zorder=3 if raw else 2,
                )
        axes.set_title(f"dead {title}, % of n")
        axes.set_xscale("log")
        axes.set_ylim(-3, 103)
        axes.set_xlabel("gamma of the layer")
        gamma_ticks(axes.xaxis)
    if set(data["arms"]) - {RAW}:
        left.scatter([], [], s=18, facecolors="none", edgecolors=GREY, label="other arms: hollow")
    legend = left.legend(loc="upper left")
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([26])


def _death_training(figure: Figure, data: dict[str, Any]) -> None:
    panels = domain_panels(figure, data["domains"], "dead features, % of n")
    colours = _arm_colours(data["arms"])
    for domain, axes in panels.items():
        for arm in data["arms"]:
            cells = [
                line["xy"]
                for line in data["lines"]
                if (line["domain"], line["arm"]) == (domain, arm)
            ]
            if cells:
                # The more lines, the fainter, so that they show where most of them are.
                alpha = max(0.04, min(0.4, 12 / len(cells)))
                _bundle(axes, cells, colors=colours[arm], linewidths=0.8, alpha=alpha)
                x, y = _medians(cells)
                axes.plot(x, _percent(y), color="white", linewidth=3.6, zorder=3)
                axes.plot(x, _percent(y), color=colours[arm], linewidth=2.2, zorder=3)
        share_axes(axes, max(line["xy"][-1][0] for line in data["lines"]))
    shared_legend(figure, colours)


def _fates(figure: Figure, data: dict[str, Any]) -> None:
    domains, colours = data["domains"], _arm_colours(data["arms"])
    states = ("durable", "relapsed", "never")
    grid = step_grid(figure, [f"{state}, %" for state in states], domains)
    end = max(curve["steps"][-1] for curve in data["curves"])
    for row, state in zip(grid, states, strict=True):
        for axes, domain in zip(row, domains, strict=True):
            for curve in data["curves"]:
                if curve["domain"] == domain:
                    colour = colours[curve["arm"]]
                    shares = _percent(curve[state])
                    axes.plot(
                        curve["steps"], shares, color=colour, linewidth=1.8, marker="o", ms=2.5
                    )
                    if state == "durable":
                        _chance_line(axes, end, curve["chance"], colour)
            share_axes(axes, end)
    shared_legend(figure, colours)


def _revival(figure: Figure, data: dict[str, Any]) -> None:
    names = {"relu": "ReLU", "topk": "TopK"}
    domains, colours = data["domains"], _arm_colours(data["arms"])
    labels = [f"born dead by {names[path]},\nnot revived durably, %" for path in data["paths"]]
    grid = step_grid(figure, labels, domains)
    end = data["steps"][-1]
    for row, path in zip(grid, data["paths"], strict=True):
        for axes, domain in zip(row, domains, strict=True):
            for curve in data["curves"]:
                if (curve["path"], curve["domain"]) == (path, domain):
                    colour = colours[curve["arm"]]
                    _survival_step(axes, data["steps"], curve, colour)
                    _chance_line(axes, end, 1 - curve["chance"], colour)
            share_axes(axes, end)
    shared_legend(figure, colours)


def _chance_line(axes: Axes, end: float, share: float, colour: str) -> None:
    """What sampling alone shows at most."""
    axes.plot([0, end], [100 * share] * 2, color=colour, linewidth=1.0, linestyle=":")


def _survival_step(axes: Axes, steps: Sequence[int], curve: dict[str, Any], colour: str) -> None:
    """The share holds from one step to the next, where it falls."""
    low, median, high = (_percent(curve[key]) for key in ("low", "median", "high"))
    axes.fill_between(steps, low, high, step="post", color=colour, alpha=0.18, linewidth=0)
    axes.step(steps, median, where="post", color=colour, linewidth=1.8)


def _bias(figure: Figure, data: dict[str, Any]) -> None:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, LogNorm
    from numpy import linspace

    gammas = [line["gamma"] for line in data["lines"] if line["gamma"] > _LEAST]
    low, high = min(gammas, default=0.1), max(gammas, default=1.0)
    # Without its lightest end, which is hard to see on white.
    colours = ListedColormap(colormaps["viridis"](linspace(0, 0.88, 256)))
    scale = LogNorm(low / 1.01, high * 1.01)
    panels = domain_panels(figure, data["domains"], "of the mean learned, %")
    for domain, axes in panels.items():
        lines = [line for line in data["lines"] if line["domain"] == domain]
        _bundle(
            axes,
            [line["xy"] for line in lines],
            colors=[colours(scale(max(line["gamma"], low))) for line in lines],
            linestyles=["solid" if line["arm"] == RAW else "dashed" for line in lines],
            linewidths=1.3,
        )
        axes.axhline(100, color=GREY, linewidth=0.8, linestyle=":")
        axes.set_xscale("log")
        step_ticks(axes)
    bar = figure.colorbar(
        ScalarMappable(scale, colours), ax=list(panels.values()), pad=0.01, aspect=30
    )
    bar.set_label("gamma of the layer")
    gamma_ticks(bar.ax.yaxis)


def _heat(figure: Figure, data: dict[str, Any]) -> None:
    from matplotlib.colors import LogNorm, Normalize

    models, depth = data["models"], data["depth"]
    figure.set_size_inches(min(13, 8 + 0.36 * depth), 1.8 + 0.24 * len(models))
    every = [value for row in data["panels"]["gamma"] for _, value in row if value > _LEAST]
    scales = {
        "gamma": ("gamma", LogNorm(min(every, default=0.1) / 1.01, max(every, default=1) * 1.01)),
        "dead": ("born dead, raw, %", Normalize(0, 100)),
        "cured": ("born dead, centered, %", Normalize(0, 100)),
    }
    panels = figure.subplots(1, 3, sharey=True)
    for axes, (key, (title, scale)) in zip(panels, scales.items(), strict=True):
        factor = 1 if key == "gamma" else 100
        grid = [[float("nan")] * depth for _ in models]
        for index, row in enumerate(data["panels"][key]):
            for layer, value in row:
                grid[index][layer] = factor * value
        axes.set_facecolor("#d0d0d0")
        image = axes.imshow(grid, aspect="auto", cmap="cividis", norm=scale, interpolation="none")
        if depth * len(models) <= _MOST_WRITTEN:
            write_values(axes, grid, scale, _short)
        axes.grid(visible=False)
        axes.set_title(title)
        layer_ticks(axes)
        bar = figure.colorbar(image, ax=axes, pad=0.02, aspect=20)
        if key == "gamma":
            gamma_ticks(bar.ax.yaxis)
    panels[0].set_yticks(range(len(models)), models)


# Values that a heat map has room to write.
_MOST_WRITTEN = 120


def _short(value: float) -> str:
    return f"{value:.2g}" if value < 99.5 else f"{value:.0f}"


def _profile(figure: Figure, data: dict[str, Any]) -> None:
    width, height = 7.0, 5.6
    figure.set_size_inches(width, height)
    # About 14 characters of the legend to the inch, and half an inch for its lines.
    legend = 0.75 + max(len("predicted, init"), *(len(f"{arm}, init") for arm in data["init"])) / 14
    figure.subplots_adjust(
        left=0.7 / width,
        right=1 - legend / width,
        bottom=0.75 / height,
        top=1 - 0.68 / height,
        hspace=0.08,
    )
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(2, 3))
    styles = ((BLACK, "-", "o"), (PURPLE, "--", "s"), (SKY, ":", "^"))
    for (title, points), (colour, dash, marker) in zip(data["gammas"].items(), styles, strict=True):
        shown = [point for point in points if point[1] > _LEAST]
        top.plot(*_xy(shown), color=colour, linestyle=dash, marker=marker, ms=4, label=title)
    top.set_yscale("log")
    low, high = top.get_ylim()
    top.set_ylim(low / 1.5, high * 1.5)
    top.set_ylabel("gamma")
    gamma_ticks(top.yaxis)
    top.legend(ncols=3, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.1)
    colours = _arm_colours(list(data["init"]))
    for arm, colour in colours.items():
        x, y = _xy(data["init"][arm])
        bottom.plot(x, _percent(y), color=colour, marker="o", ms=4, label=f"{arm}, init")
        if data["trained"]:
            x, y = _xy(data["end"][arm])
            bottom.plot(
                x, _percent(y), color=colour, ls="--", marker="v", ms=4, label=f"{arm}, end"
            )
    if data["predicted"]:  # older records have none
        x, y = _xy(data["predicted"])
        bottom.scatter(
            x, _percent(y), marker="_", s=160, color=BLACK, label="predicted, init", zorder=3
        )
    bottom.set_ylim(-3, 103)
    bottom.set_ylabel("dead features, % of n")
    layers = [layer for layer, _ in data["gammas"]["gamma"]]
    bottom.set_xlim(min(layers) - 0.5, max(layers) + 0.5)
    layer_ticks(bottom)
    bottom.legend(loc="center left", bbox_to_anchor=(1, 0.5))


_DRAWERS: dict[str, Callable[[Figure, dict[str, Any]], None]] = {
    "gamma_death": _gamma_death,
    "why": draw_why,
    "death_training": _death_training,
    "fates": _fates,
    "revival": _revival,
    "bias": _bias,
    "heat": _heat,
    "when": draw_when,
    "cures": draw_cures,
    "profile": _profile,
}


# --------------------------------------------------------------------------------------- helpers


def _domain_styles(domains: Sequence[str]) -> dict[str, tuple[str, str]]:
    others = [domain for domain in domains if domain not in _DOMAIN_STYLES]
    extra = {each: _OTHER_DOMAINS[i % len(_OTHER_DOMAINS)] for i, each in enumerate(others)}
    return _DOMAIN_STYLES | extra


def _arm_colours(arms: Sequence[str]) -> dict[str, str]:
    known = {arm: colour for arm, colour in _ARM_COLOURS.items() if arm in arms}
    free = [colour for colour in _OTHER_ARMS if colour not in known.values()]
    others = [arm for arm in arms if arm not in known]
    return known | {arm: free[i % len(free)] for i, arm in enumerate(others)}


def _xy(points: Sequence[Sequence[float]]) -> tuple[list[float], list[float]]:
    return [point[0] for point in points], [point[1] for point in points]


def _percent(shares: Sequence[float]) -> list[float]:
    return [100 * share for share in shares]


def _bundle(axes: Axes, lines: Sequence[Sequence[Sequence[float]]], **style: Any) -> None:
    """Many lines of shares at once, which is much faster than one by one."""
    from matplotlib.collections import LineCollection

    points = [[(x, 100 * share) for x, share in line] for line in lines]
    bundle = LineCollection(points, **style)
    # Cut off at the axes anyway; a layout would measure every line.
    bundle.set_in_layout(False)
    axes.add_collection(bundle)
    axes.autoscale_view()


def _medians(cells: Sequence[Sequence[Sequence[float]]]) -> tuple[list[float], list[float]]:
    """The median at every step that all cells have."""
    by_step = [dict(zip(*_xy(points), strict=True)) for points in cells]
    steps = sorted(set.intersection(*(set(each) for each in by_step)))
    return list(steps), [statistics.median(each[step] for each in by_step) for step in steps]
