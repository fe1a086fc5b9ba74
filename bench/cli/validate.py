"""`bench validate`: cards, protocols and records, as files; imports no torch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import click

from bench.cli.output import OutputPlace
from zoo.errors import BadRecord, BenchError, UsageError
from zoo.files import read_json


@click.command("validate")
@click.argument("paths", nargs=-1, required=True, type=OutputPlace(files=True), metavar="PATH...")
def command(paths: tuple[Path, ...]) -> int:
    """Check files, or all files below a folder: records (.json), cards and protocols (.yaml).

    Says nothing of a good file but its number; names every bad one, and exits with 2. Other JSON
    files of a folder are left alone.

    \b
    Examples:
      bench validate runs
      bench validate runs/records
    """
    from bench.records.mirror import as_shown

    found = [_find(path) for path in paths]
    files = [file for each in found for file in each.files]
    others = sum(each.others for each in found)
    left = f"{others} other JSON file{'s' * (others != 1)} left alone"
    if not files:
        nothing = f"nothing to check in {', '.join(map(str, paths))}"
        raise UsageError(f"{nothing}: {left}" if others else nothing)
    bad = 0
    for file in files:
        try:
            check_file(file)
        except BenchError as error:
            bad += 1
            click.echo(f"bench: {as_shown(error)}", err=True)
    click.echo(f"{len(files) - bad} good, {bad} bad" + (f"; {left}" if others else ""))
    return 2 if bad else 0


def check_file(path: Path) -> None:
    """Raises `BadRecord` or `BadCard` where the file does not validate."""
    if path.suffix == ".json":
        if not _is_record(path):
            # Not to be deleted: somebody else needs it.
            raise BadRecord(
                f"{path} is no record: neither its place, its name nor a digest in it says so",
                "Records are DIR/records/MODEL/HASH.json.",
            )
        _check_document(path)
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


def _check_document(path: Path) -> None:
    from bench.records.prices import PRICES_FILE, read_prices
    from bench.records.published_saes import is_published, read_published
    from bench.records.store import read_record

    if path.name == PRICES_FILE:
        read_prices(path.parent)
    elif is_published(path):
        read_published(path)
    else:
        read_record(path)


class _Found(NamedTuple):
    """What is to be checked, and how many other JSON files there are."""

    files: list[Path]
    others: int = 0


def _find(path: Path) -> _Found:
    if path.is_dir():
        from bench.records.prices import PRICES_FILE
        from bench.records.published_saes import PUBLISHED_FOLDER
        from bench.records.store import RECORDS_FOLDER

        own = [path / name for name in (RECORDS_FOLDER, PUBLISHED_FOLDER) if (path / name).is_dir()]
        named = [file for folder in own or [path] for file in folder.rglob("*.json")]
        named += [file for file in [path / PRICES_FILE] if own and file.is_file()]
        named = [file for file in named if _is_ours(file)]
        # An output has its records in folders of their own; another folder holds who knows what.
        records = named if own else [file for file in named if _is_record(file)]
        cards = filter(_is_ours, [*path.rglob("*.yaml"), *path.rglob("*.yml")])
        return _Found(sorted([*records, *cards]), len(named) - len(records))
    if not path.is_file():
        raise UsageError(f"no file or folder at {path}", "Give a record, or a folder of them.")
    if path.suffix not in (".json", ".yaml", ".yml"):
        raise UsageError(f"{path} is neither a record (.json) nor a card or protocol (.yaml)")
    return _Found([path])


def _is_ours(path: Path) -> bool:
    """Not hidden, nor a file of a checkpoint or a dump, which may lie beside a card."""
    others = ("config.json", "manifest.json")
    if path.name.startswith("."):
        return False
    return not any((path.parent / name).is_file() for name in others)


def _is_record(path: Path) -> bool:
    """Whether a JSON file lies where records do, is named as one, or carries a digest as one."""
    from bench.records.prices import PRICES_FILE
    from bench.records.published_saes import PUBLISHED_FOLDER
    from bench.records.store import RECORDS_FOLDER

    above = path.resolve().parent
    if path.name == PRICES_FILE and (above / RECORDS_FOLDER).is_dir():
        return True
    if {above.name, above.parent.name} & {RECORDS_FOLDER, PUBLISHED_FOLDER}:
        return True
    if re.fullmatch("[0-9a-f]{20}", path.stem):
        return True
    try:
        data = read_json(path)
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and "digest" in data
