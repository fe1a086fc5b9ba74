"""Puts what `results/` says, and its pictures, into the README, between its markers.

python ci/readme.py            write
python ci/readme.py --check    fail if the README is not what the records give
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.records.store import RecordStore
from leaderboard.cures import compared
from leaderboard.findings import sentences
from leaderboard.groups import by_setting, group_records
from leaderboard.markdown.cures import enough_sentences
from leaderboard.markdown.rule_of_thumb import rule_words

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
PICTURE = "*-why.svg"


def block(results: Path) -> str:
    """The part of the README that the records decide: what they say, and pictures.

    Raises:
        SystemExit: there are no records, or their picture was not drawn.
    """
    records = list(RecordStore(results))
    pictures = sorted((results / "leaderboards" / "figures").glob(PICTURE))
    if not records or not pictures:
        sys.exit(f"readme.py: {results} has {len(records)} records, {len(pictures)} pictures")
    alt = "Features born dead, split by cause, and dead at the end of training, for each model"
    shown = "\n\n".join(f"![{alt}]({each.relative_to(ROOT).as_posix()})" for each in pictures)
    told = "\n".join(
        f"- {text}"
        for groups in by_setting(group_records(records)).values()
        for text in sentences(groups)
    )
    return "\n\n".join(
        part
        for part in (
            told,
            shown,
            "[All boards](results/leaderboards/README.md), made by "
            "`bench report --output results`.",
            cures_block(results / "cures"),
        )
        if part
    )


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
            "**What cures it.** " + " ".join(enough_sentences(groups)),
            rule_words(),
            *pictures,
            f"[Remedies, prices and sources]({folder}/leaderboards/cures.md), made by "
            f"`python ci/cures.py {seeds} --output {folder}`.",
        ]
    )


def renewed(text: str, results: Path) -> str:
    """The README with its block made anew. Raises `SystemExit` where it lacks the markers."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"readme.py: the README lacks the markers {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{block(results)}\n{END}{after}"


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
