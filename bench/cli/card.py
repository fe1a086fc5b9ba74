"""`bench card REFERENCE`: the card that was made of a checkpoint's own files, as a file."""

from __future__ import annotations

from pathlib import Path

import click

from bench.cli.options import ANY_PATH
from zoo.errors import UsageError


@click.command("card")
@click.argument("reference")
@click.option("--to", type=ANY_PATH, metavar="FILE", help="Write it there [to the terminal].")
def command(reference: str, to: Path | None) -> int:
    """Write the card of hf-causal:ID, hf-masked:ID or timm:NAME, to read, correct and keep.

    The path of its blocks, windows, token rule and commit are as inferred from the checkpoint's
    files; no weights are downloaded. A model is measured with this card as it is without one.

    \b
    Examples:
      bench card hf-causal:my-model
      bench card hf-causal:my-model --to my-model.yaml
    """
    from adapters.references import is_reference, reference_cards, written_card
    from zoo.files import write_atomically

    if not is_reference(reference):
        raise UsageError(f"{reference!r} has a card already", "Name one as hf-causal:OWNER/NAME.")
    card, *others = reference_cards(reference)
    if others:
        raise UsageError(
            f"{reference} is {len(others) + 1} models", "It is measured without cards."
        )
    text = written_card(card)
    if to is None:
        click.echo(text, nl=False)
        return 0
    if to.suffix not in (".yaml", ".yml"):
        raise UsageError(f"{to} is no name of a card", "A card's file ends in .yaml.")
    if to.exists():
        raise UsageError(f"{to} exists", "Move it away, or give another name.")
    write_atomically(to, text, place="in --to FILE")
    click.echo(to)
    return 0
