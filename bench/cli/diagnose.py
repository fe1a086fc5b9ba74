"""`bench diagnose FILE`: will an SAE die on these activations, why, and what cures it?"""

from __future__ import annotations

import json
from pathlib import Path

import click

from bench.cli.options import ANY_PATH, device_option, json_option, pick_device
from bench.cli.sizes import WholeNumber
from bench.sae.recipe import REFERENCE


@click.command("diagnose")
@click.argument("file", type=ANY_PATH)
@click.option("--key", metavar="NAME", help="Which array, or a glob of several to join.")
@click.option(
    "-n",
    "n",
    type=WholeNumber(2, 2**24),
    default=REFERENCE.n,
    show_default=True,
    help="Dictionary size.",
)
@click.option(
    "-k",
    "k",
    type=WholeNumber(1),
    default=REFERENCE.k,
    show_default=True,
    help="Features per token.",
)
@click.option(
    "-N",
    "--tokens",
    type=WholeNumber(2),
    default=REFERENCE.N,
    show_default=True,
    help="Tokens of the sample.",
)
@click.option("--max-tokens", type=WholeNumber(2), help="Read only so many; by default all.")
@click.option(
    "--seed",
    type=WholeNumber(0, 2**63 - 1),
    default=0,
    show_default=True,
    help="Of the dictionary.",
)
@click.option(
    "--sae",
    metavar="SAE",
    help="Diagnose this trained SAE instead of a fresh one: a folder or file of any library, or "
    "hub:OWNER/NAME[/FOLDER][@REVISION].",
)
@click.option("--plot", "figure", type=ANY_PATH, metavar="PATH", help="Write a figure there.")
@device_option
@json_option
def command(
    file: Path,
    key: str | None,
    n: int,
    k: int,
    tokens: int,
    max_tokens: int | None,
    seed: int,
    sae: str | None,
    figure: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Diagnose activations [tokens, width] in FILE, or in all files of a folder.

    Formats: .npy .npz .safetensors .pt .parquet .arrow .h5, saev's shards, and AlphaFold 3's
    embeddings.npz. Of several arrays the only matrix of floats is meant, or sequences of several
    lengths together; else --key says which. Prints gamma, outlier dimensions, the effective rank,
    the death of features predicted, and measured on a fresh dictionary, and what to do about it.

    With --sae: who is dead in a trained SAE (ours, or of SAELens, sparsify, dictionary_learning,
    saev, Gemma Scope, ...), by which path, how much of the mean its bias has learned, and what
    centering would have saved. n and k are then the SAE's.

    \b
    Examples:
      bench diagnose activations.npy -n 1k -k 16 -N 4k
      bench diagnose activations.npy --sae sae
    """
    from bench.diagnosis.diagnose import diagnose
    from bench.diagnosis.files import open_activations
    from zoo.errors import ModelError, UsageError

    if sae is not None:
        _trained(file, key, sae, tokens, max_tokens, seed, figure, device, as_json=as_json)
        return
    try:
        source = open_activations(file, key)
        found = diagnose(
            source,
            n=n,
            k=k,
            tokens=tokens,
            seed=seed,
            device=pick_device(device),
            max_tokens=max_tokens,
        )
        if figure is not None:
            from bench.diagnosis.plot import plot

            plot(found, figure)
    except ModelError as error:
        # What fails a cell of a run is, here, the request itself.
        named = error.message.startswith(str(file))
        message = error.message if named else f"{file}: {error.message}"
        raise UsageError(message, error.remedy) from error
    if as_json:
        click.echo(json.dumps({"source": source.name} | found.to_dict(), indent=1))
    else:
        click.echo(f"{source.name}: {source.tokens:,} tokens, width {source.width}\n\n{found}")


def _trained(
    file: Path,
    key: str | None,
    place: str,
    tokens: int,
    max_tokens: int | None,
    seed: int,
    figure: Path | None,
    device: str,
    *,
    as_json: bool,
) -> None:
    """`bench diagnose FILE --sae SAE`."""
    from bench.diagnosis.files import open_activations
    from bench.diagnosis.trained import diagnose_sae
    from bench.sae.interop import read_sae
    from bench.sae.interop.hub import sae_path
    from zoo.errors import ModelError, UsageError

    given = {param: _is_given(param) for param in ("n", "k")}
    if any(given.values()) or figure is not None:
        named = [f"-{param}" for param, asked in given.items() if asked] or ["--plot"]
        raise UsageError(f"{named[0]} is for fresh dictionaries, not for --sae")
    try:
        found, origin, library = read_sae(sae_path(place))
        source = open_activations(file, key)
        diagnosis = diagnose_sae(
            source,
            found,
            origin=origin,
            tokens=tokens,
            seed=seed,
            device=pick_device(device),
            max_tokens=max_tokens,
        )
    except ModelError as error:
        raise UsageError(error.message, error.remedy) from error
    if as_json:
        names = {"source": source.name, "sae": place, "library": library}
        click.echo(json.dumps(names | diagnosis.to_dict(), indent=1))
        return
    click.echo(f"{source.name}: {source.tokens:,} tokens, width {source.width}")
    click.echo(f"{place}: {library}, {diagnosis}")


def _is_given(param: str) -> bool:
    source = click.get_current_context().get_parameter_source(param)
    return source is not click.core.ParameterSource.DEFAULT
