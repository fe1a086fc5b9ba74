"""`bench convert SAE --to LIBRARY OUT`: an SAE in another library's files."""

from __future__ import annotations

from pathlib import Path

import click

from bench.cli.options import ANY_PATH
from bench.sae.interop import LIBRARIES, READ_ONLY

_WRITTEN = [name for name in LIBRARIES if name not in READ_ONLY]


@click.command("convert")
@click.argument("sae")
@click.argument("out", type=ANY_PATH)
@click.option("--to", required=True, type=click.Choice(_WRITTEN), help="Whose files are written.")
def command(sae: str, out: Path, to: str) -> None:
    """Write SAE as OUT in the files of another library.

    SAE is a folder or file of any library named below, or hub:ID[/FOLDER][@REVISION]. What was
    written is read again and compared, and the difference is printed; what the other format
    cannot say is refused. (`bench export` is something else: the table of all cells.)

    \b
    Examples:
      bench convert sae out --to saelens
      bench convert sae out --to sparsify
    """
    from bench.sae.interop import library, read_sae
    from bench.sae.interop.check import compare_codes
    from bench.sae.interop.hub import sae_path

    place = sae_path(sae)
    found, origin, name = read_sae(place)
    remarks = library(to).write(found, out, origin)
    again, _ = library(to).read(out)
    click.echo(f"{out}: {name} to {to}, {found.family.name}, n {found.n:,}, width {found.width:,}")
    for remark in remarks:
        click.echo(f"note: {remark}")
    click.echo(str(compare_codes(found, again)))
