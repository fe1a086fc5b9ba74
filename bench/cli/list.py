"""`bench list`: reads cards only; imports no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import click

from bench.cli import corpora, saes
from bench.cli.options import choose, json_option, which_models
from bench.cli.sizes import short
from zoo.errors import UnknownName, UsageError

if TYPE_CHECKING:
    from zoo.cards import Card
    from zoo.registry import Registry


@click.command("list")
@which_models
@json_option
def command(
    suite: str | None,
    models: Sequence[str],
    domains: Sequence[str],
    cards: Sequence[Path],
    as_json: bool,
) -> None:
    """Models, layers, domains and suites that are known.

    Corpora are listed by `bench list corpora`, published SAEs by `bench list saes`.

    \b
    Examples:
      bench list protein
      bench list 'tiny-*' --json
      bench list corpora openwebtext
    """
    from zoo.cards import DOMAINS
    from zoo.install import install_line
    from zoo.registry import load_registry

    registry = load_registry(cards)
    if models and models[0] == "corpora":
        corpora.show(registry, models[1:], as_json)
        return
    if models and models[0] == "saes":
        saes.show_saes(registry, models[1:], as_json)
        return
    # Without a choice, everything is listed: not only the default suite, as elsewhere.
    globs = models if models or suite else ("*",)
    try:
        chosen = choose(registry, suite, globs, domains)
    except UnknownName as error:
        for name in models:
            near = get_close_matches(name, ("corpora", "saes"), n=1, cutoff=0.6)
            if near and error.message == f"unknown model {name!r}":
                raise UsageError(error.message, f"Did you mean `bench list {near[0]}`?") from None
        raise
    rows = [_row(card, registry) for card in chosen]
    if as_json:
        suites = {name: list(entry.models) for name, entry in registry.suites.items()}
        click.echo(json.dumps({"models": rows, "suites": suites}, indent=1))
        return
    for domain in DOMAINS:
        if of_domain := [row for row in rows if row["domain"] == domain]:
            click.echo(f"{domain}\n{_table(of_domain)}\n")
    click.echo(f"An extra is installed by: {install_line('EXTRA')}\n")
    for entry in registry.suites.values():
        click.echo(f"suite {entry.id}: {entry.summary} ({len(entry.models)} models)")


def _row(card: Card, registry: Registry) -> dict[str, Any]:
    from adapters import lacking, missing_packages
    from zoo.cards import data_of
    from zoo.errors import ModelError
    from zoo.install import install_line
    from zoo.weights import weights_folder

    state, remedy = "ready", ""
    try:
        if missing_packages(card):
            state, remedy = "needs extra", install_line(card.extra)
        elif refusal := lacking(card):
            state, remedy = "needs version", refusal.remedy
        elif card.checkpoint.source == "hub":
            state = "gated" if card.checkpoint.gated else "downloads"
        else:
            weights_folder(card)
    except ModelError as error:
        state, remedy = "absent", error.remedy
    return {
        "id": card.id,
        "domain": card.domain,
        "layers": len(card.layers),
        "width": card.tap.width,
        "parameters": card.parameters,
        "licence": card.checkpoint.licence,
        "corpus": registry.corpus_of(card).id,
        "data": data_of(card, registry.corpus_of(card)),
        "suites": [s.id for s in registry.suites.values() if card.id in s.models],
        "state": state,
        "remedy": remedy,
        "needs": _needs(card, state),
        "gated": card.checkpoint.gated,
        "remote_code": card.checkpoint.remote_code,
        "device": card.device,
        "tried": card.tried,
        "summary": card.summary,
    }


def _needs(card: Card, state: str) -> list[str]:
    """What a user must have for the model, in a few words each."""
    weights = {"hub": "download", "user": "your files"}.get(card.checkpoint.source, "")
    wanted = {
        f"extra {card.extra}": bool(card.extra) and state in ("needs extra", "absent"),
        "licence accepted": card.checkpoint.gated,
        "--trust-remote-code": card.checkpoint.remote_code,
        "CUDA": card.device == "cuda",
        **dict.fromkeys(card.requires, state in ("needs extra", "needs version")),
        weights: bool(weights),
    }
    return [text for text, needed in wanted.items() if needed]


def _table(rows: list[dict[str, Any]]) -> str:
    from tabulate import tabulate

    shown = [
        {
            "model": row["id"],
            "layers x width": f"{row['layers']} x {row['width']}",
            "params": short(row["parameters"]),
            "data": row["data"],
            "suites": ", ".join(row["suites"]),
            "licence": shorten(row["licence"], 28, placeholder="..."),
            "tried on": row["tried"] or "",
            "needs": ", ".join(row["needs"]) or "nothing",
        }
        for row in rows
    ]
    return tabulate(shown, headers="keys", disable_numparse=True)
