"""`bench plan`: what a run would do; imports no torch, runs nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli.options import Cells, cache_option, json_option, shard_option, which_cells

if TYPE_CHECKING:
    from bench.runner.run import Todo


@click.command("plan")
@which_cells
@shard_option
@cache_option
@json_option
def command(cache: Path | None, as_json: bool, **options: Any) -> None:
    """What a run would do, what is done, the memory it takes, and what is missing.

    \b
    Examples:
      bench plan
      bench plan tiny-gpt2 --layer 1 --arm raw --arm whitened
      bench plan protein --protocol paper --limit 20k
    """
    from bench.runner.run import todo

    cells = Cells(**options)
    print_plan(todo(cells.blocks(), cells.store()), cells, cache, as_json=as_json)


def print_plan(work: Sequence[Todo], cells: Cells, cache: Path | None, *, as_json: bool) -> None:
    """A row for each block: what is done of it, and what a run would do."""
    from bench.plan.blocks import available_memory

    def row(item: Todo) -> dict[str, Any]:
        block = item.block
        return {
            "model": block.card.id,
            "data": block.data,
            "layers": block.layers,
            "published_layers": cells.published_layers(block),
            "cells": len(block.specs),
            "done": item.count("done"),
            "failed": item.count("failed"),
            "steps": block.steps * len(item.pending),
            "memory": block.memory,
            **({} if cache is None else _cached(block, cache)),
            "missing": " ".join(map(str, block.missing)),
        }

    rows = [row(item) for item in work]
    if as_json:
        click.echo(json.dumps({"blocks": rows, "memory_available": available_memory()}, indent=1))
        return
    click.echo(_table(rows))
    total, done = sum(r["cells"] for r in rows), sum(r["done"] for r in rows)
    layers = sum(len(r["layers"]) for r in rows)
    shard = f"shard {cells.shard}: " if cells.shard else ""
    click.echo(
        f"{shard}{layers} layers, {total} cells, {done} done, "
        f"{sum(r['failed'] for r in rows)} failed; "
        f"{sum(r['steps'] for r in rows):,} training steps to do"
    )


def _cached(block: Any, cache: Path) -> dict[str, Any]:
    from bench.activations.cache import cache_bytes, hits

    return {"cache_size": cache_bytes(block), "cached_layers": hits(block, cache)}


def _cache_columns(row: dict[str, Any]) -> dict[str, str]:
    if "cache_size" not in row:
        return {}
    found, layers = row["cached_layers"], len(row["layers"])
    state = "hit" if found == layers else f"{found} of {layers} layers" if found else "miss"
    return {"cache": f"{state}, {row['cache_size'] / 2**20:,.0f} MiB"}


def _table(rows: list[dict[str, Any]]) -> str:
    from tabulate import tabulate

    published = any(_known(row["published_layers"]) for row in rows)
    shown = [
        {
            "model": row["model"],
            "data": row["data"],
            "layers": ranges(row["layers"]),
            **({"published as": _known(row["published_layers"])} if published else {}),
            "cells": row["cells"],
            "done": row["done"],
            "failed": row["failed"],
            "memory": f"{row['memory'] / 2**20:,.0f} MiB",
            **_cache_columns(row),
            "missing": row["missing"],
        }
        for row in rows
    ]
    return tabulate(shown, headers="keys")


def _known(numbers: list[int | None]) -> str:
    return ranges([number for number in numbers if number is not None])


def ranges(numbers: list[int]) -> str:
    """Sorted numbers in short: [0, 1, 2, 5] is `0-2, 5`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{r[0]}-{r[-1]}" if len(r) > 1 else str(r[0]) for r in runs)
