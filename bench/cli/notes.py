"""What a plan leaves out or reads by a rule, said once on stderr before anything is run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

from bench.cli.sizes import ranges

if TYPE_CHECKING:
    from bench.plan.blocks import Block
    from zoo.cards import Card

# Models that a line names; of a suite there may be hundreds.
_NAMED = 10


def tell(notes: Iterable[str], told: set[str] | None = None) -> None:
    """Says what was not `told` before, and adds it to that."""
    told = set() if told is None else told
    for note in notes:
        if note not in told:
            told.add(note)
            click.echo(f"bench: {note}", err=True)


def corpus_notes(blocks: Iterable[Block]) -> list[str]:
    """What the rules of reading did, a line for each corpus."""
    found: dict[str, list[str]] = {}
    for corpus in (block.corpus for block in blocks if block.corpus):
        notes = found.setdefault(corpus.name, [])
        notes += [note for note in corpus.notes if note not in notes]
    return [f"corpus {name}: {'; '.join(notes)}" for name, notes in found.items() if notes]


def absent_layers(cards: Sequence[Card], layers: Sequence[int] | None) -> list[str]:
    """Which models lack layers that were asked for, a line for those that lack the same."""
    asked = sorted(set(layers or ()))
    lacking: dict[tuple[int, ...], list[str]] = {}
    for card in cards:
        if absent := tuple(layer for layer in asked if layer not in card.layers):
            lacking.setdefault(absent, []).append(card.id)
    notes = []
    for absent, models in lacking.items():
        one = len(models) == 1
        what = f"layer{'s' * (len(absent) > 1)} {ranges(list(absent))}"
        left_out = f" and {'is' if one else 'are'} left out" if len(absent) == len(asked) else ""
        notes.append(f"{_several(models)} {'has' if one else 'have'} no {what}{left_out}")
    return notes


def choice_notes(
    cards: Sequence[Card], made: Sequence[Card], named: Sequence[Card], domains: Sequence[str]
) -> list[str]:
    """What was found out about the models made of references that are among the cards, and which
    of those named or made are not, as they are of none of the domains."""
    chosen = {card.id for card in cards}
    notes = [f"{card.id}: {card.summary}" for card in made if card.id in chosen]
    if others := [card.id for card in [*named, *made] if card.id not in chosen]:
        verb = "is" if len(others) == 1 else "are"
        what = f"domain{'s' * (len(domains) > 1)} {' or '.join(domains)}"
        notes.append(f"{_several(others)} {verb} not of the {what} and {verb} left out")
    return notes


def _several(models: Sequence[str]) -> str:
    """Their names, as a sentence has them."""
    shown = [*models[:_NAMED]]
    if rest := len(models) - len(shown):
        shown.append(f"{rest} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
