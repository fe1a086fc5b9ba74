"""`bench convert SAE --to LIBRARY OUT`: an SAE in another library's files."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from bench.cli.options import ANY_PATH
from bench.sae.interop import LIBRARIES, READ_ONLY
from zoo.errors import BadWeights, UsageError
from zoo.files import write_atomically

_WRITTEN = [name for name in LIBRARIES if name not in READ_ONLY]


@click.command("convert")
@click.argument("sae")
@click.argument("out", type=ANY_PATH)
@click.option("--to", required=True, type=click.Choice(_WRITTEN), help="Whose files are written.")
@click.option(
    "--push-to-hub",
    "repository",
    metavar="OWNER/NAME",
    help="Also upload OUT to this new repository, with a model card.",
)
@click.option("--licence", metavar="ID", help="The licence in the model card: mit, apache-2.0, ...")
@click.option(
    "--record",
    type=ANY_PATH,
    metavar="FILE",
    help="The numbers in the model card [the record of the run that kept SAE].",
)
@click.option("--private", is_flag=True, help="Make the repository a private one.")
@click.option("--existing", is_flag=True, help="Add a commit to a repository that exists.")
def command(
    sae: str,
    out: Path,
    to: str,
    repository: str | None,
    licence: str | None,
    record: Path | None,
    private: bool,
    existing: bool,
) -> None:
    """Write SAE as OUT in the files of another library.

    SAE is a folder or file of any library named below, or hub:OWNER/NAME[/FOLDER][@REVISION].
    What was written is read again and compared, and the difference is printed; what the other
    format cannot say is refused. (`bench export` is something else: the table of all cells.)

    With --push-to-hub OUT becomes a repository of the hub, with a model card that says gamma, who
    is dead, FVU, arm and record.

    \b
    Examples:
      bench convert sae out --to saelens
      bench convert sae out --to sparsify
    """
    from bench.sae.interop import library, read_sae
    from bench.sae.interop.check import compare_codes
    from bench.sae.interop.hub import sae_path
    from bench.sae.interop.model_card import find_record, model_card
    from bench.sae.interop.push import check_repository, push_folder

    given = {"--licence": licence, "--record": record, "--private": private, "--existing": existing}
    for option, there in given.items():
        if there and repository is None:
            raise UsageError(f"{option} is about a repository", "Name it with --push-to-hub.")
    if repository is not None:
        check_repository(repository)
    place = sae_path(sae)
    try:
        found, origin, name = read_sae(place)
    except BadWeights as error:  # what was to be converted is the request itself
        raise UsageError(error.message, error.remedy) from None
    measured = find_record(place, origin, record) if repository else None
    remarks = library(to).write(found, out, origin)
    try:
        again, _ = library(to).read(out)
    except Exception:  # it cannot be trusted, and would be in the way of another try
        shutil.rmtree(out) if out.is_dir() else out.unlink()
        raise
    click.echo(f"{out}: {name} to {to}, {found.family.name}, n {found.n:,}, width {found.width:,}")
    for remark in remarks:
        click.echo(f"note: {remark}")
    click.echo(str(compare_codes(found, again)))
    if repository is not None:
        text = model_card(found, origin, to, measured, licence)
        write_atomically(out / "README.md", text, place="as OUT")
        where = push_folder(out, repository, private=private, existing=existing)
        click.echo(f"pushed: {where}")
