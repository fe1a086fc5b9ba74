"""Cards of published SAEs for a reader: what there is, and what is fetched of it. No torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import click

from bench.cli.sizes import short
from zoo.errors import ModelError

if TYPE_CHECKING:
    from zoo.registry import Registry
    from zoo.saes import SaeCard


def show_saes(registry: Registry, names: Sequence[str], as_json: bool) -> None:
    """All cards of SAEs as a table, or those that are named in full.

    Raises:
        UnknownName: there is none of that name.
    """
    chosen = [registry.sae(name) for name in names] or list(registry.saes.values())
    if as_json:
        click.echo(json.dumps([card.model_dump(mode="json") for card in chosen], indent=1))
    elif names:
        click.echo("\n\n".join(map(_lines, chosen)))
    else:
        click.echo(_table(chosen))


def _table(cards: Sequence[SaeCard]) -> str:
    from tabulate import tabulate

    shown = [
        {
            "SAE": card.id,
            "model": card.model,
            "layers": ", ".join(map(str, sorted(card.paths))),
            "family": card.family,
            "n": short(card.n),
            "k": card.k or "",
            "files": card.format,
            "licence": shorten(card.licence, 24, placeholder="...") or "not found",
        }
        for card in cards
    ]
    return tabulate(shown, headers="keys", disable_numparse=True)


def _lines(card: SaeCard) -> str:
    from tabulate import tabulate

    facts = card.model_dump(mode="json", exclude={"paths", "sources"})
    facts |= {f"layer {layer}": path for layer, path in sorted(card.paths.items())}
    facts |= {f"source of {key}": text for key, text in card.sources.items()}
    lines = [(key, value) for key, value in facts.items() if value not in (None, "")]
    return tabulate(lines, tablefmt="plain", maxcolwidths=[None, 78], disable_numparse=True)


def fetch_saes(registry: Registry, names: Sequence[str], *, sizes: bool) -> list[dict[str, Any]]:
    """Downloads the SAEs of cards; a row for each layer, as `bench fetch` shows them.

    Raises:
        UnknownName: there is none of that name; nothing was fetched.
    """
    cards = [registry.sae(name) for name in names]
    return [_fetch(card, layer, sizes) for card in cards for layer in sorted(card.paths)]


def _fetch(card: SaeCard, layer: int, sizes: bool) -> dict[str, Any]:
    from bench.sae.interop.hub import sae_files, sae_place

    row: dict[str, Any] = {
        "sae": card.id, "layer": layer, "revision": card.revision, "files": 0, "bytes": 0,
        "missing": 0, "error": None, "fetched": False,
    }  # fmt: skip
    address = card.address(layer)
    try:
        files = sae_files(address)
        row |= {
            "files": len(files),
            "bytes": sum(file.bytes for file in files),
            "missing": sum(file.bytes for file in files if not file.cached),
        }
        if not sizes and row["missing"]:
            sae_place(address)
            row["fetched"] = True
    except ModelError as error:
        row["error"] = str(error)
    return row
