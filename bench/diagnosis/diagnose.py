"""Any activations: will a sparse autoencoder die on them, why, and what cures it?

No model card and no training: the statistics, what follows from them, and a census of a fresh
dictionary on the tokens as they are (raw), centered by their geometric median, and whitened; and
where some tokens are massive, the same without these.
"""

from __future__ import annotations

from torch import Tensor

from bench.death import theory
from bench.death.census import Census
from bench.death.extrapolation import dead_rate_at
from bench.death.prediction import predict
from bench.diagnosis.html import diagnosis_html
from bench.diagnosis.numbers import ArmDeath, DiagnosisNumbers, WithoutMassive
from bench.diagnosis.reading import ActivationSource, read_sample, whole_numbers
from bench.diagnosis.text import describe_diagnosis
from bench.diagnosis.verdict import Rates, judge
from bench.intervals import Estimate
from bench.sae.arms import PRESETS
from bench.sae.initial import InitialSAEs
from bench.sae.recipe import REFERENCE
from bench.statistics.layer import GammaStatistics
from bench.statistics.token_norms import ordinary_tokens
from zoo.errors import BadActivations, UsageError

_COMPARED = ("raw", "centered", "whitened")


class Diagnosis(DiagnosisNumbers):
    """Everything `diagnose` found; `print` and notebooks show it with the verdict first."""

    def __str__(self) -> str:
        """The verdict, numbers, and what to do as code; see `bench.diagnosis.text`."""
        return describe_diagnosis(self)

    def _repr_html_(self) -> str:
        """What notebooks show; see `bench.diagnosis.html`."""
        return diagnosis_html(self)


def diagnose(
    activations: ActivationSource,
    *,
    n: int = REFERENCE.n,
    k: int = REFERENCE.k,
    tokens: int = REFERENCE.N,
    seed: int = 0,
    device: str = "cpu",
    max_tokens: int | None = None,
    key: str | None = None,
) -> Diagnosis:
    """Diagnose activations [tokens, width] or [batch, sequence, width], which are read once.

    activations: a tensor or an array; an iterable of those, or of dictionaries and tuples that hold
        them (loaders, SAELens' ActivationsStore, dictionary_learning's ActivationBuffer, datasets);
        a dictionary or TransformerLens cache; a proxy of nnsight; or a file opened by
        `bench.diagnosis.files.open_activations`.
    n, k: dictionary size and features per token. tokens: the sample N that death is about; of more
        a uniform sample is taken. seed: of the sample and of the dictionary.
    max_tokens: stop reading after so many; by default all, of a store that never ends `tokens`.
        Of an iterator they are used up.
    key: which entry of a dictionary, a tuple or a dataset; a glob joins those it names.

    Raises:
        BadActivations: of other shapes, not real floating point, not finite, fewer than two
            tokens, or no variance.
        UsageError: n, k or tokens make no sense, or which of several entries is meant is not clear.
    """
    n, k, tokens, seed = _sizes(n, k, tokens, seed)
    read = read_sample(activations, tokens, seed, device, max_tokens=max_tokens, key=key)
    stats, sample, without_chance = read.statistics, read.sample, read.gamma_without_chance
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
        gamma_without_chance=without_chance,
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
            everyone, stats, ordinary=others and others[1], gamma_without_chance=without_chance
        ),
        notes=read.notes,
    )


def _sizes(n: int, k: int, tokens: int, seed: int) -> tuple[int, ...]:
    n, k, tokens, seed = whole_numbers(n=n, k=k, tokens=tokens, seed=seed)
    if not 1 <= k < n:
        raise UsageError(f"k = {k} is not between 1 and n = {n}")
    if tokens < 2:
        raise UsageError(f"N = {tokens} tokens are too few", "Death is about many tokens.")
    return n, k, tokens, seed


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


def _at_target(raw: Census, sample: Tensor, target: int, seed: int) -> Estimate | None:
    if raw.counts is None or len(sample) < 4:  # half of it needs two tokens
        return None
    half = InitialSAEs(sample[: len(sample) // 2], raw.n, raw.k)
    try:
        first_half = half.census(PRESETS["raw"], seed, counts=True).counts
    except BadActivations:  # they do not vary, as where they are padding
        return None
    assert first_half is not None
    return dead_rate_at(raw.counts, len(sample), target, first_half=first_half)
