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
            *told(settings[0]),
            shown,
            *(text for sizes in at_other_sizes(settings[1:]) for text in sizes),
            "[All boards](results/leaderboards/README.md), made by "
            "`bench report --output results`.",
            cures_block(results / "cures"),
        )
        if part
    )


def told(groups: Sequence[Group]) -> list[str]:
    """Of the setting of most models: its worst ones in a sentence each, its sizes, a row for each
    model with many dead, and those with few."""
    sizes = f"**{escape(groups[0].setting.name)}**: {setting_line(groups[0])}"
    many = [headline(group) for group in worst_first(groups)[:MOST_SENTENCES]]
    few = [text for text in sentences(groups) if text.startswith("In ")]
    worst = "\n".join(f"- {text}" for text in many)
    return [worst, sizes, results_table(groups), *few, settled_sentence(groups)]


def at_other_sizes(settings: Sequence[Sequence[Group]]) -> list[list[str]]:
    """Of the other settings, those of one n and k together: the worst model of the longest training
    in a sentence, and a row for each model of each, with what it was trained on."""
    by_sizes: dict[tuple[int, int], list[Group]] = {}
    for groups in settings:
        sizes = sizes_as_run(groups[0].spec)
        by_sizes.setdefault((sizes["n"], sizes["k"]), []).extend(groups)
    found = []
    for (n, k), groups in by_sizes.items():
        most = max(map(_trained_on, groups))
        longest = [group for group in groups if _trained_on(group) == most]
        line = (
            f"**n = {n:,}, k = {k:,}**: a row for each N and length of training; the model and the "
            "SAEs' products are float32 unless said."
        )
        worst = "".join(f"- {headline(group)}" for group in worst_first(longest)[:1])
        settled = settled_sentence(groups, explained=False)
        found.append([line, worst, results_table(groups, trained=True), settled])
    return found


def _trained_on(group: Group) -> int:
    """Tokens; 0 of SAEs that were not trained."""
    return sizes_as_run(group.spec).get("steps", 0) * int(group.spec.protocol.get("batch", 0))


def _training(group: Group) -> list[str]:
    """N, and steps of so many tokens each."""
    sizes, protocol = sizes_as_run(group.spec), group.spec.protocol
    steps = f"{sizes['steps']:,} of {protocol['batch']:,} tokens" if "steps" in sizes else NOTHING
    how = {
        "products": protocol.get("precision", "float32"),
        "model": protocol.get("dtype", "float32"),
    }
    said = [f"{what} {dtype}" for what, dtype in how.items() if dtype != "float32"]
    return [f"{sizes['N']:,}", ", ".join([steps, *said])]


def results_table(groups: Sequence[Group], *, trained: bool = False) -> str:
    """The models with most features born dead, those on real data first: means over layers and
    seeds.

    trained: all of them, with what each was trained on; of one model the longest training first.
    """
    rows = [(INIT_RAW.of_model(group) or 0.0, group) for group in groups]
    if not trained:
        rows = [row for row in rows if row[0] >= LITTLE]
    worst: dict[str, float] = {}
    for born, group in rows:
        worst[group.label] = max(born, worst.get(group.label, 0.0))

    def place(row: tuple[float, Group]) -> tuple[bool, float, str, int]:
        label = row[1].label
        return row[1].data == "made", -worst[label], label, -_trained_on(row[1])

    rows.sort(key=place)
    shown = [
        [escape(group.label), group.domain, group.data]
        + (_training(group) if trained else [])
        + [
            NOTHING if (value := column.of_model(group, arm)) is None else show(value)
            for _, column, arm, show in COLUMNS
        ]
        for _, group in (rows if trained else rows[:MOST_ROWS])
    ]
    added = ["N", "Steps"] if trained else []
    titles = ["Model", "Domain", "Data", *added, *(title for title, *_ in COLUMNS)]
    return table(titles, shown, left=3)


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
