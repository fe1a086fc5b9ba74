"""`bench compare A B`: two output folders side by side."""

from __future__ import annotations

from pathlib import Path

import click

from bench.cli.options import BadRecords
from bench.cli.output import OutputPlace


@click.command("compare")
@click.argument("a", type=OutputPlace())
@click.argument("b", type=OutputPlace())
@click.option("--check", is_flag=True, help="Exit with 1 unless all cells pair and are equal.")
def command(a: Path, b: Path, check: bool) -> int:
    """Pair the cells of the output folders A and B and say what differs, with intervals.

    \b
    Examples:
      bench compare runs runs
      bench compare runs runs --check
    """
    from bench.records.store import RecordStore
    from leaderboard import compare_folders, comparison_text
    from zoo.errors import UsageError

    for folder in (a, b):
        if not RecordStore(folder).paths():
            raise UsageError(f"no records in {folder}", "`bench run` makes some.")
    bad = BadRecords()
    found = compare_folders(a, b, on_bad=bad.append)
    click.echo(comparison_text(found))
    same = found.equal == len(found.pairs) and not found.only_a and not found.only_b
    return bad.code(1 if check and not same else 0)
