"""What a diagnosis found, as numbers: in one object, as JSON, and as a frame."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bench.death.census import Census
from bench.death.theory import Attribution
from bench.diagnosis.verdict import Verdict
from bench.intervals import Estimate, binomial_interval
from bench.records.schema import Prediction, Statistics

if TYPE_CHECKING:
    import pandas as pd


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
class DiagnosisNumbers:
    """Everything that a diagnosis found.

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
    notes: what was done to what was given, and what looks odd about it.
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
    notes: tuple[str, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """A row per arm: shares of dead features with intervals, beside gamma and sizes."""
        import pandas as pd

        rows = []
        for arm in self.arms:
            row: dict[str, Any] = {"arm": arm.arm}
            for name in ("by_relu", "by_topk", "dead"):
                share: Estimate = getattr(arm, name)
                ends = {"": share.value, "_low": share.low, "_high": share.high}
                row |= {name + end: value for end, value in ends.items()}
            stats = self.statistics
            row |= {"gamma": stats.gamma, "gamma_raw": stats.gamma_raw, "n": self.n, "k": self.k}
            rows.append(row | {"tokens": self.measured_tokens, "action": self.verdict.action})
        return pd.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        parts = {"statistics": self.statistics, "prediction": self.prediction}
        return asdict(self) | {name: part.model_dump() for name, part in parts.items()}
