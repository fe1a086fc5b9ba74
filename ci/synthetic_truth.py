"""What is true of training, on made activations with known features: a table and a figure.

    out=results/synthetic
    bench run --suite synthetic --protocol truth --output $out
    bench run --suite synthetic --protocol truth --set bias=frozen --arm raw --output $out
    bench run --suite synthetic --protocol truth --arm raw+auxk-relu --output $out
    python ci/synthetic_truth.py            write README.md and dynamics.svg beside the records
    python ci/synthetic_truth.py --check    fail if README.md is not what the records give

A number is the mean over seeds with its 95 % interval (Student's t), cut off where a share ends.
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

from bench.records.schema import FirstFiring, Record, Result, Training
from bench.records.store import RecordStore

FOLDER = Path(__file__).parents[1] / "results" / "synthetic"
FROZEN = "raw, b frozen"
PUBLISHED = "raw+auxk, ReLU"
ARMS = ("raw", FROZEN, PUBLISHED, "raw+auxk", "centered")
COLOURS = dict(zip(ARMS, ("#D55E00", "#8c8c8c", "#009E73", "#E69F00", "#0072B2"), strict=True))
# The arms that train otherwise than the protocol says, by the key that says how; the second of
# them is an arm of its own now.
CONTROLS = {"bias": FROZEN, "aux_codes": PUBLISHED}
NAMES = {"raw+auxk-relu": PUBLISHED}


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

    def text(self) -> str:
        """To three places."""
        if self.value is None:
            return "-"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def percent(self) -> str:
        """Of a share."""
        if self.value is None:
            return "-"
        low, high = (100 * min(max(end, 0.0), 1.0) for end in (self.low, self.high))
        return f"{100 * self.value:.1f} [{low:.1f}, {high:.1f}]"

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


def never_fired(first: FirstFiring) -> float | None:
    """The share of the features born dead that had not fired by the end."""
    return (first.born - first.fired) / first.born if first.born else None


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
        controls = [arm for key, arm in CONTROLS.items() if key in record.spec.protocol]
        arm = controls[0] if controls else NAMES.get(record.spec.arm, record.spec.arm)
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
            cell.mean(lambda r: never_fired(trained(r).first_firing_relu)),
            cell.mean(lambda r: never_fired(trained(r).first_firing_topk)),
            cell.bias,
        ]
        plain = [cell.mean(lambda r: trained(r).recovery), cell.mean(lambda r: trained(r).fvu)]
        texts = [mean.percent() for mean in percent] + [mean.text() for mean in plain]
        lines.append(f"| {gamma} | {arm} | " + " | ".join(texts) + " |")
    return "\n".join(lines)


class Fact(NamedTuple):
    """Something the paper says, what is found here, and at which gammas that agrees for certain.

    It agrees where the 95 % interval lies on the right side of a bound that `facts` states.
    """

    claim: str
    found: str
    bound: str
    holds: dict[int, bool]

    @property
    def verdict(self) -> str:
        sides = {
            word: ", ".join(str(gamma) for gamma, held in self.holds.items() if held == side)
            for word, side in (("yes", True), ("open", False))
        }
        if not sides["open"]:
            return "yes"
        return "; ".join(f"{word} at gamma {at}" for word, at in sides.items() if at)


def facts(cells: Cells) -> list[Fact]:
    """The training facts of the paper, at the sizes that were run."""
    gammas = sorted({gamma for gamma, _ in cells})
    high = [gamma for gamma in gammas if gamma >= 4]

    def never(gamma: int, arm: str, path: str) -> Mean:
        return cells[gamma, arm].mean(
            lambda result: never_fired(getattr(trained(result), f"first_firing_{path}"))
        )

    def recovered(gamma: int, arm: str) -> Mean:
        return cells[gamma, arm].mean(lambda result: trained(result).recovery)

    def each(over: Sequence[int], text: Callable[[int], str]) -> str:
        return "; ".join(f"gamma {gamma}: {text(gamma)}" for gamma in over)

    raw = {gamma: cells[gamma, "raw"].bias for gamma in gammas}
    auxk = {gamma: cells[gamma, PUBLISHED].bias for gamma in gammas}
    ours = {gamma: cells[gamma, "raw+auxk"].bias for gamma in gammas}
    relu = {gamma: never(gamma, "raw", "relu") for gamma in high}
    topk = {gamma: never(gamma, FROZEN, "topk") for gamma in gammas}
    born = {
        gamma: cells[gamma, "centered"].share(lambda result: result.death_init.dead)
        for gamma in gammas
    }
    top = gammas[-1]
    far = recovered(top, "raw"), recovered(top, "centered")
    return [
        Fact(
            "At high gamma, raw stays dead by ReLU while the bias lags",
            "never fired of those born so, and mean learned, %: "
            + each(high, lambda g: f"{relu[g].percent()}, {raw[g].percent()}"),
            "over 50 %, under 10 %",
            {gamma: relu[gamma].low > 0.5 and raw[gamma].high < 0.1 for gamma in high},
        ),
        Fact(
            "Dead by TopK revives without the bias",
            "never fired with b frozen at 0, %: " + each(gammas, lambda g: topk[g].percent()),
            "under 50 %",
            {gamma: topk[gamma].high < 0.5 for gamma in gammas},
        ),
        Fact(
            "AuxK does not speed the bias up",
            "mean learned, raw and with AuxK as published, %: "
            + each(gammas, lambda g: f"{raw[g].percent()}, {auxk[g].percent()}"),
            "under twice raw's mean",
            {gamma: auxk[gamma].high < 2 * (raw[gamma].value or 0) for gamma in gammas},
        ),
        Fact(
            "At high gamma the bias lags with AuxK too",
            "mean learned, as above",
            "under 10 %",
            {gamma: auxk[gamma].high < 0.1 for gamma in high},
        ),
        Fact(
            "So it does with our AuxK (not of the paper)",
            "mean learned, %: " + each(high, lambda g: ours[g].percent()),
            "under 10 %",
            {gamma: ours[gamma].high < 0.1 for gamma in high},
        ),
        Fact(
            "Centering removes death at the start",
            "born dead, centered, %: " + each(gammas, lambda g: born[g].percent()),
            "none",
            {gamma: born[gamma].value == 0 for gamma in gammas},
        ),
        Fact(
            "Recovery lies far apart (the paper at gamma 40: 0.38 raw, 0.97 centered)",
            f"gamma {top}: {far[0].text()} raw, {far[1].text()} centered",
            "over 0.4 apart",
            {top: far[1].low - far[0].high > 0.4},
        ),
    ]


def page(cells: Cells, folder: Path) -> str:
    """README.md."""
    record = next(iter(RecordStore(folder)))
    protocol = record.spec.protocol
    seeds = len(next(iter(cells.values())).results)
    sizes = ", ".join(f"{key} {protocol[key]:,}" for key in ("n", "k", "N", "steps", "batch"))
    rows = "\n".join(
        f"| {fact.claim} | {fact.found} | {fact.bound} | {fact.verdict} |" for fact in facts(cells)
    )
    usage = (__doc__ or "").split("\n\n")[1]
    intro = (
        f"{sizes}; {record.spec.card['options']['features']} true features, fewer than the "
        "dictionary has: those to spare may die late with nothing lost. "
        f"{seeds} seeds, mean [95 % interval]. A claim holds where the interval keeps to "
        "the bound. Shares in percent of the features; recovery is the mean over true features of "
        "the largest cosine with a decoder direction. AuxK (`bench/sae/auxk.py`) comes in two "
        "kinds: as published its codes pass a ReLU, and a feature that is dead by ReLU gets "
        "nothing from it; ours gives it a gradient, and through its encoder row the bias too."
    )
    head = "| The paper (arXiv 2605.31518) | Here | Bound | Holds |\n|:--|:--|:--|:--|"
    shown = "Features dead by ReLU, by either path, and the mean learned by the bias, over training"
    parts = (
        "# Training on known features",
        intro,
        f"{head}\n{rows}",
        f"![{shown}](dynamics.svg)",
        table(cells),
        "Made by:",
        usage,
    )
    return "\n\n".join(parts) + "\n"


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
            if row < 2:
                grid[row, 0].set_ylim(-2, 102)
            for axes in grid[row]:
                axes.grid(color="#e5e5e5", linewidth=0.6)
        figure.legend(
            *grid[0, 0].get_legend_handles_labels(),
            loc="outside upper center",
            ncols=len(ARMS),
            frameon=False,
        )
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
    broken = [fact.claim for fact in facts(cells) if not any(fact.holds.values())]
    if broken:
        sys.exit("synthetic_truth.py: does not hold: " + "; ".join(broken))


if __name__ == "__main__":
    main()
