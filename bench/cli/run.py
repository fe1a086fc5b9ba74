"""`bench run`: the main job."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import click

from bench.cli.failures import FailureReport, again_with
from bench.cli.how import Again, How
from bench.cli.options import (
    BadRecords,
    Cells,
    above,
    budget_option,
    cache_option,
    device_option,
    json_option,
    pick_device,
    remote_code_option,
    shard_option,
    which_cells,
)
from bench.cli.output import text_width
from bench.records.mirror import as_shown, mirror_of
from bench.runner.engines import ENGINE_NAMES
from bench.runner.progress import show_progress
from zoo.errors import UsageError
from zoo.install import install_line

if TYPE_CHECKING:
    from bench.plan.blocks import Block
    from bench.records.spec import Spec
    from bench.runner.engines import Engine
    from bench.runner.progress import RunProgress
    from bench.runner.run import Todo


@click.command("run")
@which_cells
@click.option(
    "--sae",
    "saes",
    multiple=True,
    metavar="SAE",
    help="Train nothing: look at this SAE, a name of `bench list saes`, a folder, or "
    "hub:OWNER/NAME[/FOLDER][@REVISION]. May be given again.",
)
@shard_option
@cache_option
@budget_option
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
    "--readers",
    type=click.IntRange(0, 64),
    help="Threads that read, decode and tokenise ahead of the model, which then works ahead of the "
    "training. [0 on a CPU, up to 4 beside a GPU]",
)
@click.option(
    "--engine",
    type=click.Choice(ENGINE_NAMES),
    default="local",
    show_default=True,
    help="Where blocks run: here, in what `accelerate launch` started, or on a Ray cluster.",
)
@click.option(
    "--divide-rows",
    is_flag=True,
    help="With --engine accelerate: all processes measure each block together, with a part of "
    "every dictionary's rows each. By default only where one SAE does not fit a device.",
)
@click.option(
    "--save-saes",
    is_flag=True,
    help="Keep the trained SAEs, in DIR/saes, each with a table of its features.",
)
@click.option(
    "--profile",
    is_flag=True,
    help="Say where each block's time went, with a trace that Perfetto opens, in DIR/profile.",
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
    saes: tuple[str, ...],
    force: bool,
    failed: bool,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Train raw against centered SAEs on each layer, and write the leaderboard.

    Without options: the embedded suite, in a minute or two on two cores. What is done already is
    not done again; a run that was stopped resumes.

    With --sae: who is dead in an SAE that is trained already, by which path, on the activations of
    its model and layer (as its files say, or --model and --layer), and what centering would have
    saved.

    \b
    Examples:
      bench run tiny-gpt2
      bench run protein --layer 1 --set n=1k --set steps=200
      bench run tiny-gpt2 --limit 5k --arm raw --arm whitened --dry-run
    """
    if force and failed:
        raise UsageError("--force and --failed exclude each other", "--force redoes all.")
    how = How(**{each.name: options.pop(each.name) for each in fields(How)})
    if how.workers is not None and how.engine != "local":
        raise UsageError(f"--workers is for the local engine, not for {how.engine}")
    if how.divide_rows and how.engine != "accelerate":
        raise UsageError(
            "--divide-rows is for processes that accelerate launch has started",
            "Say --engine accelerate too.",
        )
    cells = Cells(**options)
    if saes:
        from bench.cli.published_saes import look_at

        again: Again = "force" if force else "failed" if failed else None
        return look_at(saes, cells, how, again, dry_run=dry_run, as_json=as_json)
    kept = cells.output / "saes" if how.save_saes else None
    which = {"force": force, "failed": failed, "saes": kept}
    if dry_run:
        from bench.cli.plan import print_plan
        from bench.plan.devices import named_device

        work = _todo(cells, how, which)
        print_plan(work, cells, how.cache, named_device("cpu"), as_json=as_json)
        return 0
    # Of the processes that a launcher has started, the first speaks.
    with show_progress(shown=os.environ.get("RANK", "0") == "0") as progress:
        work = _todo(cells, how, which)
        if cells.shard and not work:
            progress.note(f"shard {cells.shard} has no cell: there are fewer than shards")
        where, measured, elsewhere = _measure(work, cells, how, progress)
    if not where.leads:
        return 0
    specs = [spec for item in work for spec in item.block.specs]
    return _finish(cells, specs, measured, elsewhere, as_json)


def _todo(cells: Cells, how: How, which: dict[str, Any]) -> list[Todo]:
    from bench.plan.devices import this_device
    from bench.runner.run import todo

    workers = how.workers or 1
    if how.budget is None:
        blocks = cells.blocks(workers)
    else:
        device = this_device(pick_device(how.device))
        blocks = cells.within(how.budget, device, workers=workers)
    return todo(blocks, cells.store(), bad_corpus=cells.skip_bad > 0, **which)


def _measure(
    work: Sequence[Todo], cells: Cells, how: How, progress: RunProgress
) -> tuple[Engine, int, set[str]]:
    """Runs what is pending: where that was, how many cells were measured, and the hashes of those
    that another run is at work on."""
    from bench.runner.engines import auto_workers, make_engine
    from bench.runner.run import announce, check_writable, pending_blocks, run

    failures = FailureReport(progress.note)
    failures.leave_out(item.block.only(item.pending) for item in work if item.pending)
    pending = [item.block for item in work if item.can_run]
    if pending:
        check_writable(cells.store())
    if how.engine == "local" and how.device in ("auto", "cpu"):
        # Nothing can be refused any more; else the run tells of its blocks, once all is looked at.
        announce(progress, pending_blocks(work), work)
    settings = how.settings(_device(pending, how, progress), cells.output)
    workers = how.workers or auto_workers(pending, settings.device)
    where = make_engine(how.engine, workers=workers, divide_rows=how.divide_rows)
    measured, elsewhere = 0, set()
    for record in run(work, cells.store(), settings, where, progress):
        measured += record.failure is None
        if record.failure is not None and record.failure.is_elsewhere:
            elsewhere.add(record.hash)
        failures.add(record)
    failures.tell()
    return where, measured, elsewhere


def _device(pending: Sequence[Block], how: How, progress: RunProgress) -> str:
    """The device to run on. Until then nothing was imported that takes seconds."""
    from bench.runner.engines import start_imports_early

    if how.engine == "local":
        start_imports_early(pending, how.workers, how.device)
    # A device that was named must be there, even where nothing is left to do.
    if not pending and how.device in ("auto", "cpu"):
        return "cpu"
    progress.say("loading torch")
    return pick_device(how.device)


def _finish(
    cells: Cells, specs: Sequence[Spec], measured: int, elsewhere: set[str], as_json: bool
) -> int:
    """Writes the boards and says what there is; 1 if a cell has no result, 2 if none has.

    What another run is at work on is that run's.
    """
    if (mirror := mirror_of(cells.output)) is not None:
        mirror.pull()  # what other runs have measured
    store = cells.store()
    found = (store.load(spec) for spec in specs)
    present = [r for r in found if r is not None and not (r.failure and r.failure.unavailable)]
    failed = sum(record.status == "failed" for record in present)
    counts = {
        "cells": len(specs),
        "measured": measured,
        "failed": failed,
        "unavailable": len(specs) - len(present),
    }
    bad = BadRecords()
    boards = above("write_boards")(cells.output, on_bad=bad.append) if present else []
    if as_json:
        documents = [record.model_dump(mode="json") for record in present]
        click.echo(json.dumps(counts | {"records": documents}, indent=1))
    elif present:
        click.echo(above("summary")(present, width=text_width()))
        click.echo(_counted(counts, done=len(present) - failed - measured))
        click.echo(as_shown(f"leaderboards: {boards[0]}"))
        if not above("figures_available")():
            click.echo(
                f"no figures: matplotlib is not installed ({install_line('plot')}; then `bench "
                "report`)"
            )
        if failed:
            command = again_with("--failed", without=["--force"])
            click.echo(f"{command} measures the failed cells again")
    lacking = {spec.hash for spec in specs} - {record.hash for record in present} - elsewhere
    if not present:
        return 2 if lacking else 0
    return bad.code(1 if failed or lacking else 0)


def _counted(counts: dict[str, int], done: int) -> str:
    rest, cells = counts["unavailable"], counts["cells"]
    return (
        f"{cells} cell{'s' * (cells != 1)}: {counts['measured']} measured now, {done} done before, "
        f"{counts['failed']} failed" + (f", {rest} not measured" if rest else "")
    )
