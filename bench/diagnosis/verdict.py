"""What to do about a layer, and why, in sentences that are true of the numbers they name."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from bench.diagnosis.rule import INSURANCE, TOLERATED, Cause, advised_arm, cause_of_death
from bench.records.schema import Statistics
from bench.statistics.token_norms import MASSIVE_RATIO

Action = Literal[
    "no action needed", "leave massive tokens out", "center, AuxK", "no cure found", "more tokens"
]

# The actions that do not follow the rule of thumb.
_UNADVISED: tuple[Action, ...] = ("no cure found", "more tokens")

# With more than this share silent by chance alone, the sample is too small to tell.
MOST_BY_CHANCE = 0.1

# Below this gamma a mean kills no feature, hidden, by chance or not.
_HARMLESS = 0.1

# Of features that are born alive.
_IN_TRAINING = "AuxK helps those that die in training."
_INSURANCE = (
    "Train as you would. AuxK is insurance against features that die in training: on the one such "
    f"layer that was compared (n 256, k 8, 2,000 steps), {INSURANCE.dead_without:.0%} of the "
    f"features did without it and {INSURANCE.dead_with:.0%} with it, for steps that take "
    f"about {INSURANCE.step - 1:.0%} longer."
)

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
    if found.action in _UNADVISED:
        return Verdict(found.action, " ".join(sentences))
    arm = advised_arm(rates.cause, massive=ordinary is not None)
    return Verdict(found.action, " ".join(sentences), arm)


def tokens_needed(n: int, k: int) -> int:
    """The fewest tokens on which a verdict is given: about 2.3 n / k.

    Of features that all fire equally often, on k / n of the tokens, at most `MOST_BY_CHANCE` are
    then silent by chance.
    """
    return math.ceil(math.log(MOST_BY_CHANCE) / math.log(1 - k / n))


def hides_mean(stats: Statistics) -> bool:
    """Whether LayerNorm takes away much of the mean that decides about death.

    Death at birth depends on the tokens' directions, which `gamma_rms` is about; `gamma` leaves out
    what all dimensions of a token have in common.
    """
    return stats.gamma_rms > max(1.5 * stats.gamma, _HARMLESS)


def _verdict(rates: Rates, stats: Statistics, *, without_massive: bool) -> Verdict:
    raw, centered, whitened, tokens, by_chance = rates
    if by_chance > MOST_BY_CHANCE:
        return Verdict(
            "more tokens",
            f"On {tokens:,} tokens {by_chance:.0%} of the features would stay silent by chance; "
            f"at most {MOST_BY_CHANCE:.0%} may for a verdict, which takes about 2.3 n / k tokens.",
        )
    which = " without them" if without_massive else ""
    found = f"{raw:.1%} of the features are dead{which}"
    if rates.cause == "nothing":
        action: Action = "leave massive tokens out" if without_massive else "no action needed"
        if raw > TOLERATED:
            found += f", and by chance alone {by_chance:.1%} may be on {tokens:,} tokens"
        return Verdict(action, f"{found}; {_gamma(stats)}. {_INSURANCE}")
    if rates.cause == "mean":
        return Verdict(
            "center, AuxK",
            f"{found}, and {centered:.1%} once they are centered by the geometric median: what "
            f"they die of is the mean ({_gamma(stats)}). {_IN_TRAINING}",
        )
    if whitened <= max(rates.allowed, centered / 2):
        return Verdict(
            "center, AuxK",
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
    if without_chance is None or stats.gamma < max(_HARMLESS, _INFLATED * without_chance):
        return []
    return [
        f"Gamma is inflated by few tokens or few sequences: of {stats.gamma:.3g} about "
        f"{without_chance:.3g} is left without what the mean of these {stats.tokens:,} tokens is "
        "off by chance. Tokens of more sequences would tell."
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
