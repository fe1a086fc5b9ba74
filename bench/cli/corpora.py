"""Corpora for a reader: what there is, and what is fetched of it. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import click

from bench.cli.sizes import decimal_size, short
from zoo.cards import MAKES_DATA
from zoo.errors import ModelError

if TYPE_CHECKING:
    from zoo.cards import CorpusCard
    from zoo.registry import Registry


def show(registry: Registry, names: Sequence[str], as_json: bool) -> None:
    """All corpora as a table, or the cards of those that are named.

    Raises:
        UnknownName: there is none of that name.
    """
    chosen = [registry.corpus(name) for name in names] or list(registry.corpora.values())
    rows = [_row(card, registry) for card in chosen]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    elif names:
        click.echo("\n\n".join(map(_lines, rows)))
    else:
        click.echo(_table(rows))


def _row(card: CorpusCard, registry: Registry) -> dict[str, Any]:
    models = [
        model.id
        for model in registry.cards.values()
        if card.id in (model.corpus, model.real_corpus)
    ]
    return card.model_dump(mode="json") | {"models": models, "state": state(card)}


def state(card: CorpusCard) -> str:
    """Whether the corpus is here."""
    if card.source in MAKES_DATA:
        return "comes with the package"
    if card.source == "url":
        from zoo.downloads import place

        return "is here" if place(card).is_file() else "downloads"
    if card.source == "installed":
        from zoo.installed import is_installed

        return "is here" if is_installed(card) else "not installed"
    if card.source == "hub":
        return "gated" if card.gated else "downloads"
    return "is here" if card.beside(str(card.path)).exists() else "absent"


def _table(rows: list[dict[str, Any]]) -> str:
    from tabulate import tabulate

    shown = [
        {
            "corpus": row["id"],
            "kind": row["kind"],
            "data": row["data"],
            "size": decimal_size(row["bytes"]) if row["bytes"] else "",
            "examples": short(row["examples"]) if row["examples"] else "",
            "tokens": short(row["tokens"]) if row["tokens"] else "",
            "licence": shorten(row["licence"], 24, placeholder="..."),
            "models": len(row["models"]),
            "state": row["state"],
        }
        for row in sorted(rows, key=lambda row: (row["kind"], row["data"] == "made", row["id"]))
    ]
    return tabulate(shown, headers="keys", disable_numparse=True)


def _lines(row: dict[str, Any]) -> str:
    from tabulate import tabulate

    sources = {f"source of {key}": text for key, text in row["sources"].items()}
    models = {"models": ", ".join(row["models"])}
    facts = {key: value for key, value in row.items() if key != "sources"} | models | sources
    lines = [(key, value) for key, value in facts.items() if value not in (None, "", {}, False)]
    return tabulate(lines, tablefmt="plain", maxcolwidths=[None, 78], disable_numparse=True)


def fetch(registry: Registry, names: Sequence[str], *, sizes: bool) -> list[dict[str, Any]]:
    """Downloads corpora; a row of each that `bench fetch` shows.

    Raises:
        UnknownName: there is none of that name; nothing was fetched.
    """
    cards = [registry.corpus(name) for name in names]
    rows = [_fetch_row(card) for card in cards]
    for card, row in zip(cards, rows, strict=True):
        if sizes or row["error"] or not row["missing"]:
            continue
        try:
            _download(card)
            row["fetched"] = True
        except ModelError as error:
            row["error"] = str(error)
    return rows


def _fetch_row(card: CorpusCard) -> dict[str, Any]:
    from zoo import corpora, downloads, hub

    row: dict[str, Any] = {
        "corpus": card.id, "revision": card.revision, "files": 0, "bytes": card.bytes or 0,
        "missing": 0, "error": None, "fetched": False,
    }  # fmt: skip
    if card.source == "url":
        here = downloads.place(card).is_file()
        return row | {"files": 1, "missing": 0 if here else card.bytes or 1}
    if card.source == "installed":
        from zoo.installed import installed_folder

        try:
            installed_folder(card)
        except ModelError as error:
            return row | {"error": str(error)}
    if card.source != "hub":
        return row
    try:
        files = hub.dataset_files(corpora.repository_of(card), str(card.path))
    except ModelError as error:
        return row | {"error": str(error)}
    return row | {
        "files": len(files),
        "bytes": sum(file.bytes for file in files),
        "missing": sum(file.bytes for file in files if not file.cached),
    }


def _download(card: CorpusCard) -> None:
    from zoo import corpora, downloads, hub

    if card.source == "url":
        downloads.download(card)
    else:
        hub.dataset(corpora.repository_of(card), [str(card.path)])
