"""`bench protocol`: every key of a protocol, its value, its default and what it means."""

from __future__ import annotations

import json
from collections.abc import Sequence
from textwrap import fill
from typing import Any

import click

from bench.cli.options import json_option


@click.command("protocol")
@click.argument("name", default="", metavar="[NAME]")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="With this key changed."
)
@json_option
def command(name: str, settings: Sequence[str], as_json: bool) -> None:
    """Show a protocol's keys, values, defaults and meaning; without NAME, protocols and arms.

    NAME is a preset or a YAML file. Each key can be changed by `--set` of `bench run`; n and k,
    for instance, are the size of the dictionary and the features active per token.

    \b
    Examples:
      bench protocol
      bench protocol quick
      bench protocol paper --set family=jumprelu
    """
    from bench.plan.protocol import load_fitting, why_no_arm
    from zoo.errors import UsageError

    if not name:
        if settings:
            raise UsageError("--set changes a protocol", "Name one: bench protocol quick.")
        _show_all(as_json)
        return
    protocol, left_out = load_fitting(name, settings=settings)
    rows = _rows(protocol)
    if left_out:
        # On stderr, so that --json stays JSON.
        reasons = dict.fromkeys(str(why_no_arm(arm, protocol.family)) for arm in left_out)
        text = f"{', '.join(left_out)} left out: {', '.join(reasons)}"
        click.echo(f"bench: {text}; to run the other arms, name them by --arm", err=True)
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    from tabulate import tabulate

    shown = [
        [
            row["key"],
            fill(_text(row["value"]), 20),
            fill(_text(row["default"]), 14),
            fill(row["meaning"], 52),
        ]
        for row in rows
    ]
    click.echo(tabulate(shown, ["key", "value", "default", "meaning"], disable_numparse=True))


def _rows(protocol: Any) -> list[dict[str, Any]]:
    """A row per key that this protocol's family reads."""
    from bench.sae.families import FAMILIES
    from bench.sae.recipe import FAMILY_KEYS

    own = FAMILIES[protocol.family].keys
    values = protocol.model_dump(mode="json")
    fields = type(protocol).model_fields
    return [
        {
            "key": key,
            "value": values[key],
            "default": own[key].default if key in own else _default(field),
            "meaning": field.description or "",
        }
        for key, field in fields.items()
        if key not in FAMILY_KEYS or key in own
    ]


def _default(field: Any) -> Any:
    """A field's default, JSON-able; None where the key has none of its own."""
    if field.is_required():
        return None
    return list(field.default) if isinstance(field.default, tuple) else field.default


def _show_all(as_json: bool) -> None:
    from bench.plan.protocol import load_protocol, presets
    from bench.sae.arms import PRESETS, axes_of_arms

    protocols = {name: load_protocol(name) for name in presets()}
    axes = axes_of_arms()
    if as_json:
        found = {name: _rows(protocol) for name, protocol in protocols.items()}
        document = {"protocols": found, "arms": {"presets": list(PRESETS), "axes": axes}}
        click.echo(json.dumps(document, indent=1))
        return
    from tabulate import tabulate

    keys = ("n", "k", "N", "steps", "batch")
    rows = [[name, *(f"{getattr(p, key):,}" for key in keys), len(p.arms), len(p.seeds)]
            for name, p in protocols.items()]  # fmt: skip
    click.echo(tabulate(rows, ["protocol", *keys, "arms", "seeds"], disable_numparse=True))
    click.echo(f"\nArms: {', '.join(PRESETS)}, or CENTER-NORM; +WORD may follow, one of each axis:")
    for axis, words in axes.items():
        click.echo(f"  {axis}: {', '.join(words)}")
    click.echo("for instance raw+auxk, centered+mask, mean-layernorm+b-median+auxk-relu")


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
