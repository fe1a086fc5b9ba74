"""`bench validate`: cards, protocols and records, as files; imports no torch."""

from __future__ import annotations

from pathlib import Path

import click

from bench.cli.output import OutputPlace
from zoo.errors import BenchError, UsageError


@click.command("validate")
@click.argument("paths", nargs=-1, required=True, type=OutputPlace(files=True), metavar="PATH...")
def command(paths: tuple[Path, ...]) -> int:
    """Check files, or all files below a folder: records (.json), cards and protocols (.yaml).

    Says nothing of a good file but its number; names every bad one, and exits with 2.

    \b
    Examples:
      bench validate runs
      bench validate runs/records
    """
    from bench.records.mirror import as_shown

    files = [file for path in paths for file in _files(path)]
    if not files:
        raise UsageError(f"nothing to check in {', '.join(map(str, paths))}")
    bad = 0
    for file in files:
        try:
            check_file(file)
        except BenchError as error:
            bad += 1
            click.echo(f"bench: {as_shown(error)}", err=True)
    click.echo(f"{len(files) - bad} good, {bad} bad")
    return 2 if bad else 0


def check_file(path: Path) -> None:
    """Raises `BadRecord` or `BadCard` where the file does not validate."""
    if path.suffix == ".json":
        from bench.records.prices import PRICES_FILE, read_prices
        from bench.records.published_saes import is_published, read_published
        from bench.records.store import read_record

        if path.name == PRICES_FILE:
            read_prices(path.parent)
        elif is_published(path):
            read_published(path)
        else:
            read_record(path)
        return
    from bench.plan.protocol import Protocol
    from zoo.cards import Card, CorpusCard, read_model, read_yaml
    from zoo.saes import SaeCard
    from zoo.suites import Suite

    data = read_yaml(path)
    if "paths" in data:
        read_model(SaeCard, path)
    elif "models" in data:
        read_model(Suite, path)
    elif "tap" in data or "adapter" in data:
        read_model(Card, path)
    elif "kind" in data:
        read_model(CorpusCard, path)
    else:
        read_model(Protocol, path)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        from bench.records.prices import PRICES_FILE
        from bench.records.published_saes import PUBLISHED_FOLDER

        own = [path / name for name in ("records", PUBLISHED_FOLDER) if (path / name).is_dir()]
        records = [file for folder in own or [path] for file in folder.rglob("*.json")]
        records += [file for file in [path / PRICES_FILE] if own and file.is_file()]
        found = [*records, *path.rglob("*.yaml"), *path.rglob("*.yml")]
        return sorted(file for file in found if not file.name.startswith(".") and _is_ours(file))
    if not path.is_file():
        raise UsageError(f"no file or folder at {path}", "Give a record, or a folder of them.")
    if path.suffix not in (".json", ".yaml", ".yml"):
        raise UsageError(f"{path} is neither a record (.json) nor a card or protocol (.yaml)")
    return [path]


def _is_ours(path: Path) -> bool:
    """Not a file of a checkpoint or a dump, which may lie beside a card."""
    others = ("config.json", "manifest.json")
    return not any((path.parent / name).is_file() for name in others)
