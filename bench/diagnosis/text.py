"""Diagnoses in words: what `print` and `bench diagnose` show."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from bench.diagnosis.numbers import DiagnosisNumbers
from bench.diagnosis.remedy import remedy_code
from bench.diagnosis.verdict import hides_mean
from bench.intervals import Estimate


def describe_diagnosis(found: DiagnosisNumbers) -> str:
    """The diagnosis for a reader: the verdict, numbers, and what to do as code."""
    parts = (
        _verdict(found),
        notes_text(found.notes),
        _massive(found),
        _statistics(found),
        _death(found),
        _causes(found),
        remedy_code(found),
    )
    return "\n\n".join(part for part in parts if part)


def notes_text(notes: Sequence[str]) -> str:
    """A line per note."""
    return "\n".join(f"note: {note}" for note in notes)


def _massive(found: DiagnosisNumbers) -> str:
    """Massive tokens, which everything below is to be read with; nothing where there are none."""
    stats = found.statistics
    if not stats.massive_share:
        return ""
    ratio = "" if stats.norm_ratio is None else f", the largest {stats.norm_ratio:,.1f} times"
    return (
        f"massive tokens: {stats.massive_share:.2%} of them are over ten times the median "
        f"norm{ratio}"
    )


def _statistics(found: DiagnosisNumbers) -> str:
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


def _reaching(tokens: float) -> str:
    """Bounded: above a billion it only says that Gaussian tokens do not reach as far."""
    return "more than a billion" if tokens > 1e9 else f"{tokens:,.0f}"


def _death(found: DiagnosisNumbers) -> str:
    prediction, others = found.prediction, found.without_massive
    headers = ["dead features", "prediction, raw", *(arm.arm for arm in found.arms)]
    rows = [
        ("by ReLU", f"{prediction.relu:.2%}", *(share_text(arm.by_relu) for arm in found.arms)),
        ("by TopK", "", *(share_text(arm.by_topk) for arm in found.arms)),
        ("either", f"{prediction.dead:.2%}", *(share_text(arm.dead) for arm in found.arms)),
    ]
    if others is not None:
        rows.append(("without massive", "", *(share_text(arm.dead) for arm in others.arms)))
    table = tabulate(rows, headers, tablefmt="plain", disable_numparse=True)
    lines = [
        table,
        f"n {found.n}, k {found.k}; predicted and measured on {found.measured_tokens:,} tokens "
        "(95 % intervals over features)",
        f"predicted from mean, covariance and a reach of {prediction.reach:.3g}, which is that of "
        f"{_reaching(prediction.effective_tokens)} Gaussian tokens; from the moments alone "
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
        known = share_text(further) if further.value is not None else f"not known: {further.reason}"
        lines.append(f"raw, at {found.tokens:,} tokens: {known}")
    return "\n".join(lines)


def _causes(found: DiagnosisNumbers) -> str:
    """The raw arm's death by cause."""
    shares = found.attribution
    rows = [
        ("due to the mean", share_text(shares.mean), "raw minus centered"),
        ("due to the spectrum", share_text(shares.spectrum), "centered minus whitened"),
        ("due to neither", share_text(shares.rest), "whitened"),
    ]
    return tabulate(rows, tablefmt="plain", disable_numparse=True)


def _times(ratio: float | None) -> str:
    return "none" if ratio is None else f"{ratio:.3g} times"


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{share:.1%}"


def share_text(estimate: Estimate) -> str:
    """A share in percent with its interval, or the reason why there is none."""
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return estimate.reason or ""
    return f"{estimate.value:.2%} ({estimate.low:.2%} to {estimate.high:.2%})"


def _verdict(found: DiagnosisNumbers) -> str:
    return f"verdict: {found.verdict.action}\n{found.verdict.reason}"
