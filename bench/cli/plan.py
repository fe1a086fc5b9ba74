"""`bench plan`: what a run would do, and what it costs. Runs nothing; imports no torch, unless this
machine is to be measured."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli.options import (
    Cells,
    budget_option,
    cache_option,
    json_option,
    shard_option,
    which_cells,
)
from bench.cli.output import text_width
from bench.cli.sizes import decimal_size, power_of_ten, ranges

if TYPE_CHECKING:
    from bench.plan.costs import Cost
    from bench.plan.devices import Device
    from bench.runner.run import Todo


@click.command("plan")
@which_cells
@shard_option
@click.option(
    "--on",
    default="cpu",
    show_default=True,
    metavar="DEVICE",
    help="How long it takes there: h100, h200, a100, l40s, rtx4090, cpu (of as many cores as here) "
    "or this, which is measured for some seconds.",
)
@budget_option
@cache_option
@json_option
def command(
    on: str, budget: float | None, cache: Path | None, as_json: bool, **options: Any
) -> None:
    """What a run would do, what is done, what it costs, and what is missing.

    Costs are of what is still to be measured, counted from its sizes. A graphics card's rates are
    its published peaks times a stated share, not checked against runs on one.

    \b
    Examples:
      bench plan
      bench plan tiny-gpt2 --layer 1 --arm raw --arm whitened
      bench plan protein --protocol paper --limit 20k --on h100
    """
    from bench.plan.devices import named_device
    from bench.runner.run import todo

    device = named_device(on)
    cells = Cells(**options)
    blocks = cells.within(budget, device, memory=device.capacity)
    print_plan(
        todo(blocks, cells.store(), bad_corpus=cells.skip_bad > 0),
        cells,
        cache,
        device,
        as_json=as_json,
    )


def print_plan(
    work: Sequence[Todo], cells: Cells, cache: Path | None, device: Device, *, as_json: bool
) -> None:
    """A row for each model: what is done of it, and what a run would do and cost."""
    from bench.plan.blocks import available_memory
    from bench.plan.costs import run_seconds, total

    rows = [_row(item, cells, cache, device) for item in work]
    downloads = _downloads(work)
    pending = [item.block.only(item.pending) for item in work if item.pending]
    whole = replace(total(row["cost"] for row in rows), seconds=run_seconds(pending, device))
    if as_json:
        blocks = [row | {"cost": _numbers(row["cost"])} for row in rows]
        document = {
            "blocks": blocks,
            "downloads": downloads,
            "device": device.name,
            "total": _numbers(whole),
            "memory_available": available_memory(),
        }
        click.echo(json.dumps(document, indent=1))
        return
    reasons = _reasons(work)
    click.echo(_table(_by_model(rows), downloads, reasons))
    _say_missing(reasons)
    _say_divided(work, device)
    _say_totals(rows, whole, downloads, device, cells.shard)


def _row(item: Todo, cells: Cells, cache: Path | None, device: Device) -> dict[str, Any]:
    from bench.plan.costs import cost_of

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
        "memory": block.memory_on(card=device.is_card),
        "cost": cost_of([block.only(item.pending)] if item.pending else [], device),
        **({} if cache is None else _cached(block, cache)),
        "missing": " ".join(map(str, block.missing)),
    }


def _numbers(cost: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return {key: round(value) if value > 100 else value for key, value in asdict(cost).items()}


def _cached(block: Any, cache: Path) -> dict[str, Any]:
    from bench.activations.cache import hits
    from bench.plan.work import cache_bytes

    return {"cache_size": cache_bytes(block), "cached_layers": hits(block, cache)}


def _downloads(work: Sequence[Todo]) -> dict[str, int | None]:
    """Bytes that are to be fetched by model, None where the hub was not there to say."""
    from zoo import hub
    from zoo.errors import HubUnreachable, ModelError

    found: dict[str, int | None] = {}
    reachable = True
    for item in work:
        block = item.block
        place = block.card.checkpoint
        if block.card.id in found:
            continue
        found[block.card.id] = None if place.source == "user" and not block.weights else 0
        if place.source != "hub" or block.weights is not None or not item.pending:
            continue
        found[block.card.id] = None
        try:
            if reachable:
                files = hub.files(hub.HubRepository.of(block.card))
                found[block.card.id] = sum(file.bytes for file in files if not file.cached)
        except HubUnreachable:
            reachable = False
        except ModelError:
            continue
    return found


# --------------------------------------------------------------------------------- for a reader


def _by_model(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of one model's blocks as one."""
    from bench.plan.costs import total

    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["model"], []).append(row)
    return [
        {
            "model": model,
            "data": own[0]["data"],
            "layers": sorted({number for row in own for number in row["layers"]}),
            "published_layers": sorted(
                {n for row in own for n in row["published_layers"] if n is not None}
            ),
            **{key: sum(row[key] for row in own) for key in ("cells", "done", "failed")},
            "memory": max(row["memory"] for row in own),
            "cost": total(row["cost"] for row in own),
            **{
                key: sum(row[key] for row in own)
                for key in ("cache_size", "cached_layers")
                if key in own[0]
            },
        }
        for model, own in found.items()
    ]


def _table(
    rows: list[dict[str, Any]],
    downloads: dict[str, int | None],
    reasons: dict[str, tuple[str, dict[str, str]]],
) -> str:
    from tabulate import tabulate

    from bench.runner.progress import in_words

    numbered = list(enumerate(reasons.values(), start=1))
    shown = []
    for row in rows:
        cost, size = row["cost"], downloads[row["model"]]
        lacks = [str(number) for number, (_, models) in numbered if row["model"] in models]
        shown.append(
            {
                "model": row["model"],
                "data": row["data"] or "",
                "layers": ranges(row["layers"]),
                "table": ranges(row["published_layers"]),
                "cells": row["cells"],
                "done": row["done"],
                "failed": row["failed"] or "",
                "passes": cost.passes or "",
                "memory": f"{row['memory'] / 2**30:,.1f} GiB",
                "download": "unknown" if size is None else decimal_size(size) if size else "",
                "forward": power_of_ten(cost.forward_flops),
                "SAEs": power_of_ten(cost.sae_flops),
                "time": in_words(cost.seconds) if cost.seconds else "",
                "cache": _cache_state(row) if "cache_size" in row else "",
                "lacks": ", ".join(lacks),
            }
        )
    kept = [key for key in shown[0] if any(row[key] != "" for row in shown)] if shown else []
    columns = [[key, *(str(row[key]) for row in shown)] for key in kept]
    rules = ["-" * max(map(len, column)) for column in columns]
    titles, *cells = zip(*columns, strict=True) if columns else ((),)
    # By itself, tabulate makes columns wider than their titles, and lines too long.
    return tabulate([titles, rules, *cells], tablefmt="plain", disable_numparse=True)


def _cache_state(row: dict[str, Any]) -> str:
    found, layers = row["cached_layers"], len(row["layers"])
    state = "hit" if found == layers else f"{found} of {layers}" if found else "miss"
    return f"{state}, {decimal_size(row['cache_size'])}"


def _reasons(work: Sequence[Todo]) -> dict[str, tuple[str, dict[str, str]]]:
    """What is missing: each reason once, with the sentence about the first of its models, and the
    corpus of each of them."""
    from bench.cli.failures import shared_reason

    found: dict[str, tuple[str, dict[str, str]]] = {}
    for item in work:
        for error in item.block.missing:
            _, models = found.setdefault(shared_reason(error), (str(error), {}))
            models.setdefault(item.block.card.id, item.block.specs[0].corpus)
    return found


def _say_missing(reasons: dict[str, tuple[str, dict[str, str]]]) -> None:
    from bench.cli.failures import shared_by

    for number, (text, models) in enumerate(reasons.values(), start=1):
        _wrapped(f"[{number}] {shared_by(text, models)}", indent=4)


def _say_divided(work: Sequence[Todo], device: Device) -> None:
    """Of which models one SAE is larger than the device, and how many devices have room for it."""
    if device.capacity is None:
        return
    needed: dict[str, float] = {}
    for item in work:
        if item.pending:
            count = item.block.processes_needed(device.capacity) or math.inf
            needed[item.block.card.id] = max(count, needed.get(item.block.card.id, 1))
    shares = [f"{name} {int(n)}" for name, n in needed.items() if 1 < n < math.inf]
    if shares:
        _wrapped(
            f"One SAE is larger than one {device.name} of {len(shares)} of {len(needed)}: as many "
            "processes of `accelerate launch -m bench run --engine accelerate` divide its rows: "
            f"{', '.join(shares)}"
        )
    never = [name for name, n in needed.items() if n == math.inf]
    if never:
        _wrapped(
            f"No number of {device.name}s has room for one SAE, as the samples and the model are "
            f"too large: {', '.join(never)}"
        )


def _wrapped(text: str, indent: int = 0) -> None:
    import textwrap

    lines = textwrap.wrap(
        text,
        text_width(),
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    click.echo("\n".join(lines))


def _say_totals(
    rows: list[dict[str, Any]],
    whole: Cost,
    downloads: dict[str, int | None],
    device: Device,
    shard: str | None,
) -> None:
    from bench.runner.progress import in_words

    cells, done = sum(r["cells"] for r in rows), sum(r["done"] for r in rows)
    layers = len({(row["model"], number) for row in rows for number in row["layers"]})
    _wrapped(
        f"{f'shard {shard}: ' if shard else ''}{layers:,} layer{'s' * (layers != 1)}, "
        f"{cells:,} cell{'s' * (cells != 1)}, {done:,} done, "
        f"{sum(r['failed'] for r in rows):,} failed; "
        f"{sum(r['steps'] for r in rows):,} training steps to do"
    )
    if not whole.passes:
        return
    models = len({row["model"] for row in rows if row["cost"].passes})
    _say_caching(rows)
    unknown = sum(size is None for size in downloads.values())
    known = sum(size or 0 for size in downloads.values())
    sizes = [decimal_size(known)] if known else []
    sizes += [f"{unknown} model{'s' * (unknown > 1)} of unknown size"] if unknown else []
    fetched = f"download {' and '.join(sizes)}" if sizes else "nothing to download"
    _wrapped(f"Times are of {device.name}, {device.basis}; {device.error}.")
    apart = sum(row["cost"].seconds for row in rows)
    beside = f": small models go beside each other on {device.threads} cores"
    _wrapped(
        f"To do: {whole.passes} pass{'es' * (whole.passes > 1)} of {models} "
        f"model{'s' * (models > 1)}, "
        f"{power_of_ten(whole.forward_flops + whole.sae_flops)} operations, {fetched}, "
        f"about {in_words(whole.seconds)}{beside if whole.seconds < 0.99 * apart else ''}"
    )


def _say_caching(rows: list[dict[str, Any]]) -> None:
    """For each model by itself: few would keep the activations of a whole suite."""
    passed = [row for row in _by_model(rows) if row["cost"].forward_flops]
    pays = [row for row in passed if row["cost"].cache_pays]
    if not passed:
        return
    each = ", ".join(f"{row['model']} ({decimal_size(row['cost'].stored)})" for row in pays)
    found = f"{len(pays)} of {len(passed)}: {each}" if pays else "none"
    _wrapped(
        "Models slower than reading their activations from a disk (1 GB/s), where --cache pays "
        f"(bytes on disk): {found}"
    )
