"""Puts what `results/` says, and its pictures, into the README, between its markers.

python ci/readme.py            write
python ci/readme.py --check    fail if the README is not what the records give
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.records.store import RecordStore
from leaderboard.columns.activations import EFFECTIVE_RANK, GAMMA
from leaderboard.columns.death import DUE_TO_MEAN, DUE_TO_SPECTRUM, END, INIT, INIT_RAW
from leaderboard.columns.kinds import Column
from leaderboard.columns.revival import BORN_DEAD
from leaderboard.cures import compared
from leaderboard.figures.pictures import pictures
from leaderboard.findings import LITTLE, headline, sentences, worst_first
from leaderboard.groups import CENTERED, RAW, Group, by_setting, group_records, sizes_as_run
from leaderboard.markdown.cures import enough_sentences
from leaderboard.markdown.layout import setting_line
from leaderboard.markdown.rule_of_thumb import rule_words
from leaderboard.settled import settled_sentence
from leaderboard.text import NOTHING, count, escape, number, percent, table

ROOT = Path(__file__).parents[1]
FIRST_LINE, LAST_LINE = "<!-- results:begin -->", "<!-- results:end -->"
MOST_SENTENCES, MOST_ROWS = 3, 8

# A title, the number and of which arm, and how it is written.
COLUMNS: tuple[tuple[str, Column, str | None, Callable[[float], str]], ...] = (
    ("Gamma", GAMMA, None, number),
    ("Rank", EFFECTIVE_RANK, None, number),
    ("Born dead %, raw", INIT_RAW, None, percent),
    ("by mean", DUE_TO_MEAN, None, percent),
    ("by spectrum", DUE_TO_SPECTRUM, None, percent),
    ("Born dead %, centered", INIT, CENTERED, percent),
    ("Dead at end %, raw", END, RAW, percent),
    ("Dead at end %, centered", END, CENTERED, percent),
    ("Revived for good %, raw", BORN_DEAD.durable, RAW, percent),
)


def block(results: Path) -> str:
    """The part of the README that the records decide: what they say, and pictures.

    Raises:
        SystemExit: there are no records.
    """
    records = list(RecordStore(results))
    if not records:
        sys.exit(f"readme.py: there are no records in {results}")
    settings = sorted(by_setting(group_records(records)).values(), key=len, reverse=True)
    (picture,) = (each for each in pictures(settings[0]) if each.kind == "why")
    path = results / "leaderboards" / "figures" / f"{picture.name}.svg"
    alt = "Features born dead, split by cause, and dead at the end of training, for each model"
    shown = f"![{alt}]({path.relative_to(ROOT).as_posix()})"
    return "\n\n".join(
        part
        for part in (
            *told(settings[0], first=True),
            shown,
            *(text for groups in settings[1:] for text in told(groups, first=False)),
            "[All boards](results/leaderboards/README.md), made by "
            "`bench report --output results`.",
            cures_block(results / "cures"),
        )
        if part
    )


def told(groups: Sequence[Group], *, first: bool) -> list[str]:
    """Of one setting: its sizes, its worst models in a sentence each, and a row for each model with
    many dead; of the first, the setting of most models, those with few too."""
    sizes = f"**{escape(groups[0].setting.name)}**: {setting_line(groups[0])}"
    many = [headline(group) for group in worst_first(groups)[: MOST_SENTENCES if first else 1]]
    worst = "\n".join(f"- {text}" for text in many)
    settled = settled_sentence(groups, explained=first)
    if not first:
        return [sizes, worst, results_table(groups), settled]
    few = [text for text in sentences(groups) if text.startswith("In ")]
    return [worst, sizes, results_table(groups), *few, settled]


def results_table(groups: Sequence[Group]) -> str:
    """The models of one setting with most features born dead, those on real data first: means over
    layers and seeds."""
    rows = [
        (born, group) for group in groups if (born := INIT_RAW.of_model(group) or 0.0) >= LITTLE
    ]
    rows.sort(key=lambda row: (row[1].data == "made", -row[0], row[1].label))
    shown = [
        [escape(group.label), group.domain, group.data]
        + [
            NOTHING if (value := column.of_model(group, arm)) is None else show(value)
            for _, column, arm, show in COLUMNS
        ]
        for _, group in rows[:MOST_ROWS]
    ]
    return table(["Model", "Domain", "Data", *(title for title, *_ in COLUMNS)], shown, left=3)


def cures_block(output: Path) -> str:
    """What the remedies do, in a sentence, a picture and a link; empty where none are compared."""
    groups = compared(group_records(RecordStore(output)))
    if not groups:
        return ""
    shown = sorted((output / "leaderboards" / "figures").glob("*-cures.svg"))
    folder = output.relative_to(ROOT).as_posix()
    seeds = " ".join(f"--seed {seed}" for seed in sorted({s for g in groups for s in g.seeds}))
    pictures = (
        f"![What cures dead features]({each.relative_to(ROOT).as_posix()})" for each in shown
    )
    return "\n\n".join(
        [
            "**What cures it.** " + " ".join([_measured_on(groups), *enough_sentences(groups)]),
            rule_words(),
            *pictures,
            f"[Remedies, prices and sources]({folder}/leaderboards/cures.md), made by "
            f"`python ci/cures.py {seeds} --output {folder}`.",
        ]
    )


def _measured_on(groups: Sequence[Group]) -> str:
    """On what, and at which sizes, remedies were compared: which layers are of models."""
    sizes = sizes_as_run(groups[0].spec)
    layers = sum(len(group.layers) for group in groups)
    made = sum(len(group.layers) for group in groups if group.data == "made")
    drawn = sum(len(group.layers) for group in groups if group.domain == "synthetic")
    models = [
        f"{escape(group.label)} layer {', '.join(map(str, group.layers))}"
        + (f" ({group.data} data)" if made < layers else "")
        for group in groups
        if group.domain != "synthetic"
    ]
    kinds = [*([f"{drawn} are synthetic activations"] if drawn else [])]
    kinds += [f"{layers - drawn} are of models: {', '.join(models)}"] if models else []
    return (
        f"Measured on {count(layers, 'layer')}, {'all' if made == layers else made} of made data: "
        f"{'; '.join(kinds)}. There n = {sizes['n']:,}, k = {sizes['k']:,}, "
        f"{sizes['steps']:,} steps."
    )


def renewed(text: str, results: Path) -> str:
    """The README with its block made anew. Raises `SystemExit` where it lacks the markers."""
    before, begin, rest = text.partition(FIRST_LINE)
    _, end, after = rest.partition(LAST_LINE)
    if not begin or not end:
        sys.exit(f"readme.py: the README lacks the markers {FIRST_LINE} and {LAST_LINE}")
    return f"{before}{FIRST_LINE}\n{block(results)}\n{LAST_LINE}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--check", action="store_true", help="write nothing")
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    wanted = renewed(text, ROOT / "results")
    if parser.parse_args().check:
        if wanted != text:
            sys.exit("readme.py: README.md is not current; run `python ci/readme.py`")
    else:
        readme.write_text(wanted, encoding="utf-8")


if __name__ == "__main__":
    main()
