"""`bench status`: what an output folder holds; imports no torch."""

from __future__ import annotations

import json
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli.options import BadRecords, json_option, output_option
from zoo.errors import UsageError

if TYPE_CHECKING:
    from bench.records.published_saes import PublishedRecord
    from bench.records.schema import Record
    from bench.runner.checkpoints import Saved


# Seconds between two looks of `--watch`.
_WATCH_EVERY = 2.0


@click.command("status")
@output_option
@click.option("--watch", is_flag=True, help="Again every two seconds, until Ctrl-C.")
@json_option
def command(output: Path, watch: bool, as_json: bool) -> int:
    """How many cells of each model are done and failed, why they failed, and what is half done.

    \b
    Examples:
      bench status
      bench status --json
    """
    if watch and as_json:
        raise UsageError("--watch and --json exclude each other", "--json is printed once.")
    if watch:
        _watch(output)
    rows, code = _status(output)
    click.echo(json.dumps(rows, indent=1) if as_json else _table(rows))
    return code


def _watch(output: Path) -> None:
    """Shows the table until somebody interrupts; a folder may still be empty."""
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False) as live, suppress(KeyboardInterrupt):
        while True:
            try:
                shown = _table(_status(output, again=True)[0])
            except UsageError as error:
                shown = str(error)
            # Its own words, not the markup of rich.
            live.update(Text(f"{shown}\n{time.strftime('%H:%M:%S')}"), refresh=True)
            time.sleep(_WATCH_EVERY)


def _status(output: Path, *, again: bool = False) -> tuple[list[dict[str, Any]], int]:
    """A row per model, and the exit code; `again` looks at a URL once more."""
    from bench.records.mirror import mirror_of
    from bench.records.published_saes import PublishedStore
    from bench.records.store import RecordStore
    from bench.runner.checkpoints import saved_states

    mirror = mirror_of(output)
    if again and mirror is not None:
        mirror.pull()
    store, published = RecordStore(output), PublishedStore(output)
    started = {saved.model: saved for saved in reversed(saved_states(output / "state"))}
    if not (store.folder.is_dir() or published.folder.is_dir() or started):
        raise UsageError(f"no records in {output}", "`bench run` makes some.")
    done: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    reasons: dict[str, set[str]] = {}
    bad = BadRecords()
    found: list[tuple[str, Record | PublishedRecord]] = [
        *((record.spec.model, record) for record in store.read(bad.append)),
        *((f"{r.spec.model}, published SAEs", r) for r in published.read(bad.append)),
    ]
    for model, record in found:
        counter = done if record.status == "ok" else failed
        counter[model] += 1
        if record.failure is not None:
            reasons.setdefault(model, set()).add(str(record.failure))
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
    return rows, bad.code(1 if failed else 0)


def _table(rows: list[dict[str, Any]]) -> str:
    from tabulate import tabulate

    shown = [
        [row["model"], row["done"], row["failed"], row["started"] or "", "; ".join(row["why"])]
        for row in rows
    ]
    return tabulate(shown, headers=["model", "done", "failed", "started", "why"])


def _started(saved: Saved) -> str:
    return f"{len(saved.cells)} cells, step {saved.step} of {saved.steps}"
