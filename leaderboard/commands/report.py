"""`bench report`: the leaderboards from the records; imports no torch."""

from __future__ import annotations

import os
from pathlib import Path

import click

from bench.cli.options import BadRecords, output_option


@click.command("report")
@output_option
@click.option("--check", is_flag=True, help="Write nothing; fail if the boards are not current.")
def command(output: Path, check: bool) -> int:
    """Write the markdown leaderboards under DIR/leaderboards from the records under DIR/records."""
    from bench.records.store import RecordStore
    from leaderboard import check_boards, write_boards
    from zoo.errors import UsageError

    if not RecordStore(output).paths():
        raise UsageError(f"no records in {output}", "`bench run` makes some.")
    bad = BadRecords()
    if check:
        stale = check_boards(output, on_bad=bad.append)
        for line in stale:
            click.echo(f"bench: {line}", err=True)
        if stale:
            click.echo("bench: `bench report` brings the leaderboards up to date", err=True)
        return bad.code(1 if stale else 0)
    for path in write_boards(output, processes=os.cpu_count() or 1, on_bad=bad.append):
        click.echo(path)
    return bad.code(0)
