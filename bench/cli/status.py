"""`bench status`: what an output folder holds; imports no torch."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from bench.cli.options import BadRecords, json_option, output_option
from zoo.errors import UsageError

if TYPE_CHECKING:
    from bench.records.published_saes import PublishedRecord
    from bench.records.schema import Record
    from bench.runner.checkpoints import Saved


# Seconds between two looks of `--watch`, and in a log between two lines where nothing changes.
_WATCH_EVERY, _SAY_EVERY = 2.0, 60.0


class _Row(NamedTuple):
    """What is counted together: a model's cells, those of a limited run apart."""

    model: str
    limit: int | None


@click.command("status")
@output_option
@click.option(
    "--watch",
    is_flag=True,
    help="Again every two seconds, until Ctrl-C; in a log where it changed, or each minute.",
)
@json_option
def command(output: Path, watch: bool, as_json: bool) -> int:
    """How many cells of each model are done and failed, why they failed, and what is half done.

    \b
    Examples:
      bench status
      bench status --watch
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
    with suppress(KeyboardInterrupt):
        if sys.stdout.isatty():
            _watch_live(output)
        else:
            _watch_in_a_log(output)


def _watch_live(output: Path) -> None:
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False) as live:
        while True:
            # Its own words, not the markup of rich.
            live.update(Text(f"{_look(output)}\n{time.strftime('%H:%M:%S')}"), refresh=True)
            time.sleep(_WATCH_EVERY)


def _watch_in_a_log(output: Path) -> None:
    """Nothing can be drawn over there: the table where it changed, else a line now and then."""
    before, said = "", time.monotonic()
    while True:
        shown, now = _look(output), time.monotonic()
        if shown != before:
            click.echo(f"{time.strftime('%H:%M:%S')}\n{shown}\n")
        elif now - said >= _SAY_EVERY:
            click.echo(f"{time.strftime('%H:%M:%S')} as before")
        if shown != before or now - said >= _SAY_EVERY:
            before, said = shown, now
            sys.stdout.flush()
        time.sleep(_WATCH_EVERY)


def _look(output: Path) -> str:
    try:
        return _table(_status(output, again=True)[0])
    except UsageError as error:
        return str(error)


def _status(output: Path, *, again: bool = False) -> tuple[list[dict[str, Any]], int]:
    """A row per model and limit, and the exit code; `again` looks at a URL once more."""
    from bench.records.mirror import mirror_of
    from bench.records.published_saes import PublishedStore
    from bench.records.store import RecordStore
    from bench.runner.checkpoints import saved_states

    mirror = mirror_of(output)
    if again and mirror is not None:
        mirror.pull()
    store, published = RecordStore(output), PublishedStore(output)
    started = {
        _Row(saved.model, saved.limit): saved for saved in reversed(saved_states(output / "state"))
    }
    if not (store.folder.is_dir() or published.folder.is_dir() or started):
        raise UsageError(f"no records in {output}", "`bench run` makes some.")
    done: Counter[_Row] = Counter()
    failed: Counter[_Row] = Counter()
    reasons: dict[_Row, set[str]] = {}
    bad = BadRecords()
    found: list[tuple[str, Record | PublishedRecord]] = [
        *((record.spec.model, record) for record in store.read(bad.append)),
        *((f"{r.spec.model}, published SAEs", r) for r in published.read(bad.append)),
    ]
    for model, record in found:
        counter = done if record.status == "ok" else failed
        row = _Row(model, record.spec.limit)
        counter[row] += 1
        if record.failure is not None:
            reasons.setdefault(row, set()).add(str(record.failure))
    rows: list[dict[str, Any]] = [
        {
            "model": row.model,
            "limit": row.limit,
            "done": done[row],
            "failed": failed[row],
            "why": sorted(reasons.get(row, ())),
            "started": None if row not in started else _started(started[row]),
        }
        for row in sorted({*done, *failed, *started}, key=lambda row: (row.model, row.limit or 0))
    ]
    return rows, bad.code(1 if failed else 0)


def _table(rows: list[dict[str, Any]]) -> str:
    from tabulate import tabulate

    shown = [
        [_named(row), row["done"], row["failed"], row["started"] or "", "; ".join(row["why"])]
        for row in rows
    ]
    return tabulate(shown, headers=["model", "done", "failed", "started", "why"])


def _named(row: dict[str, Any]) -> str:
    """A limited run is a trial, which is not to be taken for the results of the whole."""
    limit = row["limit"]
    return row["model"] if limit is None else f"{row['model']}, LIMITED to {limit:,} tokens"


def _started(saved: Saved) -> str:
    cells = len(saved.cells)
    return f"{cells:,} cell{'s' * (cells != 1)}, step {saved.step:,} of {saved.steps:,}"
