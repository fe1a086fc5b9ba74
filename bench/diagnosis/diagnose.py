"""Any activations: will a sparse autoencoder die on them, why, and what cures it?

No model card and no training: the statistics, what the closed forms predict from them, and a
census of a fresh dictionary on the tokens as they are (raw), centered by their geometric median,
and whitened.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from adapters.tensors import as_tensor
from bench.death import theory
from bench.death.census import Census
from bench.death.extrapolation import dead_rate_at
from bench.death.theory import Attribution
from bench.diagnosis.files import Activations
from bench.intervals import Estimate, binomial_interval
from bench.records.schema import Statistics
from bench.sae.arms import PRESETS
from bench.sae.initial import InitialSAEs
from bench.sae.recipe import REFERENCE
from bench.statistics.layer import LayerStatistics
from bench.statistics.reservoir import Reservoir
from zoo.errors import BadActivations, UsageError

Source = Tensor | np.ndarray | Activations | Iterable[Tensor | np.ndarray]
Action = Literal["nothing to do", "center", "whiten", "no cure found", "more tokens"]

# A share of dead features that needs no cure, above what chance leaves silent.
_TOLERATED = 0.01

# With more than this share silent by chance alone, the sample is too small to tell.
_MOST_BY_CHANCE = 0.1

# Below this gamma a mean kills no feature, hidden or not.
_LEAST_HIDDEN = 0.1

# The share of the spread that rounding to float32 may lose.
_MOST_ROUNDED = 1e-3

_BATCH = 4096


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
class Verdict:
    """What to do, and why, in a sentence."""

    action: Action
    reason: str


@dataclass(frozen=True)
class Diagnosis:
    """Everything `diagnose` found.

    measured_tokens: tokens of the census, at most N (`tokens`), a uniform sample of all of them.
    predicted_*: closed forms at N tokens. gaussian_dead: what Gaussian activations of full rank
    with that gamma would show there (`bench.death.theory.gaussian_dead`, not the paper's).
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
    predicted_relu: float
    predicted_dead: float
    gaussian_dead: float
    by_chance: float
    arms: tuple[ArmDeath, ...]
    attribution: Attribution
    raw_dead_at_n: Estimate | None
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self) | {"statistics": self.statistics.model_dump()}


def diagnose(
    activations: Source,
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
    stats, sample = read_sample(activations, tokens, seed, device)
    initial = InitialSAEs(sample, n, k)
    # Only the raw arm's firings are needed, where they predict those of a larger sample.
    initial.census(PRESETS["raw"], seed, counts=len(sample) < tokens)
    found = initial.presets(seed)
    by_chance = (1 - k / n) ** len(sample)
    arms = {arm: ArmDeath.of(arm, census) for arm, census in found.items()}
    compared = ("raw", "centered", "whitened")
    raw, centered, whitened = (found[arm].dead_rate for arm in compared)
    return Diagnosis(
        n=n,
        k=k,
        tokens=tokens,
        seed=seed,
        measured_tokens=len(sample),
        statistics=stats,
        predicted_relu=theory.predicted_relu(stats.gamma, tokens),
        predicted_dead=theory.predicted_dead(stats.gamma, tokens, k, n),
        gaussian_dead=theory.gaussian_dead(stats.gamma, tokens, k, n),
        by_chance=by_chance,
        arms=tuple(arms.values()),
        attribution=theory.attribution(*(arms[arm].dead for arm in compared)),
        raw_dead_at_n=_at_target(found["raw"], sample, tokens, seed),
        verdict=judge(raw, centered, whitened, by_chance, len(sample), stats),
    )


def judge(
    raw: float,
    centered: float,
    whitened: float,
    by_chance: float,
    tokens: int,
    stats: Statistics,
) -> Verdict:
    """The verdict from the three arms' death rates on so many tokens."""
    if by_chance > _MOST_BY_CHANCE:
        return Verdict(
            "more tokens",
            f"On {tokens:,} tokens {by_chance:.0%} of the features would stay silent by chance.",
        )
    allowed = by_chance + _TOLERATED
    about = f"gamma is {stats.gamma:.3g}"
    if hides_mean(stats):
        about += f" after a LayerNorm and {stats.gamma_rms:.3g} without, which counts here"
    if raw <= allowed:
        return Verdict("nothing to do", f"{raw:.1%} of the features are dead; {about}.")
    narrow = (
        f"the variance sits in few directions (effective rank {stats.effective_rank:.3g} "
        f"of {stats.width})"
    )
    if centered <= allowed:
        return Verdict(
            "center",
            f"{raw:.1%} of the features are dead since the mean outweighs the spread ({about}); "
            f"centered by the geometric median, {centered:.1%} are.",
        )
    if whitened <= max(allowed, centered / 2):
        return Verdict(
            "whiten",
            f"{raw:.1%} of the features are dead, and {centered:.1%} after centering: {narrow}; "
            f"whitened, {whitened:.1%} are.",
        )
    return Verdict(
        "no cure found",
        f"{raw:.1%} of the features are dead, {centered:.1%} centered and {whitened:.1%} whitened; "
        f"{about}, {narrow}. A smaller dictionary or a larger k may help.",
    )


def hides_mean(stats: Statistics) -> bool:
    """Whether LayerNorm takes away much of the mean that decides about death.

    Death at birth depends on the tokens' directions, which `gamma_rms` is about; `gamma` leaves out
    what all dimensions of a token have in common.
    """
    return stats.gamma_rms > max(1.5 * stats.gamma, _LEAST_HIDDEN)


def read_sample(
    activations: Source, tokens: int, seed: int, device: str
) -> tuple[Statistics, Tensor]:
    """The statistics of all tokens, and at most `tokens` of them, [sample, width]."""
    statistics: LayerStatistics | None = None
    sample: Reservoir | None = None
    for batch in _batches(activations):
        if batch.ndim != 2:
            raise BadActivations(
                f"activations have shape {tuple(batch.shape)}, not [tokens, width]",
                "Flatten to one row per token; leave padding out.",
            )
        if statistics is None or sample is None:
            statistics = LayerStatistics(batch.shape[1], seed=seed)
            sample = Reservoir(batch.shape[1], capacity=tokens, seed=seed)
        statistics.update(batch.to(device))
        sample.update(batch)
    if statistics is None or sample is None:
        raise BadActivations("no tokens", "Give at least two.")
    if sample.seen == 1:
        raise BadActivations("one token has no variance", "Give at least two, better thousands.")
    found = statistics.result()
    return found, _as_float32(sample.rows().to(device), found.sigma_norm)


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


def _batches(activations: Source) -> Iterator[Tensor]:
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
