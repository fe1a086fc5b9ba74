"""`bench fetch`: checkpoints for machines without network; imports no torch."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli import corpora, saes
from bench.cli.options import choose, json_option, which_models
from bench.cli.sizes import decimal_size
from zoo.errors import ModelError

if TYPE_CHECKING:
    from zoo.cards import Card


@click.command("fetch")
@which_models
@click.option(
    "--corpus",
    "asked",
    multiple=True,
    metavar="NAME",
    help="Fetch this corpus, and no models unless some are named; `bench list corpora`.",
)
@click.option(
    "--sae",
    "asked_saes",
    multiple=True,
    metavar="NAME",
    help="Fetch these published SAEs, and no models unless some are named; `bench list saes`.",
)
@click.option("--sizes", is_flag=True, help="Only say what would be fetched.")
@json_option
def command(
    suite: str | None,
    models: Sequence[str],
    domains: Sequence[str],
    cards: Sequence[Path],
    asked: Sequence[str],
    asked_saes: Sequence[str],
    sizes: bool,
    as_json: bool,
) -> int:
    """Download checkpoints, or a corpus, into a cache, ahead of a run without network.

    Says first what is fetched and how large it is. What is there already is not fetched again, and
    a download that broke off is resumed. Afterwards HF_HUB_OFFLINE=1 needs no network. Exit code 1
    where something is unavailable; the others are fetched. Exit code 2 where all of it is.

    \b
    Examples:
      bench fetch tiny-gpt2 --sizes
      bench fetch --suite embedded
    """
    from zoo.registry import load_registry

    # The client's own bars, a file each, on a terminal only; read when it is imported, below.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "0" if sys.stderr.isatty() else "1")
    registry = load_registry(cards)
    fetched = corpora.fetch(registry, asked, sizes=sizes)
    fetched += saes.fetch_saes(registry, asked_saes, sizes=sizes)
    if not as_json:
        _tell(fetched)
    if (asked or asked_saes) and not (suite or models or domains):
        if as_json:
            click.echo(json.dumps(fetched, indent=1))
        return _code(fetched)
    chosen = choose(registry, suite, models, domains)
    rows = [_row(card) for card in chosen]
    if not as_json:
        click.echo(_table(rows))
    todo = [] if sizes else [row for row in rows if row["missing"]]
    for row in todo:
        try:
            _fetch(row["card"])
        except ModelError as error:
            row["error"] = str(error)
    failed = [row for row in rows if row["error"]]
    if as_json:
        click.echo(
            json.dumps([{k: v for k, v in r.items() if k != "card"} for r in rows], indent=1)
        )
    else:
        for row in failed:
            click.echo(f"bench: {row['error']}", err=True)
        if todo:
            click.echo(f"{len(todo) - sum(bool(row['error']) for row in todo)} fetched")
    return _code([*fetched, *rows])


def _code(rows: Sequence[dict[str, Any]]) -> int:
    """As of a run: 1 where some of what was asked for is not there, 2 where none of it is."""
    failed = sum(row["error"] is not None for row in rows)
    return 0 if not failed else 2 if failed == len(rows) else 1


def _tell(rows: Sequence[dict[str, Any]]) -> None:
    """What became of corpora and of published SAEs; each error once."""
    for row in rows:
        what = (
            f"corpus {row['corpus']}"
            if "corpus" in row
            else f"SAE {row['sae']} layer {row['layer']}"
        )
        size = f"{row['files']} files, " * bool(row["files"])
        size += decimal_size(row["bytes"]) if row["bytes"] else "size not counted"
        state = "unavailable" if row["error"] else "fetched" if row["fetched"] else _state(row)
        click.echo(f"{what}: {size}, {state}")
    for error in dict.fromkeys(row["error"] for row in rows if row["error"]):
        click.echo(f"bench: {error}", err=True)


def _row(card: Card) -> dict[str, Any]:
    """What is to be fetched for a model; an error where that cannot be found out."""
    from zoo import hub
    from zoo.weights import weights_folder

    row: dict[str, Any] = {
        "model": card.id, "card": card, "revision": None, "files": 0, "bytes": 0, "missing": 0,
        "error": None,
    }  # fmt: skip
    try:
        if card.checkpoint.source != "hub":
            weights_folder(card)
            return row
        row["card"] = card = hub.pinned(card)
        files = hub.files(hub.HubRepository.of(card))
    except ModelError as error:
        return row | {"error": str(error)}
    return row | {
        "revision": card.checkpoint.revision,
        "files": len(files),
        "bytes": sum(file.bytes for file in files),
        "missing": sum(file.bytes for file in files if not file.cached),
    }


def _fetch(card: Card) -> None:
    from zoo import hub

    folder = hub.snapshot(card)
    below = folder / card.checkpoint.subfolder
    patterns = hub.weight_patterns(card.checkpoint.file)
    if not any(True for pattern in patterns for _ in below.glob(pattern)):
        from zoo.errors import ModelUnavailable

        raise ModelUnavailable(f"model {card.id!r}: {card.checkpoint.hub} holds no weights")


def _table(rows: list[dict[str, Any]]) -> str:
    from tabulate import tabulate

    shown = [
        {
            "model": row["model"],
            "files": row["files"] or "",
            "size": decimal_size(row["bytes"]) if row["files"] else "",
            "to fetch": _state(row),
            "revision": (row["revision"] or "")[:12],
        }
        for row in rows
    ]
    lines = [tabulate(shown, headers="keys", disable_numparse=True)]
    lines.append(f"{decimal_size(sum(row['missing'] for row in rows))} to fetch")
    return "\n".join(lines)


def _state(row: dict[str, Any]) -> str:
    if row["error"]:
        return "unavailable"
    if row["missing"]:
        return decimal_size(row["missing"])
    return "is here"
