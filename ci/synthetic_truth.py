"""What is true of training, on made activations with known features: a table and a figure.

    out=results/synthetic
    gammas="--model synthetic-gamma1 --model synthetic-gamma4 --model synthetic-gamma40"
    rm -r $out/records
    bench run $gammas --protocol truth --workers 3 --output $out
    bench run $gammas --protocol truth --workers 3 --set bias=frozen --arm raw --output $out
    python ci/synthetic_truth.py            write README.md and dynamics.svg beside the records
    python ci/synthetic_truth.py --check    fail if README.md is not what the records give

A number is the mean over seeds with its 95 % interval (`ci/seed_intervals.py`). A claim that fails
is shown as failing: the script itself fails only where the page is not what the records give.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

import synthetic_figure
from seed_intervals import (
    Interval,
    Verdict,
    all_or_none,
    of_differences,
    of_numbers,
    of_ratios,
    of_shares,
)

from bench.records.schema import Record, Result, Revival, Training
from bench.records.store import RecordStore

FOLDER = Path(__file__).parents[1] / "results" / "synthetic"
FROZEN = "raw, b frozen"
PUBLISHED = "raw+auxk, ReLU"
OURS = "raw+auxk"
# Our AuxK, which is not of the paper, is shown where it was run.
NEEDED = ("raw", FROZEN, PUBLISHED, "centered")
ARMS = ("raw", FROZEN, PUBLISHED, OURS, "centered")
COLOURS = dict(zip(ARMS, ("#D55E00", "#8c8c8c", "#009E73", "#E69F00", "#0072B2"), strict=True))
# The arms that train otherwise than the protocol says, by the key that says how; the second of
# them is an arm of its own now.
CONTROLS = {"bias": FROZEN, "aux_codes": PUBLISHED}
NAMES = {"raw+auxk-relu": PUBLISHED}

# The paper's rate at its n of 8192. Adam moves a parameter by at most the rate a step, so that
# times in training are told in steps times rate.
PAPER_RATE = 2e-4 * (16384 / 8192) ** 0.5


class Cell(NamedTuple):
    """One gamma and arm: a result per seed, in the order of the seeds."""

    results: list[Result]
    n: int

    def each(self, measure: Callable[[Result], float | None]) -> list[float | None]:
        return [measure(result) for result in self.results]

    def share(self, measure: Callable[[Result], float | None]) -> Interval:
        return of_shares(self.each(measure))

    def features(self, measure: Callable[[Result], int]) -> Interval:
        """Numbers of features, as shares of the dictionary."""
        return self.share(lambda result: measure(result) / self.n)


Cells = dict[tuple[int, str], Cell]


# ----------------------------------------------------------------------- what is read of a result


def trained(result: Result) -> Training:
    """The training part, which every result of this protocol has."""
    assert result.training is not None
    return result.training


def learned(result: Result) -> float | None:
    """Share of the mean that b has learned at the end; below 0, where b points away, as 0."""
    progress = trained(result).checkpoints[-1].bias_progress
    return None if progress is None else min(max(progress, 0.0), 1.0)


def learned_99(result: Result) -> bool:
    steps = trained(result).bias_steps
    return steps is not None and steps.nearly_all is not None


def revival(path: str, count: Callable[[Revival], int]) -> Callable[[Result], float | None]:
    """Features of a kind, as a share of those born dead by a path; None where that is not known."""

    def share(result: Result) -> float | None:
        found: Revival | None = getattr(trained(result), f"revival_{path}")
        return count(found) / found.born if found is not None and found.born else None

    return share


def durable(path: str) -> Callable[[Result], float | None]:
    return revival(path, lambda found: found.durable)


def by_chance(path: str) -> Callable[[Result], float | None]:
    return revival(path, lambda found: found.chance.awake if found.chance else 0)


def topk_to_relu(result: Result) -> float | None:
    """Of the features born dead by TopK, the share dead by ReLU at the end."""
    found = trained(result).transitions
    born = result.death_init.dead_topk
    return None if found is None or not born else found.topk_relu / born


# ------------------------------------------------------------------------------------------ cells


def load(folder: Path) -> Cells:
    """The cells by gamma and arm, in order.

    Raises:
        SystemExit: a gamma lacks an arm, a cell failed, arms were run with different seeds, or
            records of several protocols or metric versions lie together.
    """
    found: dict[tuple[int, str], dict[int, Record]] = {}
    measured = set()
    for record in RecordStore(folder):
        name = re.fullmatch(r"synthetic-gamma(\d+)", record.spec.model)
        if name is None or record.result is None:
            sys.exit(f"synthetic_truth.py: {record.spec.model} {record.hash} does not belong here")
        protocol = record.spec.protocol
        measured.add((record.spec.metric_version, protocol["steps"], protocol["lr"]))
        controls = [arm for key, arm in CONTROLS.items() if key in protocol]
        arm = controls[0] if controls else NAMES.get(record.spec.arm, record.spec.arm)
        found.setdefault((int(name[1]), arm), {})[record.spec.seed] = record
    if len(measured) > 1:
        sys.exit(f"synthetic_truth.py: {folder} holds records of several runs; remove the old ones")
    gammas = sorted({gamma for gamma, _ in found})
    seeds = {tuple(sorted(records)) for records in found.values()}
    needed = {(gamma, arm) for gamma in gammas for arm in NEEDED}
    if not found or not needed <= set(found) or len(seeds) != 1:
        sys.exit(f"synthetic_truth.py: {folder} does not hold every arm with the same seeds")
    return {
        key: Cell(
            [record.result for _, record in sorted(found[key].items()) if record.result],
            next(iter(found[key].values())).spec.protocol["n"],
        )
        for key in ((gamma, arm) for gamma in gammas for arm in ARMS)
        if key in found
    }


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


def three(number: float) -> str:
    return f"{number:.3f}"


def table(cells: Cells) -> str:
    """Every cell, as markdown; shares in percent."""
    lines = [
        "| gamma | arm | born dead by ReLU | by TopK | at the end by ReLU | by TopK "
        "| durable, of those by ReLU | by chance | durable, of those by TopK | by chance "
        "| mean learned by b | recovery | FVU |",
        "|--:|:--|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for (gamma, arm), cell in cells.items():
        shares = [
            cell.features(lambda r: r.death_init.dead_relu),
            cell.features(lambda r: r.death_init.dead_topk),
            cell.features(lambda r: r.death_end.dead_relu),
            cell.features(lambda r: r.death_end.dead_topk),
            *(cell.share(read(path)) for path in ("relu", "topk") for read in (durable, by_chance)),
            cell.share(learned),
        ]
        recovery = cell.share(lambda r: trained(r).recovery)
        fvu = of_numbers(cell.each(lambda r: trained(r).fvu))
        texts = [share.text(percent) for share in shares] + [recovery.text(three), fvu.text(three)]
        lines.append(f"| {gamma} | {arm} | " + " | ".join(texts) + " |")
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------ facts


class Fact(NamedTuple):
    """Something the paper says, what is found here, and whether that agrees, by gamma.

    Yes where the 95 % interval keeps to the bound, no where it keeps to the other side, open where
    it does neither, not measured where the records do not hold the number.
    """

    claim: str
    found: str
    bound: str
    holds: dict[int, Verdict]

    @property
    def verdict(self) -> str:
        words: dict[Verdict, list[int]] = {}
        for gamma, word in self.holds.items():
            words.setdefault(word, []).append(gamma)
        shown = {word: f"**{word}**" if word == "no" else word for word in words}
        if len(words) == 1:
            return shown[next(iter(words))]
        return "; ".join(
            f"{shown[word]} at gamma {', '.join(map(str, at))}" for word, at in words.items()
        )


def facts(cells: Cells, steps: float) -> list[Fact]:
    """The training facts of the paper, of a run that stands for `steps` of its training steps."""
    gammas = sorted({gamma for gamma, _ in cells})
    low = [gamma for gamma in gammas if gamma <= 5]
    high = [gamma for gamma in gammas if gamma >= 30]

    def of(gamma: int, arm: str, measure: Callable[[Result], float | None]) -> Interval:
        return cells[gamma, arm].share(measure)

    def lasts(arm: str, path: str, over: Sequence[int]) -> dict[int, Interval]:
        return {gamma: of(gamma, arm, durable(path)) for gamma in over}

    def paired(
        estimate: Callable[..., Interval],
        measure: Callable[[Result], float | None],
        first: str,
        second: str,
    ) -> dict[int, Interval]:
        return {
            gamma: estimate(*(cells[gamma, arm].each(measure) for arm in (first, second)))
            for gamma in gammas
        }

    def shown(found: dict[int, Interval], show: Callable[[float], str] = percent) -> str:
        return "; ".join(f"gamma {gamma}: {each.text(show)}" for gamma, each in found.items())

    def by_then(holds: dict[int, Verdict]) -> dict[int, Verdict]:
        """What is said of 200,000 steps, where so many were taken."""
        return holds if steps >= 0.95 * 200_000 else dict.fromkeys(holds, "not measured")

    dead_topk = [g for g in gammas if cells[g, "raw"].results[0].death_init.dead_topk]
    dead_relu = [g for g in gammas if cells[g, "raw"].results[0].death_init.dead_relu]
    bias = {gamma: of(gamma, "raw", learned) for gamma in gammas}
    dead = {g: cells[g, "raw"].features(lambda r: r.death_end.dead) for g in gammas}
    topk, frozen = lasts("raw", "topk", dead_topk), lasts(FROZEN, "topk", dead_topk)
    chance = {gamma: of(gamma, "raw", by_chance("topk")) for gamma in dead_topk}
    relu = lasts(FROZEN, "relu", dead_relu)
    slides = paired(of_differences, topk_to_relu, "raw", PUBLISHED)
    slides = {gamma: slides[gamma] for gamma in dead_relu}
    speed = paired(of_ratios, learned, PUBLISHED, "raw")
    born = {g: cells[g, "centered"].features(lambda r: r.death_init.dead) for g in gammas}
    apart = paired(of_differences, lambda r: trained(r).recovery, "centered", "raw")
    recovered = {arm: of(gammas[-1], arm, lambda r: trained(r).recovery) for arm in NEEDED}
    return [
        Fact(
            "At a gamma up to 5 the bias learns 99 % of the mean in 200,000 steps",
            "mean learned at the end, %: " + shown({g: bias[g] for g in low}),
            "99 % reached, in every seed",
            by_then({g: all_or_none(list(map(learned_99, cells[g, "raw"].results))) for g in low}),
        ),
        Fact(
            "At a gamma of 30 and more it lags",
            "mean learned at the end, %: " + shown({g: bias[g] for g in high}),
            "under 50 %",
            {g: bias[g].under(0.5) for g in high},
        ),
        Fact(
            "and death stays at 75 to 90 %",
            "dead at the end, %: " + shown({g: dead[g] for g in high}),
            "over 75 %",
            {g: dead[g].over(0.75) for g in high},
        ),
        Fact(
            "Dead by TopK revives in 200,000 steps",
            "alive at the end for good, of those born so, %: "
            + shown(topk)
            + ". By chance at most: "
            + shown(chance),
            "over 50 %",
            by_then({g: each.over(0.5) for g, each in topk.items()}),
        ),
        Fact(
            "also with the bias frozen",
            "the same with b at 0, %: " + shown(frozen),
            "over 50 %",
            by_then({g: each.over(0.5) for g, each in frozen.items()}),
        ),
        Fact(
            "Dead by ReLU revives only as the bias absorbs the mean",
            "alive at the end for good with b at 0, of those born so, %: " + shown(relu),
            "under 10 %",
            {g: each.under(0.1) for g, each in relu.items()},
        ),
        Fact(
            "AuxK keeps features that are dead by TopK from sliding into dead by ReLU",
            "of those born dead by TopK, dead by ReLU at the end: raw minus AuxK as published, "
            "paired by seed, in points: " + shown(slides),
            "over 0",
            {g: each.over(0.0) for g, each in slides.items()},
        ),
        Fact(
            "AuxK does not speed the bias up",
            "mean learned at the end, AuxK as published over raw, paired by seed: "
            + shown(speed, three),
            "under 1.25; no where it is over 1 for certain and not under 1.25",
            {g: each.under(1.25, clear=1.0) for g, each in speed.items()},
        ),
        Fact(
            "Centering removes death at the start",
            "born dead, centered, %: " + shown(born),
            "none, in every seed",
            {
                g: all_or_none([r.death_init.dead == 0 for r in cells[g, "centered"].results])
                for g in gammas
            },
        ),
        Fact(
            "Recovery lies far apart (the paper at gamma 40: 0.38 raw, 0.97 centered)",
            f"gamma {gammas[-1]}: {recovered['raw'].text(three)} raw, "
            f"{recovered['centered'].text(three)} centered",
            "over 0.4 apart, paired by seed",
            {gammas[-1]: apart[gammas[-1]].over(0.4)},
        ),
    ]


def factor(protocol: dict[str, Any]) -> float:
    """The paper's training steps that one step stands for."""
    return float(protocol["lr"] * (16384 / protocol["n"]) ** 0.5 / PAPER_RATE)


def scale(protocol: dict[str, Any]) -> str:
    """How the steps of the run compare with the paper's."""
    times = factor(protocol)
    return (
        f"Times are at a scale of 1 to {times:.3g}: the rate is {times * PAPER_RATE:.3g} where the "
        f"paper's is {PAPER_RATE:.3g}, and Adam moves a parameter by at most the rate a step, so "
        f"that {protocol['steps']:,} steps stand for {round(times * protocol['steps'], -3):,.0f} "
        "of the paper's. What it says of 2 million steps is not tried."
    )


def page(cells: Cells, folder: Path) -> str:
    """README.md."""
    record = next(iter(RecordStore(folder)))
    protocol = record.spec.protocol
    seeds = len(next(iter(cells.values())).results)
    sizes = ", ".join(f"{key} {protocol[key]:,}" for key in ("n", "k", "N", "steps", "batch"))
    rows = "\n".join(
        f"| {fact.claim} | {fact.found} | {fact.bound} | {fact.verdict} |"
        for fact in facts(cells, factor(protocol) * protocol["steps"])
    )
    usage = (__doc__ or "").split("\n\n")[1]
    intro = (
        f"{sizes}; {record.spec.card['options']['features']} true features, fewer than the "
        "dictionary has: those to spare may die late with nothing lost. "
        f"{seeds} seeds, mean [95 % interval]. {scale(protocol)} A claim holds where the interval "
        "keeps to the bound, fails (**no**) where it keeps to the other side, and is open "
        "otherwise. Revived for good, or durable: has fired on one of the last N training tokens, "
        "and is alive on the frozen sample, at the end; beside it stands what sampling alone shows "
        "at most. Shares in percent of the features; recovery is the mean over true features of "
        "the largest cosine with a decoder direction. AuxK (`bench/sae/dead_features/auxk.py`) as "
        "published has a ReLU on its codes: a feature that is dead by ReLU gets nothing from it."
    )
    head = "| The paper (arXiv 2605.31518) | Here | Bound | Holds |\n|:--|:--|:--|:--|"
    shown = (
        "Death, the mean learned by the bias and, where the records have it, durable revival, over "
        "training"
    )
    parts = (
        "# Training on known features",
        intro,
        f"{head}\n{rows}",
        f"![{shown}](dynamics.svg)",
        table(cells),
        "To measure again:",
        usage,
    )
    return "\n\n".join(parts) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="an output of `bench run`")
    options = parser.parse_args(arguments)
    cells = load(options.folder)
    text, readme = page(cells, options.folder), options.folder / "README.md"
    if not options.check:
        readme.write_text(text, encoding="utf-8")
        results = {key: cell.results for key, cell in cells.items()}
        n = next(iter(cells.values())).n
        synthetic_figure.draw(results, n, options.folder / "dynamics.svg", COLOURS, dashed=FROZEN)
    elif not readme.is_file() or readme.read_text(encoding="utf-8") != text:
        sys.exit(f"synthetic_truth.py: {readme} is not current; run `python ci/synthetic_truth.py`")


if __name__ == "__main__":
    main()
