"""`bench run`: the main job."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli.options import (
    BadRecords,
    Cells,
    above,
    cache_option,
    device_option,
    json_option,
    pick_device,
    remote_code_option,
    which_cells,
)
from bench.runner.engines import ENGINE_NAMES, EngineName
from zoo.errors import UsageError
from zoo.install import install_line

if TYPE_CHECKING:
    from bench.records.spec import Spec


@click.command("run")
@which_cells
@cache_option
@device_option
@remote_code_option
@click.option("--force", is_flag=True, help="Measure again what is done.")
@click.option("--failed", is_flag=True, help="Measure again what failed.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done, as `bench plan` does.")
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Processes of this machine, a block each; they share its threads. "
    "[1; for small SAEs on a CPU one per thread]",
)
@click.option(
    "--engine",
    type=click.Choice(ENGINE_NAMES),
    default="local",
    show_default=True,
    help="Where blocks run: here, in what `accelerate launch` started, or on a Ray cluster.",
)
@click.option(
    "--save-saes",
    is_flag=True,
    help="Keep the trained SAEs, in DIR/saes, each with a table of its features.",
)
@click.option(
    "--checkpoint-every",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How often a block in training is saved, to go on from there.",
)
@json_option
def command(
    cache: Path | None,
    device: str,
    trust_remote_code: bool,
    force: bool,
    failed: bool,
    dry_run: bool,
    workers: int | None,
    engine: EngineName,
    save_saes: bool,
    checkpoint_every: float,
    as_json: bool,
    **options: Any,
) -> int:
    """Train raw against centered SAEs on each layer, and write the leaderboard.

    Without options: the embedded suite, in a minute or two on two cores. What is done already is
    not done again; a run that was stopped resumes.

    \b
    Examples:
      bench run tiny-gpt2
      bench run protein --layer 1 --set n=1k --set steps=200
      bench run tiny-gpt2 --limit 5k --arm raw --arm whitened --dry-run
    """
    from bench.cli.plan import print_plan
    from bench.runner.engines import auto_workers, make_engine, start_imports_early
    from bench.runner.run import check_writable, run, todo
    from bench.runner.settings import Settings

    if force and failed:
        raise UsageError("--force and --failed exclude each other", "--force redoes all.")
    cells = Cells(**options)
    store = cells.store()
    if workers is not None and engine != "local":
        raise UsageError(f"--workers is for the local engine, not for {engine}")
    saes = cells.output / "saes" if save_saes else None
    work = todo(cells.blocks(workers or 1), store, force=force, failed=failed, saes=saes)
    if dry_run:
        print_plan(work, cells, cache, as_json=as_json)
        return 0
    pending = [item.block for item in work if item.pending]
    check_writable(store)
    if engine == "local":
        start_imports_early(pending, workers, device)
    settings = Settings(
        # Which device there is takes torch to find out; where nothing is to be done, a device
        # that was named must still be there.
        device=pick_device(device) if pending or device not in ("auto", "cpu") else "cpu",
        trust_remote_code=trust_remote_code,
        states=cells.output / "state",
        save_every=checkpoint_every,
        saes=saes,
        cache=cache,
    )
    if workers is None:
        workers = auto_workers(pending, settings.device)
    where = make_engine(engine, workers=workers)
    measured = 0
    for record in run(work, store, settings, where):
        if record.failure is None:
            measured += 1
        else:
            spec = record.spec
            cell = f"{spec.model} layer {spec.layer} {spec.arm} seed {spec.seed}"
            click.echo(f"bench: {cell} failed: {record.failure}", err=True)
    if not where.leads:
        return 0
    specs = [spec for item in work for spec in item.block.specs]
    return _finish(cells, specs, measured, as_json)


def _finish(cells: Cells, specs: Sequence[Spec], measured: int, as_json: bool) -> int:
    """Writes the boards and says what there is; 1 if a cell has failed."""
    store = cells.store()
    present = [record for spec in specs if (record := store.load(spec)) is not None]
    bad = BadRecords()
    boards = above("write_boards")(cells.output, on_bad=bad.append)
    failures = sum(record.status == "failed" for record in present)
    counts = {"cells": len(specs), "measured": measured, "failed": failures}
    if as_json:
        documents = [record.model_dump(mode="json") for record in present]
        click.echo(json.dumps(counts | {"records": documents}, indent=1))
    else:
        click.echo(above("summary")(present))
        click.echo(
            f"{len(specs)} cells: {measured} measured now, "
            f"{len(specs) - measured - failures} done before, {failures} failed"
        )
        click.echo(f"leaderboards: {boards[0]}")
        if not above("figures_available")():
            click.echo(
                f"no figures: matplotlib is not installed ({install_line('plot')}; then `bench "
                "report`)"
            )
        if failures:
            click.echo("bench run --failed measures the failed cells again")
    return bad.code(1 if failures else 0)
