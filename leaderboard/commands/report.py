"""`bench report`: the leaderboards from the records; imports no torch."""

from __future__ import annotations

import os
import webbrowser
from pathlib import Path

import click

from bench.cli.options import BadRecords, output_option


@click.command("report")
@output_option
@click.option("--check", is_flag=True, help="Write nothing; fail if the boards are not current.")
@click.option("--open", "opened", is_flag=True, help="Show the page in the browser.")
def command(output: Path, check: bool, opened: bool) -> int:
    """Write leaderboards, figures and a page to DIR/leaderboards from the records in DIR/records.

    \b
    Examples:
      bench report
      bench report --open
      bench report --check
    """
    from bench.records.mirror import as_shown
    from bench.records.published_saes import PublishedStore
    from bench.records.store import RecordStore
    from leaderboard import check_boards, figures_available, write_boards
    from leaderboard.boards import BOARDS_FOLDER
    from leaderboard.web.page import PAGE_FOLDER
    from zoo.errors import UsageError
    from zoo.install import install_line

    if not (RecordStore(output).paths() or PublishedStore(output).paths()):
        raise UsageError(f"no records in {output}", "`bench run` makes some.")
    bad = BadRecords()
    if check and opened:
        raise UsageError("--check and --open exclude each other", "--check writes nothing.")
    if check:
        stale = check_boards(output, on_bad=bad.append)
        for line in stale:
            click.echo(f"bench: {line}", err=True)
        if stale:
            click.echo("bench: `bench report` brings the leaderboards up to date", err=True)
        return bad.code(1 if stale else 0)
    if not figures_available():
        click.echo(f"bench: no figures: matplotlib is missing ({install_line('plot')})", err=True)
    files = write_boards(output, processes=os.cpu_count() or 1, on_bad=bad.append)
    page = output / BOARDS_FOLDER / PAGE_FOLDER / "index.html"
    click.echo(as_shown(f"{len(files)} files, {files[0]}, and as a page {page}"))
    if opened and not webbrowser.open(page.resolve().as_uri()):
        click.echo(f"bench: no browser can be opened here; open {page}", err=True)
    return bad.code(0)
