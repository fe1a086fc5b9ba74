"""Any activations: will a sparse autoencoder die on them, why, and what cures it?

No model card and no training: the statistics, what follows from them, and a census of a fresh
dictionary on the tokens as they are (raw), centered by their geometric median, and whitened; and
where some tokens are massive, the same without these.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from adapters.tensors import as_tensor
from bench.death import theory
from bench.death.census import Census
from bench.death.extrapolation import dead_rate_at
from bench.death.prediction import predict
from bench.death.theory import Attribution
from bench.diagnosis.files import Activations
from bench.diagnosis.verdict import Rates, Verdict, judge
from bench.intervals import Estimate, binomial_interval
from bench.records.schema import Prediction, Statistics
from bench.sae.arms import PRESETS
from bench.sae.initial import InitialSAEs
from bench.sae.recipe import REFERENCE
from bench.statistics.layer import GammaStatistics, LayerStatistics
from bench.statistics.mean_error import MeanError, without_chance
from bench.statistics.reservoir import Reservoir
from bench.statistics.token_norms import ordinary_tokens
from zoo.errors import BadActivations, UsageError

ActivationSource = Tensor | np.ndarray | Activations | Iterable[Tensor | np.ndarray]

# The share of the spread that rounding to float32 may lose.
_MOST_ROUNDED = 1e-3

_BATCH = 4096

_COMPARED = ("raw", "centered", "whitened")


@dataclass(frozen=True)
class ArmDeath:
    """Features that are dead at initialisation in one arm: shares with binomial intervals."""

    arm: str
    by_relu: Estimate
    by_topk: Estimate
    dead: Estimate

    @classmethod
    def of(cls, arm: str, found: Census) -> ArmDeath:
        counts = (found.dead_relu, found.dead_topk, found.dead)
        return cls(arm, *(binomial_interval(count, found.n) for count in counts))


@dataclass(frozen=True)
class WithoutMassive:
    """The same on ordinary tokens, of at most ten times the median norm; see `token_norms`.

    measured_tokens: of the sample. gamma: after a per-token LayerNorm.
    """

    measured_tokens: int
    gamma: float
    arms: tuple[ArmDeath, ...]


@dataclass(frozen=True)
class Diagnosis:
    """Everything `diagnose` found.

    measured_tokens: tokens of the census, at most N (`tokens`), a uniform sample of all of them.
    prediction: of the raw arm on the measured tokens, by `bench.death.prediction`.
    predicted_*: closed forms at N tokens. gaussian_dead: what Gaussian activations of full rank
    with that gamma would show there (`bench.death.theory.gaussian_dead`, not the paper's).
    gamma_without_chance: gamma less what the mean of so many tokens, in the order in which they
        came, is off by chance; None of a handful of tokens.
    without_massive: None where no token is massive, or the others do not vary.
    by_chance: share of features that would stay silent on the measured tokens if all fired
        equally often.
    raw_dead_at_n: the raw arm's death rate at N tokens, estimated from fewer; None where as many
    were measured.
    """

    n: int
    k: int
    tokens: int
    seed: int
    measured_tokens: int
    statistics: Statistics
    gamma_without_chance: float | None
    prediction: Prediction
    predicted_relu: float
    predicted_dead: float
    gaussian_dead: float
    by_chance: float
    arms: tuple[ArmDeath, ...]
    attribution: Attribution
    without_massive: WithoutMassive | None
    raw_dead_at_n: Estimate | None
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        parts = {"statistics": self.statistics, "prediction": self.prediction}
        return asdict(self) | {name: part.model_dump() for name, part in parts.items()}


def diagnose(
    activations: ActivationSource,
    *,
    n: int = REFERENCE.n,
    k: int = REFERENCE.k,
    tokens: int = REFERENCE.N,
    seed: int = 0,
    device: str = "cpu",
) -> Diagnosis:
    """Diagnose activations [tokens, width]: a tensor, an array, an iterable of those, or a file
    opened by `bench.diagnosis.files.open_activations`. Every token is read once.

    n, k: dictionary size and features per token. tokens: the sample N that death is about; of more
    a uniform sample is taken. seed: of the sample and of the dictionary.

    Raises:
        BadActivations: not [tokens, width], not real floating point, not finite, fewer than two
            tokens, or no variance.
        UsageError: n, k or tokens make no sense.
    """
    if not 1 <= k < n:
        raise UsageError(f"k = {k} is not between 1 and n = {n}")
    if tokens < 2:
        raise UsageError(f"N = {tokens} tokens are too few", "Death is about many tokens.")
    read = read_sample(activations, tokens, seed, device)
    stats, sample = read.statistics, read.sample
    initial = InitialSAEs(sample, n, k)
    # Only the raw arm's firings are needed, where they predict those of a larger sample.
    initial.census(PRESETS["raw"], seed, counts=len(sample) < tokens)
    found = initial.presets(seed)
    everyone = _rates(found)
    others = _without_massive(sample, n, k, seed) if stats.massive_share else None
    arms = {arm: ArmDeath.of(arm, census) for arm, census in found.items()}
    return Diagnosis(
        n=n,
        k=k,
        tokens=tokens,
        seed=seed,
        measured_tokens=len(sample),
        statistics=stats,
        gamma_without_chance=read.gamma_without_chance,
        prediction=predict(read.collected, sample, k, n),
        predicted_relu=theory.predicted_relu(stats.gamma, tokens),
        predicted_dead=theory.predicted_dead(stats.gamma, tokens, k, n),
        gaussian_dead=theory.gaussian_dead(stats.gamma, tokens, k, n),
        by_chance=everyone.by_chance,
        arms=tuple(arms.values()),
        attribution=theory.attribution(*(arms[arm].dead for arm in _COMPARED)),
        without_massive=others[0] if others else None,
        raw_dead_at_n=_at_target(found["raw"], sample, tokens, seed),
        verdict=judge(
            everyone,
            stats,
            ordinary=others[1] if others else None,
            gamma_without_chance=read.gamma_without_chance,
        ),
    )


def _rates(found: dict[str, Census]) -> Rates:
    raw, centered, whitened = (found[arm] for arm in _COMPARED)
    by_chance = (1 - raw.k / raw.n) ** raw.tokens
    return Rates(raw.dead_rate, centered.dead_rate, whitened.dead_rate, raw.tokens, by_chance)


def _without_massive(
    sample: Tensor, n: int, k: int, seed: int
) -> tuple[WithoutMassive, Rates] | None:
    """The census of the same dictionaries on the sample's ordinary tokens."""
    ordinary = sample[ordinary_tokens(sample)]
    if len(ordinary) in (0, 1, len(sample)):
        return None
    gammas = GammaStatistics(sample.shape[1])
    gammas.update(ordinary)
    try:
        found = InitialSAEs(ordinary, n, k).presets(seed)
        gamma = gammas.result().gamma
    except BadActivations:  # they do not vary
        return None
    arms = tuple(ArmDeath.of(arm, census) for arm, census in found.items())
    return WithoutMassive(len(ordinary), gamma, arms), _rates(found)


class Read(NamedTuple):
    """What was read: statistics of all tokens, and at most so many of them, [sample, width]."""

    statistics: Statistics
    sample: Tensor
    collected: LayerStatistics
    gamma_without_chance: float | None


def read_sample(activations: ActivationSource, tokens: int, seed: int, device: str) -> Read:
    """The statistics of all tokens, and at most `tokens` of them. Raises BadActivations."""
    statistics: LayerStatistics | None = None
    sample: Reservoir | None = None
    error: MeanError | None = None
    for batch in _batches(activations):
        if batch.ndim != 2:
            raise BadActivations(
                f"activations have shape {tuple(batch.shape)}, not [tokens, width]",
                "Flatten to one row per token; leave padding out.",
            )
        if statistics is None or sample is None or error is None:
            statistics = LayerStatistics(batch.shape[1], seed=seed)
            error = MeanError(batch.shape[1], "layernorm")
            sample = Reservoir(batch.shape[1], capacity=tokens, seed=seed)
        statistics.update(batch.to(device))
        sample.update(batch)
        error.update(batch)
    if statistics is None or sample is None or error is None:
        raise BadActivations("no tokens", "Give at least two.")
    if sample.seen == 1:
        raise BadActivations("one token has no variance", "Give at least two, better thousands.")
    found = statistics.result()
    squared = error.squared()
    variance = float(statistics.moments.layernorm.variance.sum())
    without = None if squared is None else without_chance(found.gamma, squared, variance)
    rows = _as_float32(sample.rows().to(device), found.sigma_norm)
    return Read(found, rows, statistics, without)


def _as_float32(sample: Tensor, sigma_norm: float) -> Tensor:
    """The sample as dictionaries see it, [tokens, width].

    Raises:
        BadActivations: what is rounded away is too much of the spread.
    """
    rounded = sample.float()
    if sample.dtype != torch.float64:
        return rounded
    if not bool(rounded.isfinite().all()):
        raise BadActivations(
            "the activations are finite in float64, but larger than float32 holds",
            "Divide them by one number: it decides nothing.",
        )
    error = sample - rounded
    lost = float(torch.linalg.vector_norm(error - error.mean(0))) / len(sample) ** 0.5
    if lost > _MOST_ROUNDED * sigma_norm:
        raise BadActivations(
            f"rounding the activations from float64 to float32 loses {lost / sigma_norm:.1%} of "
            "their spread, which is small beside their mean or beside float32's least number",
            "Subtract their mean, or multiply them by one number, in float64.",
        )
    return rounded


def _batches(activations: ActivationSource) -> Iterator[Tensor]:
    if isinstance(activations, Activations):
        parts: Iterable[Tensor | np.ndarray] = activations.chunks()
    elif isinstance(activations, Tensor | np.ndarray):
        parts = [activations]
    else:
        parts = activations
    for part in parts:
        tensor = as_tensor(_checked(part))
        yield from tensor.split(_BATCH) if tensor.ndim else [tensor]


def _checked(part: object) -> Tensor | np.ndarray:
    if not isinstance(part, Tensor | np.ndarray):
        raise BadActivations(f"activations hold a {type(part).__name__}, not a tensor or an array")
    if isinstance(part, np.ndarray) and part.dtype.kind != "f":
        raise BadActivations(
            f"activations have dtype {part.dtype}", "They must be real floating point numbers."
        )
    return part


def _at_target(raw: Census, sample: Tensor, target: int, seed: int) -> Estimate | None:
    if raw.counts is None or len(sample) < 4:  # half of it needs two tokens
        return None
    half = InitialSAEs(sample[: len(sample) // 2], raw.n, raw.k)
    first_half = half.census(PRESETS["raw"], seed, counts=True).counts
    assert first_half is not None
    return dead_rate_at(raw.counts, len(sample), target, first_half=first_half)
