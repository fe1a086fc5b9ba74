"""What to do about a layer, and why, in sentences that are true of the numbers they name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from bench.diagnosis.rule import TOLERATED, Cause, advised_arm, cause_of_death
from bench.records.schema import Statistics
from bench.statistics.token_norms import MASSIVE_RATIO

Action = Literal["AuxK", "center, AuxK", "no cure found", "more tokens"]

# The actions that follow the rule of thumb.
_ADVISED: dict[Cause, Action] = {
    "nothing": "AuxK",
    "mean": "center, AuxK",
    "spectrum": "center, AuxK",
}

# With more than this share silent by chance alone, the sample is too small to tell.
MOST_BY_CHANCE = 0.1

# Below this gamma a mean kills no feature, hidden or not.
_LEAST_HIDDEN = 0.1

# Of features that are born alive.
_IN_TRAINING = "AuxK helps those that die in training."

# Variance in fewer than this share of the dimensions sits in few directions.
_FEW_DIRECTIONS = 0.25

# A gamma that chance raised by this much is said to be inflated.
_INFLATED = 1.1


class Rates(NamedTuple):
    """Shares of features that are dead in the three arms, on so many tokens, and by chance."""

    raw: float
    centered: float
    whitened: float
    tokens: int
    by_chance: float

    @property
    def allowed(self) -> float:
        """The share of dead features that needs no cure, what chance leaves silent included."""
        return self.by_chance + TOLERATED

    @property
    def cause(self) -> Cause:
        """What features die of, as the rule of thumb has it."""
        return cause_of_death(self.raw, self.centered, self.allowed)


@dataclass(frozen=True)
class Verdict:
    """What to do, and why, in a sentence or more; what is said first matters most.

    arm: what the rule of thumb (`bench.diagnosis.rule`) names, as `bench run --arm` takes it; None
    where it has no advice.
    """

    action: Action
    reason: str
    arm: str | None = None


def judge(
    everyone: Rates,
    stats: Statistics,
    *,
    ordinary: Rates | None = None,
    gamma_without_chance: float | None = None,
) -> Verdict:
    """The verdict on a layer.

    ordinary: without massive tokens, where there are any: the action is about these.
    gamma_without_chance: gamma less what the mean is off by chance, where that is known.
    """
    rates = ordinary or everyone
    found = _verdict(rates, stats, without_massive=ordinary is not None)
    sentences = [
        *(_about_massive(everyone, ordinary, stats) if ordinary else []),
        found.reason,
        *_about_chance(stats, gamma_without_chance),
    ]
    follows = found.action in _ADVISED.values()
    arm = advised_arm(rates.cause, massive=ordinary is not None) if follows else None
    return Verdict(found.action, " ".join(sentences), arm)


def hides_mean(stats: Statistics) -> bool:
    """Whether LayerNorm takes away much of the mean that decides about death.

    Death at birth depends on the tokens' directions, which `gamma_rms` is about; `gamma` leaves out
    what all dimensions of a token have in common.
    """
    return stats.gamma_rms > max(1.5 * stats.gamma, _LEAST_HIDDEN)


def is_inflated(gamma: float, without_chance: float | None) -> bool:
    """Whether much of gamma may be chance: too few tokens, or too few sequences of them."""
    return without_chance is not None and gamma > _INFLATED * without_chance


def _verdict(rates: Rates, stats: Statistics, *, without_massive: bool) -> Verdict:
    raw, centered, whitened, tokens, by_chance = rates
    if by_chance > MOST_BY_CHANCE:
        return Verdict(
            "more tokens",
            f"On {tokens:,} tokens {by_chance:.0%} of the features would stay silent by chance.",
        )
    which = " without them" if without_massive else ""
    found = f"{raw:.1%} of the features are dead{which}"
    if rates.cause == "nothing":
        return Verdict(_ADVISED["nothing"], f"{found}; {_gamma(stats)}. {_IN_TRAINING}")
    if rates.cause == "mean":
        return Verdict(
            _ADVISED["mean"],
            f"{found}, and {centered:.1%} once they are centered by the geometric median: what "
            f"they die of is the mean ({_gamma(stats)}). {_IN_TRAINING}",
        )
    if whitened <= max(rates.allowed, centered / 2):
        return Verdict(
            _ADVISED["spectrum"],
            f"{found}, and {centered:.1%} after centering: {_spectrum(stats)}. No remedy that was "
            "measured is enough for this: AuxK helps, and keeps the error small; whitened, "
            f"{whitened:.1%} are dead, but SAEs trained so err several times as much.",
        )
    return Verdict(
        "no cure found",
        f"{found}, {centered:.1%} centered and {whitened:.1%} whitened; {_gamma(stats)}, "
        f"{_spectrum(stats)}. A smaller dictionary or a larger k may help.",
    )


def _about_massive(everyone: Rates, ordinary: Rates, stats: Statistics) -> list[str]:
    share, ratio = stats.massive_share, stats.norm_ratio
    assert share is not None
    largest = f", the largest {ratio:,.0f} times" if ratio is not None else ""
    said = [
        f"{share:.2%} of the tokens are massive, over {MASSIVE_RATIO:.0f} times the median norm"
        f"{largest}: leave them out of training (bench run --set mask_norm=10)."
    ]
    if everyone.centered > everyone.allowed and ordinary.centered <= everyone.centered / 2:
        said.append(
            f"Centering looks useless because of them: {everyone.centered:.1%} of the features are "
            f"dead centered with them, {ordinary.centered:.1%} without."
        )
    if stats.gamma_rms > 1.5 * stats.gamma_raw:
        said.append(
            f"They hide the mean from the raw gamma: it is {stats.gamma_raw:.3g}, and "
            f"{stats.gamma_rms:.3g} where each token counts alike."
        )
    return said


def _about_chance(stats: Statistics, without_chance: float | None) -> list[str]:
    if without_chance is None or not is_inflated(stats.gamma, without_chance):
        return []
    return [
        f"Gamma is inflated by few tokens or few sequences: of {stats.gamma:.3g} about "
        f"{without_chance:.3g} is left without what the mean of these {stats.tokens:,} tokens is "
        "off by chance."
    ]


def _gamma(stats: Statistics) -> str:
    about = f"gamma is {stats.gamma:.3g}"
    if hides_mean(stats):
        about += f" after a LayerNorm and {stats.gamma_rms:.3g} without, which counts here"
    return about


def _spectrum(stats: Statistics) -> str:
    rank = f"effective rank {stats.effective_rank:.3g} of {stats.width}"
    if stats.effective_rank < _FEW_DIRECTIONS * stats.width:
        return f"the variance sits in few directions ({rank})"
    return f"the {rank} is not small"
