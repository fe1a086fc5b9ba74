"""`bench show MODEL`: what a model's card says, and what was measured on it; imports no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import click

from bench.cli.options import BadRecords, cards_option, choose, json_option, output_option
from bench.cli.output import text_width
from zoo.errors import UsageError

if TYPE_CHECKING:
    from bench.records.published_saes import PublishedRecord
    from leaderboard.groups import Group
    from zoo.cards import Card
    from zoo.registry import Registry


@click.command("show")
@click.argument("model")
@click.option("--layer", "layers", multiple=True, type=int, help="Only this layer, from 0.")
@cards_option
@output_option
@json_option
def command(
    model: str, layers: Sequence[int], cards: Sequence[Path], output: Path, as_json: bool
) -> int:
    """Show MODEL's card, and a row for each of its layers that were measured. MODEL is an id, or
    what `bench run` took: dump:DIR, hf-causal:ID.

    \b
    Examples:
      bench show tiny-gpt2
      bench show tiny-gpt2 --layer 1
      bench show tiny-gpt2 --json
    """
    from adapters.references import is_reference
    from leaderboard.groups import group_records
    from leaderboard.published_saes import published_summary
    from zoo.errors import UnknownName
    from zoo.registry import load_registry

    registry = load_registry(cards)
    known, asked = dict(registry.cards), model
    if is_reference(model):
        made = _made(model, registry)
        model = made.id
        known[model] = made
    bad = BadRecords()
    records = [record for record in _records(output, bad) if record.spec.model == model]
    if model not in known and not records:
        raise UnknownName("model", model, known, "`bench list` names them all.")
    card = known.get(model)
    if card is not None and (absent := [each for each in layers if each not in card.layers]):
        raise UsageError(f"{model} has no layer {absent[0]}", f"It has {len(card.layers)}, from 0.")
    if layers:
        records = [record for record in records if record.spec.layer in layers]
    published = [r for r in _published(output, bad) if r.spec.model == model]
    published = [r for r in published if not layers or r.spec.layer in layers]
    groups = group_records(records)
    if as_json:
        document = {
            "card": None if card is None else card.model_dump(mode="json", exclude_none=True),
            "records": [record.model_dump(mode="json") for record in records],
            "published_saes": [record.model_dump(mode="json") for record in published],
        }
        click.echo(json.dumps(document, indent=1))
        return bad.code(0)
    click.echo(f"{model}: no card" if card is None else _card_text(card, registry))
    for group in groups:
        click.echo(f"\n{_results_text(group)}")
    if published:
        click.echo(f"\npublished SAEs\n{published_summary(published)}")
    if not groups:
        click.echo(f"\nno results in {output}: `bench run {asked}` measures it")
    return bad.code(0)


def _made(reference: str, registry: Registry) -> Card:
    """The card of a reference. Raises `UsageError` where it is of several models."""
    card, *others = choose(registry, None, [reference], [])
    if others:
        ids = ", ".join(each.id for each in (card, *others))
        raise UsageError(f"{reference} is {len(others) + 1} models", f"Show one of {ids}.")
    return card


def _records(output: Path, bad: BadRecords) -> list[Any]:
    from bench.records.store import RecordStore

    store = RecordStore(output)
    return list(store.read(bad.append)) if store.folder.is_dir() else []


def _published(output: Path, bad: BadRecords) -> list[PublishedRecord]:
    from bench.records.published_saes import PublishedStore

    return list(PublishedStore(output).read(bad.append))


def _card_text(card: Card, registry: Registry) -> str:
    from tabulate import tabulate

    from zoo.cards import data_of

    corpus = registry.corpus_of(card)
    data = data_of(card, corpus)
    checkpoint = card.checkpoint
    place = checkpoint.hub or checkpoint.path or checkpoint.module or "none: activations are made"
    rows = [
        ("model", card.id),
        ("what", card.summary),
        ("domain", card.domain),
        ("layers x width", f"{len(card.layers)} x {card.tap.width}"),
        ("parameters", f"{card.parameters:,}" if card.parameters else "not counted"),
        ("weights", f"{place} ({checkpoint.source})"),
        ("licence", checkpoint.licence or "none stated"),
        ("corpus", f"{corpus.id} ({data} data), up to {card.context:,} tokens an example"),
        ("blocks", ", ".join(card.tap.blocks)),
        ("special tokens", card.tokens.special),
        ("adapter", card.adapter),
        ("tried on", card.tried or "not stated"),
        *([("notes", card.notes)] if card.notes else []),
    ]
    shown = [(name, fill(text, 80)) for name, text in rows]
    return tabulate(shown, tablefmt="plain", disable_numparse=True)


def _results_text(group: Group) -> str:
    """A row per layer, in the columns of the terminal's table."""
    from tabulate import tabulate

    from leaderboard.columns.kinds import Table
    from leaderboard.columns.tables import arm_columns
    from leaderboard.findings import paragraph, plain_sentences
    from leaderboard.terminal import table_headers, table_title, wrapped
    from leaderboard.text import plain

    columns = arm_columns(Table.TERMINAL, [group])
    upper, lower = table_headers(columns)
    rows = []
    for layer in group.layers:
        cells = [cell for cell in group.at(layer) if cell is not None]
        done = sum(cell.failure is None for cell in cells)
        spreads = [group.at_layer(column.value, layer, arm) for column, arm in columns]
        texts = [
            "-" if spread is None else column.show(spread.mean)
            for (column, _), spread in zip(columns, spreads, strict=True)
        ]
        rows.append([str(layer), f"{done}/{len(group.at(layer))}", *texts])
    # Every layer has the data of the model, which stands above.
    upper, lower = upper[1:], ["layer", *lower[2:]]
    align = ["right"] * len(lower)
    text = tabulate([upper, lower, *rows], tablefmt="plain", colalign=align, disable_numparse=True)
    reasons = sorted({str(record.failure) for record in group.failed})
    title = table_title(group).replace("means over layers", "means over seeds")
    read = f"{group.data} data: {plain(group.spec.corpus)}"
    told = plain_sentences([group], text_width(), paragraph)
    return "\n".join(
        [
            *told,
            *([""] if told else []),
            *wrapped(title, text_width()),
            read,
            text,
            *(f"failed: {reason}" for reason in reasons),
        ]
    )
