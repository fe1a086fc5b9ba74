"""`bench diagnose FILE`: will an SAE die on these activations, why, and what cures it?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli.options import ANY_PATH, device_option, json_option, pick_device
from bench.sae.recipe import REFERENCE

if TYPE_CHECKING:
    from bench.diagnosis.diagnose import Diagnosis
    from bench.diagnosis.trained import TrainedDiagnosis
    from bench.intervals import Estimate


@click.command("diagnose")
@click.argument("file", type=ANY_PATH)
@click.option("--key", metavar="NAME", help="Which array, or a glob of several to join.")
@click.option(
    "-n",
    "n",
    type=click.IntRange(2, 2**24),
    default=REFERENCE.n,
    show_default=True,
    help="Dictionary size.",
)
@click.option(
    "-k",
    "k",
    type=click.IntRange(1),
    default=REFERENCE.k,
    show_default=True,
    help="Features per token.",
)
@click.option(
    "-N",
    "--tokens",
    type=int,
    default=REFERENCE.N,
    show_default=True,
    help="Tokens of the sample.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the dictionary."
)
@click.option(
    "--sae", metavar="SAE", help="A trained SAE of any library instead of fresh ones; or hub:ID."
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
    seed: int,
    sae: str | None,
    figure: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Diagnose activations [tokens, width] in FILE, or in all files of a folder.

    Formats: .npy .npz .safetensors .pt .parquet .arrow .h5, saev's shards, and AlphaFold 3's
    embeddings.npz. Of several arrays the only matrix of floats is meant, or sequences of one width
    together; else --key says which. No model is needed. Prints gamma, the outlier dimensions, the
    effective rank, the death of features that is predicted and that is measured on a fresh
    dictionary, and what to do about it.

    With --sae: who is dead in a trained SAE (ours, SAELens', sparsify's, dictionary_learning's or
    saev's), by which path, how much of the mean its bias has learned, and what centering would
    have saved. n and k are then the SAE's.
    """
    from bench.diagnosis.diagnose import diagnose
    from bench.diagnosis.files import open_activations
    from zoo.errors import ModelError, UsageError

    if sae is not None:
        _trained(file, key, sae, tokens, seed, figure, device, as_json=as_json)
        return
    try:
        source = open_activations(file, key)
        found = diagnose(source, n=n, k=k, tokens=tokens, seed=seed, device=pick_device(device))
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
        click.echo(f"{source.name}: {source.tokens:,} tokens, width {source.width}")
        click.echo("".join(f"note: {note}\n" for note in source.notes))
        click.echo(_describe(found))


def _trained(
    file: Path,
    key: str | None,
    place: str,
    tokens: int,
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
            source, found, origin=origin, tokens=tokens, seed=seed, device=pick_device(device)
        )
    except ModelError as error:
        raise UsageError(error.message, error.remedy) from error
    if as_json:
        names = {"source": source.name, "sae": place, "library": library}
        click.echo(json.dumps(names | diagnosis.to_dict(), indent=1))
        return
    click.echo(f"{source.name}: {source.tokens:,} tokens, width {source.width}")
    click.echo(f"{place}: {library}, {describe_trained(diagnosis)}")


def _is_given(param: str) -> bool:
    source = click.get_current_context().get_parameter_source(param)
    return source is not click.core.ParameterSource.DEFAULT


def describe_trained(found: TrainedDiagnosis) -> str:
    """The diagnosis of a trained SAE for a reader."""
    from tabulate import tabulate

    learned = "no mean to learn" if found.mean_learned is None else f"{found.mean_learned:.1%}"
    rows = [
        ("gamma", f"{found.statistics.gamma:.4g}", "after a per-token LayerNorm"),
        ("gamma raw", f"{found.statistics.gamma_raw:.4g}", "as they are"),
        ("dead by ReLU", _share(found.by_relu), "pre-activation never > 0"),
        ("dead by TopK", _share(found.by_topk), "> 0 somewhere, never selected"),
        ("dead", _share(found.dead), f"on {found.measured_tokens:,} tokens"),
        ("dead if centered", _share(found.dead_if_centered), "b at the geometric median"),
        ("mean learned", learned, "by the bias, a subtracted center included"),
        ("FVU", f"{found.fvu:.4g}", "variance unexplained"),
        ("FVU ordinary", _number(found.fvu_ordinary), "without massive tokens"),
        ("L0", f"{found.l0:.4g}", "features per token"),
        ("always on", f"{found.always_on:,}", "features, on > 99 % of the tokens"),
    ]
    table = tabulate(rows, tablefmt="plain", disable_numparse=True)
    return f"{found.family}, n {found.n:,}, k {found.k}\n\n{table}\n\n{found.verdict}"


def _describe(found: Diagnosis) -> str:
    """The diagnosis for a reader."""
    parts = (_massive(found), _statistics(found), _death(found), _causes(found), _verdict(found))
    return "\n\n".join(part for part in parts if part)


def _massive(found: Diagnosis) -> str:
    """Massive tokens, which everything below is to be read with; nothing where there are none."""
    stats = found.statistics
    if not stats.massive_share:
        return ""
    ratio = "" if stats.norm_ratio is None else f", the largest {stats.norm_ratio:,.1f} times"
    return (
        f"massive tokens: {stats.massive_share:.2%} of them are over ten times the median "
        f"norm{ratio}"
    )


def _statistics(found: Diagnosis) -> str:
    from tabulate import tabulate

    stats = found.statistics
    rows = [
        ("gamma", f"{stats.gamma:.4g}", "after a per-token LayerNorm"),
        ("gamma raw", f"{stats.gamma_raw:.4g}", "as they are"),
        ("gamma rms", f"{stats.gamma_rms:.4g}", "over each token's root mean square"),
        ("effective rank", f"{stats.effective_rank:.4g}", f"of {stats.width}"),
        ("largest norm", _times(stats.norm_ratio), "over the median norm of a token"),
        ("top 10 dims", _percent(stats.energy_share), "of the summed squares"),
        ("kurtosis", f"{stats.kurtosis_mean:.3g}", f"mean, at most {stats.kurtosis_max:.3g}"),
        ("median gap", f"{stats.median_gap:.3g}", "geometric median to mean, over ||sigma||"),
    ]
    rows += [
        (f"dimension {dim.index}", f"{dim.mean:.3g}", f"+- {dim.spread:.3g}, {dim.share:.1%} of mu")
        for dim in stats.outlier_dims[:4]
    ]
    return tabulate(rows, tablefmt="plain", disable_numparse=True)


def _death(found: Diagnosis) -> str:
    from tabulate import tabulate

    from bench.diagnosis.verdict import hides_mean

    prediction, others = found.prediction, found.without_massive
    headers = ["dead features", "prediction, raw", *(arm.arm for arm in found.arms)]
    rows = [
        ("by ReLU", f"{prediction.relu:.2%}", *(_share(arm.by_relu) for arm in found.arms)),
        ("by TopK", "", *(_share(arm.by_topk) for arm in found.arms)),
        ("either", f"{prediction.dead:.2%}", *(_share(arm.dead) for arm in found.arms)),
    ]
    if others is not None:
        rows.append(("without massive", "", *(_share(arm.dead) for arm in others.arms)))
    table = tabulate(rows, headers, tablefmt="plain", disable_numparse=True)
    lines = [
        table,
        f"n {found.n}, k {found.k}; predicted and measured on {found.measured_tokens:,} tokens "
        "(95 % intervals over features)",
        f"predicted from mean, covariance and a reach of {prediction.reach:.3g}, which is that of "
        f"{prediction.effective_tokens:,.0f} Gaussian tokens; from the moments alone "
        f"{prediction.moments_dead:.2%}",
        f"closed form for {found.tokens:,} tokens: {found.predicted_relu:.2%} by ReLU, "
        f"{found.predicted_dead:.2%} either",
        f"Gaussian activations of full rank at this gamma: {found.gaussian_dead:.2%} either "
        "(an integral of this project; the closed form is too low for them below gamma 4)",
    ]
    if others is not None:
        lines.append(
            f"without massive tokens {others.measured_tokens:,} are left, of gamma "
            f"{others.gamma:.3g}"
        )
    if hides_mean(found.statistics):
        lines.append(
            f"the closed form goes by gamma, {found.statistics.gamma:.3g}, which leaves out the "
            "mean that all dimensions share; raw features meet gamma rms, "
            f"{found.statistics.gamma_rms:.3g}"
        )
    further = found.raw_dead_at_n
    if further is not None:
        known = _share(further) if further.value is not None else f"not known: {further.reason}"
        lines.append(f"raw, at {found.tokens:,} tokens: {known}")
    return "\n".join(lines)


def _causes(found: Diagnosis) -> str:
    """The raw arm's death by cause."""
    from tabulate import tabulate

    shares = found.attribution
    rows = [
        ("due to the mean", _share(shares.mean), "raw minus centered"),
        ("due to the spectrum", _share(shares.spectrum), "centered minus whitened"),
        ("due to neither", _share(shares.rest), "whitened"),
    ]
    return tabulate(rows, tablefmt="plain", disable_numparse=True)


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def _times(ratio: float | None) -> str:
    return "none" if ratio is None else f"{ratio:.3g} times"


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{share:.1%}"


def _share(estimate: Estimate) -> str:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return estimate.reason or ""
    return f"{estimate.value:.2%} ({estimate.low:.2%} to {estimate.high:.2%})"


def _verdict(found: Diagnosis) -> str:
    return f"verdict: {found.verdict.action}\n{found.verdict.reason}"
