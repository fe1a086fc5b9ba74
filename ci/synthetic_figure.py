"""The figure of `ci/synthetic_truth.py`: death, the bias and revival over training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.records.schema import Result

ROWS = ("dead by ReLU, %", "dead by either path, %", "mean learned, %", "TopK, durable, %")


def _lines(result: Result, n: int) -> list[tuple[list[int], list[float]]]:
    """What the figure's rows show of a result: steps + 1, and percent; empty where not known."""
    assert result.training is not None
    points = result.training.checkpoints
    steps = [1, *(point.step + 1 for point in points)]
    born = result.death_init
    relu = [born.dead_relu, *(point.dead_relu for point in points)]
    dead = [born.dead, *(point.dead_relu + point.dead_topk for point in points)]
    bias = [0.0, *(point.bias_progress for point in points)]
    fates = [point.fates_topk for point in points]
    lasting = [0, *(each.durable for each in fates if each is not None)]
    known = born.dead_topk > 0 and None not in fates
    return [
        (steps, [100 * count / n for count in relu]),
        (steps, [100 * count / n for count in dead]),
        ([], []) if None in bias else (steps, [100 * share for share in bias if share is not None]),
        (steps, [100 * count / born.dead_topk for count in lasting]) if known else ([], []),
    ]


def draw(
    results: Mapping[tuple[int, str], Sequence[Result]],
    n: int,
    path: Path,
    colours: Mapping[str, str],
    dashed: str,
) -> None:
    """Per gamma a column, per number a row, over steps; a line per seed.

    results: by gamma and arm, of dictionaries of size n.
    """
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    style: dict[Any, Any] = {"svg.hashsalt": "gammabench", "font.size": 9}
    style |= {"axes.spines.right": False, "axes.spines.top": False}
    gammas = sorted({gamma for gamma, _ in results})
    lines = [
        (gamma, arm, number, _lines(result, n))
        for (gamma, arm), found in results.items()
        for number, result in enumerate(found)
    ]
    shown = [row for row in range(len(ROWS)) if any(each[row][0] for *_, each in lines)]
    end = max(steps[-1] for *_, each in lines for steps, _ in each if steps)
    with plt.rc_context(style):
        figure, grid = plt.subplots(
            len(shown), len(gammas), figsize=(2.6 * len(gammas), 0.4 + 2 * len(shown)),
            sharex=True, sharey="row", layout="constrained", squeeze=False,
        )  # fmt: skip
        for gamma, arm, number, each in lines:
            for axes, row in zip(grid[:, gammas.index(gamma)], shown, strict=True):
                axes.plot(
                    *each[row], color=colours[arm], linewidth=1.1, alpha=0.8,
                    linestyle="--" if arm == dashed else "-", label=arm if number == 0 else None,
                )  # fmt: skip
        for axes, gamma in zip(grid[0], gammas, strict=True):
            axes.set_title(f"gamma {gamma}")
        for axes in grid[-1]:
            axes.set_xlabel("steps + 1")
        for panels, row in zip(grid, shown, strict=True):
            panels[0].set_ylabel(ROWS[row])
            for axes in panels:
                axes.set_xscale("log")
                axes.set_xlim(0.9, 1.1 * end)
                if ROWS[row] != "mean learned, %":
                    axes.set_ylim(-2, 102)
                axes.grid(color="#e5e5e5", linewidth=0.6)
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside upper center", ncols=len(colours), frameon=False
        )
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
