"""The figure of a diagnosis; needs matplotlib, imported here only when a figure is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.death import theory
from zoo.errors import MissingExtra, OutputError, UsageError
from zoo.install import install_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bench.diagnosis.diagnose import Diagnosis


def plot(diagnosis: Diagnosis, path: Path) -> None:
    """Write the figure: measured death on the predicted curves, and the outlier dimensions.

    Raises:
        MissingExtra: matplotlib is not installed.
        UsageError: the path's suffix is not a format that matplotlib writes.
        OutputError: the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra(
            "a plot needs matplotlib, which is not installed", install_line("plot")
        ) from None
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_death(left, diagnosis)
    _draw_outliers(right, diagnosis)
    try:
        figure.savefig(path, dpi=150)
    except ValueError as error:
        known = ", ".join(sorted(figure.canvas.get_supported_filetypes()))
        raise UsageError(f"cannot write a plot to {path} ({error})", f"Known: {known}.") from None
    except OSError as error:
        raise OutputError(f"cannot write {path} ({error.strerror or error})") from None


def _draw_death(axes: Axes, diagnosis: Diagnosis) -> None:
    d = diagnosis
    gammas = [0.1 * 1000 ** (i / 200) for i in range(201)]
    total = [100 * theory.predicted_dead(gamma, d.tokens, d.k, d.n) for gamma in gammas]
    relu = [100 * theory.predicted_relu(gamma, d.tokens) for gamma in gammas]
    gaussian = [100 * theory.gaussian_dead(gamma, d.tokens, d.k, d.n) for gamma in gammas]
    axes.plot(gammas, total, color="black", label="predicted, total")
    axes.plot(gammas, gaussian, color="grey", linestyle=":", label="Gaussian, total")
    axes.plot(gammas, relu, color="black", linestyle="--", label="predicted, by ReLU")
    # Each smaller than the one before: they often lie on one point.
    for arm, marker, size in zip(d.arms, "osD", (10, 8, 4), strict=True):
        dead = arm.dead
        assert dead.value is not None
        axes.plot(
            [d.statistics.gamma],
            [100 * dead.value],
            marker,
            markersize=size,
            label=f"measured, {arm.arm}",
        )
    axes.set(
        xscale="log",
        xlabel="gamma of the activations as they are, after a per-token LayerNorm",
        ylabel="dead features at initialisation (%)",
        ylim=(-3, 103),
        title=f"n {d.n}, k {d.k}, predicted for {d.tokens:,} tokens",
    )
    # Between the curves, which leave that corner free whatever the sizes.
    axes.legend(frameon=False, loc="center right", bbox_to_anchor=(1.0, 0.72))


def _draw_outliers(axes: Axes, diagnosis: Diagnosis) -> None:
    dims = diagnosis.statistics.outlier_dims
    places = range(len(dims))
    axes.bar(places, [d.mean for d in dims], yerr=[d.spread for d in dims], color="grey", capsize=3)
    axes.set_xticks(list(places), [str(d.index) for d in dims])
    axes.set(
        xlabel="dimension",
        ylabel="mean and standard deviation, after LayerNorm",
        title=f"largest means: {sum(d.share for d in dims):.0%} of ||mu||^2",
    )
