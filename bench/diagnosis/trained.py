"""A trained SAE on any activations: which features are dead, how, and would centering help?

The SAE may be of any library that `bench.sae.interop` reads. Its n, k and family are its own.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor

from bench.death.census import Census
from bench.diagnosis.reading import ActivationSource, read_sample
from bench.diagnosis.text import notes_text, share_text
from bench.intervals import Estimate, binomial_interval
from bench.records.schema import Statistics
from bench.sae.model import SAE
from bench.sae.origin import Origin
from bench.sae.quality import LEAST_GAMMA, Quality, quality
from bench.sae.recipe import REFERENCE
from bench.statistics.geometric_median import geometric_median
from zoo.errors import BadActivations

# A share of dead features that costs nothing worth mending.
_TOLERATED = 0.01


@dataclass(frozen=True)
class TrainedDiagnosis:
    """What a trained SAE does on `measured_tokens` tokens.

    by_relu, by_topk, dead: shares of its n features, with binomial 95 % intervals.
    dead_if_centered: the same SAE with its bias at the tokens' geometric median, all else as it
        is: what is alive there and dead here is dead because the bias has not learned the mean.
    mean_learned: <b, mu> / ||mu||^2 in the space of the activations, a center that was subtracted
        before training included; 1 is all of the mean, None where there is no mean to learn.
    fvu: fraction of variance unexplained. fvu_ordinary: the same on ordinary tokens, see
        `bench.sae.quality`. l0: features that fire per token. always_on: features that fire on more
        than 99 % of the tokens.
    """

    family: str
    n: int
    k: int
    measured_tokens: int
    origin: Origin
    statistics: Statistics
    by_relu: Estimate
    by_topk: Estimate
    dead: Estimate
    dead_if_centered: Estimate
    mean_learned: float | None
    fvu: float
    fvu_ordinary: float | None
    l0: float
    always_on: int
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """What the numbers say, in a sentence or two."""
        dead, centered = _value(self.dead), _value(self.dead_if_centered)
        found = f"{dead:.1%} of the {self.n:,} features are dead on these tokens"
        if dead <= _TOLERATED:
            return f"{found}: nothing to mend."
        learned = ""
        if self.mean_learned is not None:
            learned = f", of which the bias has learned {self.mean_learned:.0%}"
        if centered <= max(_TOLERATED, dead / 2):
            return (
                f"{found}. With the bias at the geometric median {centered:.1%} would be: the mean "
                f"keeps them dead{learned}. Subtract it from the activations before training."
            )
        return (
            f"{found}, and {centered:.1%} with the bias at the geometric median: their encoder "
            "rows are not revived by moving the bias. Train anew, with the mean subtracted."
        )

    def __str__(self) -> str:
        """How large it is, numbers, and the verdict."""
        return _describe_trained(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        statistics = self.statistics.model_dump(mode="json")
        return asdict(self) | {"statistics": statistics, "verdict": self.verdict}


@torch.no_grad()
def diagnose_sae(
    activations: ActivationSource,
    sae: SAE,
    *,
    origin: Origin | None = None,
    tokens: int = REFERENCE.N,
    seed: int = 0,
    device: str = "cpu",
    max_tokens: int | None = None,
    key: str | None = None,
) -> TrainedDiagnosis:
    """A trained SAE on activations [tokens, width], as `bench.diagnosis.diagnose.diagnose` takes.

    tokens: death is about at most so many of them, a uniform sample drawn by `seed`.
    max_tokens, key: as there.

    Raises:
        BadActivations: they do not fit the SAE's width, are not finite, or do not vary.
    """
    read = read_sample(activations, tokens, seed, device, max_tokens=max_tokens, key=key)
    statistics, sample = read.statistics, read.sample
    if statistics.width != sae.width:
        raise BadActivations(
            f"the activations have width {statistics.width}, the SAE takes {sae.width}",
            "Give activations of the layer that it was trained on.",
        )
    measured = measure_sae(sae.to(device), sample)
    found = measured.census
    return TrainedDiagnosis(
        family=sae.family.name,
        n=sae.n,
        k=sae.k,
        measured_tokens=len(sample),
        origin=origin or Origin(),
        statistics=statistics,
        by_relu=_share(found.dead_relu, found),
        by_topk=_share(found.dead_topk, found),
        dead=_share(found.dead, found),
        dead_if_centered=_share(measured.dead_if_centered, found),
        mean_learned=measured.mean_learned,
        fvu=measured.quality.fvu,
        fvu_ordinary=measured.quality.fvu_ordinary,
        l0=measured.quality.l0,
        always_on=int(found.always_on or 0),
        notes=read.notes,
    )


@dataclass(frozen=True)
class SAEMeasures:
    """A trained SAE on a sample; `TrainedDiagnosis` says what the numbers mean."""

    census: Census
    dead_if_centered: int
    mean_learned: float | None
    quality: Quality


@torch.no_grad()
def measure_sae(sae: SAE, sample: Tensor) -> SAEMeasures:
    """A trained SAE on raw activations [tokens, width], on their device.

    Raises:
        BadActivations: they are not finite, or do not vary.
    """
    plain = sae.folded()
    inputs = plain.transform.apply(sample)[0]
    centered = replace(plain, b=geometric_median(inputs).point.to(plain.b))
    return SAEMeasures(
        census=plain.census(sample, counts=True),
        dead_if_centered=centered.census(sample).dead,
        mean_learned=learned_share(plain.b, inputs),
        quality=quality(plain, sample),
    )


def _share(count: int, found: Census) -> Estimate:
    return binomial_interval(count, found.n)


def _value(estimate: Estimate) -> float:
    assert estimate.value is not None
    return estimate.value


def learned_share(b: Tensor, inputs: Tensor) -> float | None:
    """<b, mu> / ||mu||^2 of the inputs [tokens, d]; None where ||mu|| is nothing beside ||sigma||.

    0: the bias b [d] has learned nothing of the mean; 1: all of it.
    """
    mu = inputs.mean(0, dtype=torch.float64)
    sigma = inputs.var(0, correction=0).sum().sqrt()
    if float(mu.norm()) < LEAST_GAMMA * float(sigma):
        return None
    return float(b.double() @ mu / mu.square().sum())


def _describe_trained(found: TrainedDiagnosis) -> str:
    """The diagnosis of a trained SAE for a reader: how large it is, numbers, the verdict."""
    learned = "no mean to learn" if found.mean_learned is None else f"{found.mean_learned:.1%}"
    rows = [
        ("gamma", f"{found.statistics.gamma:.4g}", "after a per-token LayerNorm"),
        ("gamma raw", f"{found.statistics.gamma_raw:.4g}", "as they are"),
        ("dead by ReLU", share_text(found.by_relu), "pre-activation never > 0"),
        ("dead by TopK", share_text(found.by_topk), "> 0 somewhere, never selected"),
        ("dead", share_text(found.dead), f"on {found.measured_tokens:,} tokens"),
        ("dead if centered", share_text(found.dead_if_centered), "b at the geometric median"),
        ("mean learned", learned, "by the bias, a subtracted center included"),
        ("FVU", f"{found.fvu:.4g}", "variance unexplained"),
        ("FVU ordinary", _number(found.fvu_ordinary), "without massive tokens"),
        ("L0", f"{found.l0:.4g}", "features per token"),
        ("always on", f"{found.always_on:,}", "features, on > 99 % of the tokens"),
    ]
    table = tabulate(rows, tablefmt="plain", disable_numparse=True)
    parts = [f"{found.family}, n {found.n:,}, k {found.k}", notes_text(found.notes), table]
    return "\n\n".join(part for part in [*parts, found.verdict] if part)


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"
