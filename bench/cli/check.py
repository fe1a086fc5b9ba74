"""`bench check MODEL`: the conformance that CI runs, for one's own adapter or card."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli.options import (
    cards_option,
    choose,
    device_option,
    json_option,
    pick_device,
    remote_code_option,
    weights_option,
    which_corpus,
)

if TYPE_CHECKING:
    from adapters.conformance import CheckResult


@click.command("check")
@click.argument("model")
@cards_option
@weights_option
@which_corpus
@device_option
@remote_code_option
@click.option(
    "--tiny",
    is_flag=True,
    help="Of a checkpoint take only configuration, tokenizer and code (kilobytes); make its sizes "
    "small and draw the weights at random.",
)
@json_option
def command(
    model: str,
    cards: Sequence[Path],
    weights: Path | None,
    device: str,
    trust_remote_code: bool,
    tiny: bool,
    as_json: bool,
    **which: Any,
) -> int:
    """Check MODEL's card and adapter on a few examples of its corpus.

    Its task, layers and parameters, shapes, the residual stream, early stop, padding and batch-size
    invariance, the token rule, the exact cut, hooks gone, determinism. Exit code 1 if a check
    fails.

    With --tiny the whole of it runs on the authors' own code before a weight is downloaded.

    \b
    Examples:
      bench check tiny-esm2
      bench check synthetic-gamma4 --json
    """
    from adapters import check, open_adapter
    from adapters.references import is_reference
    from adapters.tiny import tiny_checkpoint
    from bench.activations.stream import examples_of
    from zoo.corpus_choice import choose_corpus
    from zoo.errors import UsageError
    from zoo.registry import load_registry

    registry = load_registry(cards)
    corpus = choose_corpus(registry, **which)
    if is_reference(model):
        card, *others = choose(registry, None, [model], [])
        if others:
            raise UsageError(f"{model} is {len(others) + 1} models", "Check a card of one of them.")
    else:
        card = registry.card(model)
    opened = functools.partial(
        open_adapter, device=pick_device(device), trust_remote_code=trust_remote_code
    )
    examples = examples_of(opened(card, weights=weights), corpus.open(card, registry))
    with contextlib.ExitStack() as stack:
        if tiny:
            made = stack.enter_context(
                tiny_checkpoint(
                    card,
                    examples.examples(seed=0),
                    weights=weights,
                    trust_remote_code=trust_remote_code,
                )
            )
            card, weights = made.card, made.folder
            click.echo(f"{model}: {made.detail}", err=True)
        results = check(functools.partial(opened, card, weights=weights), examples.examples(seed=0))
    _show(model, results, as_json)
    return 1 if any(not result.ok for result in results) else 0


def _show(model: str, results: Sequence[CheckResult], as_json: bool) -> None:
    if as_json:
        rows = [{"name": r.name, "ok": r.ok, "detail": r.detail} for r in results]
        click.echo(json.dumps({"model": model, "checks": rows}, indent=1))
        return
    from tabulate import tabulate

    table = [(r.name, "ok" if r.ok else "FAILED", r.detail) for r in results]
    failed = sum(not result.ok for result in results)
    click.echo(tabulate(table, tablefmt="plain", maxcolwidths=[None, None, 90]))
    click.echo(f"{model}: {len(results) - failed} checks passed, {failed} failed")
