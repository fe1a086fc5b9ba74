"""`bench export`: all cells as one table, with its data dictionary."""

from __future__ import annotations

from pathlib import Path

import click

from bench.cli.options import FOLDER_PATH, BadRecords, output_option


@click.command("export")
@output_option
@click.option("--to", type=FOLDER_PATH, metavar="DIR", help="Where the files go [DIR/export].")
@click.option(
    "--format",
    "formats",
    multiple=True,
    type=click.Choice(["csv", "json", "parquet"]),
    default=("csv",),
    show_default=True,
    help="May be given again.",
)
def command(output: Path, to: Path | None, formats: tuple[str, ...]) -> int:
    """Write every cell of DIR as a row, and what each column means.

    \b
    Examples:
      bench export
      bench export --format json --format csv --to tables
    """
    from bench.records.mirror import mirror_of
    from bench.records.published_saes import PublishedStore
    from bench.records.store import RecordStore
    from leaderboard import export_cells
    from zoo.errors import UsageError

    if not (RecordStore(output).paths() or PublishedStore(output).paths()):
        raise UsageError(f"no records in {output}", "`bench run` makes some.")
    if to is None and mirror_of(output) is not None:
        raise UsageError("of an output at a URL the tables go into a folder here", "Give --to DIR.")
    bad = BadRecords()
    folder = to or output / "export"
    for path in export_cells(output, folder, formats, on_bad=bad.append):  # type: ignore[arg-type]
        click.echo(path)
    return bad.code(0)
