"""`bench run --sae`: SAEs that are trained already, on the activations of their model and layer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from bench.cli.how import Again, How
from bench.cli.options import BadRecords, Cells, above, choose, pick_device
from bench.cli.sizes import ranges
from bench.records.mirror import as_shown, mirror_of
from zoo.errors import UsageError

if TYPE_CHECKING:
    from bench.plan.published_saes import Missing, PublishedBlock, PublishedPlan
    from bench.records.published_saes import PublishedRecord, PublishedStore


def look_at(
    saes: Sequence[str], cells: Cells, how: How, again: Again, *, dry_run: bool, as_json: bool
) -> int:
    """Measures what is not done yet, and writes the boards; the exit code."""
    from bench.records.published_saes import PublishedStore

    _refuse(cells, how)
    plan, store = _plan(saes, cells), PublishedStore(cells.output)
    _tell_missing(plan.missing)
    pending = [block.only(_pending(block, store, again)) for block in plan.blocks]
    if dry_run:
        _tell_plan(plan, pending, as_json=as_json)
        return 0
    measured = _measure([block for block in pending if block.cells], cells, how, store)
    specs = [cell.spec for block in plan.blocks for cell in block.cells]
    present = [record for record in map(store.load, specs) if record is not None]
    absent = len(specs) - len(present) + len(plan.missing)
    return _finish(cells, present, measured, absent, as_json=as_json)


def _tell_missing(missing: Sequence[Missing]) -> None:
    """Each reason once, with the SAEs that have it."""
    reasons: dict[str, dict[str, list[int]]] = {}
    for address, layer, error in missing:
        layers = reasons.setdefault(str(error), {}).setdefault(address, [])
        layers += [] if layer is None else [layer]
    for reason, found in reasons.items():
        names = ", ".join(_with_layers(*each) for each in found.items())
        _say(f"{names} not measured: {reason}")


def _with_layers(address: str, layers: Sequence[int]) -> str:
    if not layers:
        return address
    return f"{address} layer{'s' * (len(layers) > 1)} {ranges(sorted(layers))}"


def _refuse(cells: Cells, how: How) -> None:
    """Raises `UsageError` for options of training."""
    given = {
        "--arm": cells.arms,
        "--seed": cells.seeds,
        "--layer-offset": cells.layer_offset is not None,
        "--shard": cells.shard is not None,
        "--save-saes": how.save_saes,
        "--workers": how.workers is not None,
        "--engine": how.engine != "local",
        "--readers": how.readers is not None,
        "--profile": how.profile,
    }
    for option, there in given.items():
        if there:
            raise UsageError(f"{option} is for SAEs that are trained here, not for --sae")


def _plan(saes: Sequence[str], cells: Cells) -> PublishedPlan:
    from bench.plan.blocks import available_memory
    from bench.plan.published_saes import plan_published, sample_protocol

    named: list[Any] = []
    if cells.models or cells.domains or cells.suite:
        named = choose(cells.registry, cells.suite, cells.models, cells.domains)
    request = cells.request_for(named)
    protocol = sample_protocol(request.protocol, cells.settings)
    request = replace(request, protocol=protocol, memory=available_memory())
    return plan_published(saes, request, named, cells.registry)


def _pending(block: PublishedBlock, store: PublishedStore, again: Again) -> list[Any]:
    def is_done(cell: Any) -> bool:
        record = None if again == "force" else store.load(cell.spec)
        return record is not None and (again != "failed" or record.status == "ok")

    return [cell for cell in block.cells if not is_done(cell)]


def _tell_plan(plan: PublishedPlan, pending: Sequence[PublishedBlock], *, as_json: bool) -> None:
    from tabulate import tabulate

    todo = {cell.spec.hash for block in pending for cell in block.cells}
    rows = [
        {
            "sae": cell.name,
            "model": cell.spec.model,
            "layer": cell.spec.layer,
            "state": "to do" if cell.spec.hash in todo else "done",
            "missing": " ".join(map(str, block.block.missing)),
        }
        for block in plan.blocks
        for cell in block.cells
    ]
    click.echo(json.dumps({"saes": rows}, indent=1) if as_json else tabulate(rows, headers="keys"))


def _measure(
    blocks: Sequence[PublishedBlock], cells: Cells, how: How, store: PublishedStore
) -> int:
    """Measures the blocks, keeping each record as it comes; how many were measured."""
    from bench.runner.interrupts import interrupt_on_terminate
    from bench.runner.lock import lock_output
    from bench.runner.published_saes import measure_published
    from bench.runner.settings import Settings

    _tell_each(
        (cell.name, f"not measured: {block.block.error}")
        for block in blocks
        if block.block.error is not None
        for cell in block.cells
    )
    ready = [block for block in blocks if block.block.error is None]
    if not ready:
        return 0
    settings = Settings(pick_device(how.device), how.trust_remote_code, cache=how.cache)
    measured, mirror = 0, mirror_of(cells.output)
    with interrupt_on_terminate(), lock_output(cells.output, _say):
        for block in ready:
            lost = []
            try:
                for record in measure_published(block, settings, _say):
                    measured += record.failure is None
                    if record.failure is not None:
                        state = "not measured" if record.failure.unavailable else "failed"
                        lost.append((record.name, f"{state}: {record.failure}"))
                    if record.failure is None or not record.failure.unavailable:
                        path = store.save(record)
                        if mirror is not None:
                            mirror.push(path)
            finally:
                _tell_each(lost)
    return measured


def _tell_each(lost: Iterable[tuple[str, str]]) -> None:
    """Of SAEs and what became of them: the same once, with the names."""
    found: dict[str, list[str]] = {}
    for name, state in lost:
        found.setdefault(state, []).append(name)
    for state, names in found.items():
        _say(f"{', '.join(names)} {state}")


def _finish(
    cells: Cells,
    present: Sequence[PublishedRecord],
    measured: int,
    absent: int,
    *,
    as_json: bool,
) -> int:
    """Writes the boards and says what there is; 1 if an SAE has no result, 2 if none has."""
    bad = BadRecords()
    boards = above("write_boards")(cells.output, on_bad=bad.append) if present else []
    failed = sum(record.status == "failed" for record in present)
    if as_json:
        counts = {"measured": measured, "failed": failed, "unavailable": absent}
        documents = [record.model_dump(mode="json") for record in present]
        click.echo(json.dumps(counts | {"records": documents}, indent=1))
    elif present:
        click.echo(above("published_summary")(present))
        done = len(present) - failed - measured
        click.echo(
            f"{len(present) + absent} published SAEs: {measured} measured now, {done} done before, "
            f"{failed} failed" + (f", {absent} not measured" if absent else "")
        )
        click.echo(as_shown(f"leaderboards: {boards[0]}"))
    if not present:
        return 2
    return bad.code(1 if failed or absent else 0)


def _say(text: str) -> None:
    click.echo(f"bench: {text}", err=True)
