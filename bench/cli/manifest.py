"""`bench manifest FOLDER`: precomputed activations as a model; imports torch for .pt files only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli.options import ANY_PATH, json_option
from zoo.cards import DATA_KINDS, DOMAINS

if TYPE_CHECKING:
    from zoo.cards import DataKind
    from zoo.manifest import DumpStream


@click.command("manifest")
@click.argument("folder", type=ANY_PATH)
@click.option("--domain", type=click.Choice(DOMAINS), help="What the activations are of.")
@click.option("--summary", default="", metavar="TEXT", help="What they are, in a line.")
@click.option(
    "--data",
    type=click.Choice(DATA_KINDS),
    default="real",
    show_default=True,
    help="Whether the model read real data, or data made by a program; boards say which.",
)
@click.option("--pattern", metavar="GLOB", help="Which files, {i} for the layer's number.")
@click.option("--key", metavar="NAME", help="Which array of a file, {i} for the layer's number.")
@click.option("--flatten", is_flag=True, help="All axes but the last count tokens; no padding.")
@click.option("--check", is_flag=True, help="Compare manifest.json with the files, write nothing.")
@json_option
def command(
    folder: Path,
    domain: str | None,
    summary: str,
    data: DataKind,
    pattern: str | None,
    key: str | None,
    flatten: bool,
    check: bool,
    as_json: bool,
) -> int:
    """Write FOLDER/manifest.json, which makes its activations a model: `--model dump:FOLDER`.

    Arrays [tokens, width] in .npy, .npz, .safetensors, .pt and .parquet files, of all folders
    below; AlphaFold 3's embeddings too. The layer is the number after `layer`, `block` and the like
    in a file's path or an array's name, or where --pattern or --key say {i}. `--check` hashes all
    files again, and names those that came later; exit code 1 where something differs.

    \b
    Examples:
      bench manifest acts --domain protein
      bench manifest acts --domain language --summary "block outputs of my model"
    """
    from zoo.errors import UsageError
    from zoo.manifest import make_manifest, write_manifest
    from zoo.scan import alphafold_files, scan

    if check:
        return _check(folder, as_json)
    streams = scan(folder, pattern=pattern, key=key, flatten=flatten)
    chosen = domain or ("protein" if alphafold_files(folder) else None)
    if chosen is None:
        raise UsageError(
            f"{folder} does not say of which domain its activations are",
            f"Give --domain {', '.join(DOMAINS[:-1])} or {DOMAINS[-1]}.",
        )
    manifest = make_manifest(folder, streams, chosen, summary, data)  # type: ignore[arg-type]
    path = write_manifest(folder, manifest)
    if as_json:
        click.echo(manifest.model_dump_json(indent=1))
    else:
        click.echo(_table(streams))
        click.echo(f"{path}: {len(manifest.files)} files; bench run --model dump:{folder}")
    return 0


def _check(folder: Path, as_json: bool) -> int:
    """Compares the files with their manifest; 1 if something differs."""
    from zoo.manifest import read_manifest, verify
    from zoo.scan import left_out

    manifest = read_manifest(folder)
    problems, others = verify(folder, manifest, contents=True), left_out(folder, manifest)
    if as_json:
        found = {"folder": str(folder), "problems": problems, "left_out": others}
        click.echo(json.dumps(found, indent=1))
    else:
        for problem in problems:
            click.echo(f"bench: {problem}", err=True)
        if others:
            names = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
            click.echo(f"bench: not in the manifest: {names}", err=True)
        click.echo(f"{folder}: {len(problems) or 'nothing'} differs from its manifest")
    return 1 if problems else 0


def _table(streams: Sequence[DumpStream]) -> str:
    from tabulate import tabulate

    from bench.cli.sizes import ranges

    rows = [
        (
            stream.name,
            ranges([layer.layer for layer in stream.layers]),
            stream.width,
            f"{stream.tokens:,}",
            len(stream.layers[0].parts),
        )
        for stream in streams
    ]
    headers = ["stream", "layers", "width", "tokens", "arrays"]
    return tabulate(rows, headers, disable_numparse=True)
