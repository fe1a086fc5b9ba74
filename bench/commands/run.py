"""`bench run`: the main job."""

from __future__ import annotations

import json
from typing import Any

import click

from bench.options import (
    Cells,
    device_option,
    json_option,
    pick_device,
    remote_code_option,
    which_cells,
)
from zoo.errors import UsageError


@click.command("run")
@which_cells
@device_option
@remote_code_option
@click.option("--force", is_flag=True, help="Measure again what is done.")
@click.option("--failed", is_flag=True, help="Measure again what failed.")
@json_option
def command(
    device: str,
    trust_remote_code: bool,
    force: bool,
    failed: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Train raw against centered SAEs on each layer, and write the leaderboard.

    Without options: the embedded suite, in a few minutes on two cores. What is done already is
    not done again; a run that was stopped goes on where it was.
    """
    from bench.run import check_writable, run, todo
    from leaderboard import summary, write_boards

    if force and failed:
        raise UsageError("--force and --failed exclude each other", "--force redoes all.")
    cells = Cells(**options)
    store = cells.store()
    work = todo(cells.blocks(), store, force=force, failed=failed)
    check_writable(store)
    chosen = pick_device(device) if any(item.pending for item in work) else "cpu"
    measured = 0
    for record in run(work, store, device=chosen, trust_remote_code=trust_remote_code):
        measured += 1
        if record.failure is not None:
            spec = record.spec
            where = f"{spec.model} layer {spec.layer} {spec.arm} seed {spec.seed}"
            click.echo(f"bench: {where} failed: {record.failure}", err=True)
    records = [store.load(spec) for item in work for spec in item.block.specs]
    present = [record for record in records if record is not None]
    boards = write_boards(cells.output)
    failures = sum(record.status == "failed" for record in present)
    counts = {"cells": len(records), "measured": measured, "failed": failures}
    if as_json:
        documents = [record.model_dump(mode="json") for record in present]
        click.echo(json.dumps(counts | {"records": documents}, indent=1))
    else:
        click.echo(summary(present))
        click.echo(
            f"{counts['cells']} cells: {measured} measured now, "
            f"{len(records) - measured} done before, {failures} failed"
        )
        click.echo(f"leaderboards: {boards[0]}")
        if failures:
            click.echo("bench run --failed measures the failed cells again")
    return 1 if failures else 0
