"""`bench status`: what an output folder holds; imports no torch."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli.options import BadRecords, json_option, output_option

if TYPE_CHECKING:
    from bench.runner.checkpoints import Saved


@click.command("status")
@output_option
@json_option
def command(output: Path, as_json: bool) -> int:
    """How many cells of each model are done and failed, why they failed, and what is half done."""
    from bench.records.store import RecordStore
    from bench.runner.checkpoints import saved_states
    from zoo.errors import UsageError

    store = RecordStore(output)
    started = {saved.model: saved for saved in reversed(saved_states(output / "state"))}
    if not store.folder.is_dir() and not started:
        raise UsageError(f"no records in {output}", "`bench run` makes some.")
    done: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    reasons: dict[str, set[str]] = {}
    bad = BadRecords()
    for record in store.read(bad.append):
        counter = done if record.status == "ok" else failed
        counter[record.spec.model] += 1
        if record.failure is not None:
            reasons.setdefault(record.spec.model, set()).add(str(record.failure))
    rows: list[dict[str, Any]] = [
        {
            "model": model,
            "done": done[model],
            "failed": failed[model],
            "why": sorted(reasons.get(model, ())),
            "started": None if model not in started else _started(started[model]),
        }
        for model in sorted({*done, *failed, *started})
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    else:
        from tabulate import tabulate

        shown = [
            [row["model"], row["done"], row["failed"], row["started"] or "", "; ".join(row["why"])]
            for row in rows
        ]
        click.echo(tabulate(shown, headers=["model", "done", "failed", "started", "why"]))
    return bad.code(1 if failed else 0)


def _started(saved: Saved) -> str:
    return f"{len(saved.cells)} cells, step {saved.step} of {saved.steps}"
