"""What is true of training, on made activations with known features: a table and a figure.

    out=results/synthetic
    bench run --suite synthetic --protocol truth --output $out
    bench run --suite synthetic --protocol truth --set bias=frozen --arm raw --output $out
    python ci/synthetic_truth.py            write README.md and dynamics.svg beside the records
    python ci/synthetic_truth.py --check    fail if README.md is not what the records give

A number is the mean over seeds, with the half width of its 95 % interval (Student's t).
"""

from __future__ import annotations

import argparse
import math
import re
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scipy.stats import t as student

from bench.records import Record, RecordStore, Result, Training

FOLDER = Path(__file__).parents[1] / "results" / "synthetic"
FROZEN = "raw, b frozen"
ARMS = ("raw", FROZEN, "raw+auxk", "centered")
COLOURS = dict(zip(ARMS, ("#D55E00", "#8c8c8c", "#E69F00", "#0072B2"), strict=True))


class Mean(NamedTuple):
    """A mean over seeds and the half width of its 95 % interval; None where it has no meaning."""

    value: float | None
    half: float = 0.0

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Mean:
        known = [value for value in values if value is not None]
        if len(known) < len(values) or not known:
            return cls(None)
        if len(known) == 1:
            return cls(known[0])
        spread = statistics.stdev(known) / math.sqrt(len(known))
        return cls(statistics.mean(known), float(student.ppf(0.975, len(known) - 1)) * spread)

    def text(self, digits: int, factor: float = 1.0) -> str:
        if self.value is None:
            return "-"
        return f"{factor * self.value:.{digits}f} ± {factor * self.half:.{digits}f}"

    @property
    def low(self) -> float:
        return math.nan if self.value is None else self.value - self.half

    @property
    def high(self) -> float:
        return math.nan if self.value is None else self.value + self.half


class Cell(NamedTuple):
    """One gamma and arm: a result per seed."""

    results: list[Result]
    n: int

    def mean(self, measure: Callable[[Result], float | None]) -> Mean:
        return Mean.of([measure(result) for result in self.results])

    def share(self, measure: Callable[[Result], int]) -> Mean:
        return self.mean(lambda result: measure(result) / self.n)

    @property
    def bias(self) -> Mean:
        """Share of the mean that b has learned at the end."""
        return self.mean(lambda result: trained(result).checkpoints[-1].bias_progress)


Cells = dict[tuple[int, str], Cell]


def trained(result: Result) -> Training:
    """The training part, which every result of this protocol has."""
    assert result.training is not None
    return result.training


def load(folder: Path) -> Cells:
    """The cells by gamma and arm, in order.

    Raises:
        SystemExit: a gamma lacks an arm, a cell failed, or arms were run with different seeds.
    """
    found: dict[tuple[int, str], dict[int, Record]] = {}
    for record in RecordStore(folder):
        name = re.fullmatch(r"synthetic-gamma(\d+)", record.spec.model)
        if name is None or record.result is None:
            sys.exit(f"synthetic_truth.py: {record.spec.model} {record.hash} does not belong here")
        frozen = record.spec.protocol.get("bias") == "frozen"
        arm = FROZEN if frozen else record.spec.arm
        found.setdefault((int(name[1]), arm), {})[record.spec.seed] = record
    gammas = sorted({gamma for gamma, _ in found})
    wanted = [(gamma, arm) for gamma in gammas for arm in ARMS]
    seeds = {tuple(sorted(records)) for records in found.values()}
    if not found or set(wanted) != set(found) or len(seeds) != 1:
        sys.exit(f"synthetic_truth.py: {folder} does not hold every arm with the same seeds")
    return {
        key: Cell(
            [record.result for _, record in sorted(found[key].items()) if record.result],
            next(iter(found[key].values())).spec.protocol["n"],
        )
        for key in wanted
    }


def table(cells: Cells) -> str:
    """Every cell, as markdown; shares in percent."""
    lines = [
        "| gamma | arm | born dead by ReLU | by TopK | at the end by ReLU | by TopK "
        "| never fired, of those by ReLU | of those by TopK | mean learned by b | recovery | FVU |",
        "|--:|:--|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for (gamma, arm), cell in cells.items():
        percent = [
            cell.share(lambda r: r.death_init.dead_relu),
            cell.share(lambda r: r.death_init.dead_topk),
            cell.share(lambda r: r.death_end.dead_relu),
            cell.share(lambda r: r.death_end.dead_topk),
            cell.mean(lambda r: trained(r).revival_relu.never_share),
            cell.mean(lambda r: trained(r).revival_topk.never_share),
            cell.bias,
        ]
        plain = [cell.mean(lambda r: trained(r).recovery), cell.mean(lambda r: trained(r).fvu)]
        texts = [mean.text(1, 100) for mean in percent] + [mean.text(3) for mean in plain]
        lines.append(f"| {gamma} | {arm} | " + " | ".join(texts) + " |")
    return "\n".join(lines)


class Fact(NamedTuple):
    """Something the paper says, what is found here, and whether that agrees."""

    claim: str
    found: str
    holds: bool


def facts(cells: Cells) -> list[Fact]:
    """The training facts of the paper, at the sizes that were run."""
    gammas = sorted({gamma for gamma, _ in cells})
    top = gammas[-1]
    high = [gamma for gamma in gammas if gamma >= 4]
    raw, centered = cells[top, "raw"], cells[top, "centered"]
    never = raw.mean(lambda r: trained(r).revival_relu.never_share)
    frozen = {
        gamma: cells[gamma, FROZEN].mean(lambda r: trained(r).revival_topk.never_share)
        for gamma in gammas
    }
    learned = {gamma: (cells[gamma, "raw"].bias, cells[gamma, "raw+auxk"].bias) for gamma in high}
    born = {
        gamma: cells[gamma, "centered"].share(lambda r: r.death_init.dead).value for gamma in gammas
    }
    recovered = [cell.mean(lambda r: trained(r).recovery) for cell in (raw, centered)]
    return [
        Fact(
            "At high gamma, raw stays dead by ReLU while the bias lags",
            f"gamma {top}: {never.text(1, 100)} % of those born so never fired; "
            f"the bias learned {raw.bias.text(2, 100)} % of the mean",
            never.low > 0.5 and raw.bias.high < 0.1,
        ),
        Fact(
            "Dead by TopK revives without the bias",
            "with b frozen at 0, fired by the end: "
            + "; ".join(f"gamma {g} {100 * (1 - (m.value or 0)):.1f} %" for g, m in frozen.items()),
            all(mean.value is not None and mean.high < 0.5 for mean in frozen.values()),
        ),
        Fact(
            "AuxK does not speed the bias up to where it would matter",
            "learned, raw and with AuxK: "
            + "; ".join(
                f"gamma {g} {raw.text(1, 100)} and {aux.text(1, 100)} %"
                for g, (raw, aux) in learned.items()
            ),
            all(aux.high < 0.1 for _, aux in learned.values()),
        ),
        Fact(
            "Centering removes death at the start",
            "born dead, centered: "
            + "; ".join(f"gamma {g} {100 * (share or 0):.1f} %" for g, share in born.items()),
            all(share == 0 for share in born.values()),
        ),
        Fact(
            f"Recovery at gamma {top} lies far apart (the paper: 0.38 raw, 0.97 centered)",
            f"{recovered[0].text(3)} raw, {recovered[1].text(3)} centered",
            recovered[1].low - recovered[0].high > 0.4,
        ),
    ]


def page(cells: Cells, folder: Path) -> str:
    """README.md."""
    record = next(iter(RecordStore(folder)))
    protocol = record.spec.protocol
    seeds = len(next(iter(cells.values())).results)
    sizes = ", ".join(f"{key} {protocol[key]:,}" for key in ("n", "k", "N", "steps", "batch"))
    rows = "\n".join(
        f"| {fact.claim} | {fact.found} | {'yes' if fact.holds else '**no**'} |"
        for fact in facts(cells)
    )
    usage = (__doc__ or "").split("\n\n")[1]
    return (
        f"# Training on known features\n\n{sizes}; {seeds} seeds, mean ± half width of the 95 % "
        "interval. Shares in percent of the features; recovery is the mean over true features of "
        "the largest cosine with a decoder direction.\n\n"
        f"| The paper (arXiv 2605.31518) | Here | Holds |\n|:--|:--|:--|\n{rows}\n\n"
        "![Features dead by ReLU, by either path, and the mean learned by the bias, "
        f"over training](dynamics.svg)\n\n{table(cells)}\n\nMade by:\n\n{usage}\n"
    )


def draw(cells: Cells, path: Path) -> None:
    """Per gamma: the dead by ReLU, all dead, and the mean learned, over steps; a line per seed."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    style: dict[Any, Any] = {"svg.hashsalt": "gammabench", "font.size": 9}
    style |= {"axes.spines.right": False, "axes.spines.top": False}
    gammas = sorted({gamma for gamma, _ in cells})
    with plt.rc_context(style):
        figure, grid = plt.subplots(
            3, len(gammas), figsize=(2.6 * len(gammas), 6.4), sharex=True, sharey="row",
            layout="constrained", squeeze=False,
        )  # fmt: skip
        for (gamma, arm), cell in cells.items():
            column = gammas.index(gamma)
            for number, result in enumerate(cell.results):
                points = trained(result).checkpoints
                steps = [1, *(point.step + 1 for point in points)]
                born = result.death_init
                relu = [born.dead_relu, *(point.dead_relu for point in points)]
                dead = [born.dead, *(point.dead_relu + point.dead_topk for point in points)]
                lines = [[100 * count / cell.n for count in counts] for counts in (relu, dead)]
                learned = [point.bias_progress for point in points]
                if None not in learned:
                    lines.append([0.0, *(100 * share for share in learned if share is not None)])
                for row, line in enumerate(lines):
                    grid[row, column].plot(
                        steps, line, color=COLOURS[arm], linewidth=1.1, alpha=0.8,
                        linestyle="--" if arm == FROZEN else "-",
                        label=arm if number == 0 else None,
                    )  # fmt: skip
        for column, gamma in enumerate(gammas):
            grid[0, column].set_title(f"gamma {gamma}")
            grid[-1, column].set_xlabel("steps + 1")
            grid[-1, column].set_xscale("log")
        for row, label in enumerate(
            ("dead by ReLU, %", "dead by either path, %", "mean learned, %")
        ):
            grid[row, 0].set_ylabel(label)
            grid[row, 0].set_ylim(-2, 102)
            for axes in grid[row]:
                axes.grid(color="#e5e5e5", linewidth=0.6)
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="an output of `bench run`")
    options = parser.parse_args(arguments)
    cells = load(options.folder)
    text, readme = page(cells, options.folder), options.folder / "README.md"
    if not options.check:
        readme.write_text(text, encoding="utf-8")
        draw(cells, options.folder / "dynamics.svg")
    elif not readme.is_file() or readme.read_text(encoding="utf-8") != text:
        sys.exit(f"synthetic_truth.py: {readme} is not current; run `python ci/synthetic_truth.py`")
    broken = [fact.claim for fact in facts(cells) if not fact.holds]
    if broken:
        sys.exit("synthetic_truth.py: does not hold: " + "; ".join(broken))


if __name__ == "__main__":
    main()
