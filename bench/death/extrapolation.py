"""From few tokens to many: how many features that are dead so far would fire on a larger sample.

An unseen-species problem: features are species, firings are sightings. The estimator is that of
Good and Toulmin (1956), smoothed by a binomial cut-off (Efron and Thisted 1976, with the
parameters of Orlitsky, Suresh and Wu, PNAS 2016, theorem 1). It assumes exchangeable tokens and
holds up to about log(N) times the sample; beyond that, or where the first half of the sample does
not predict the second, it is refused.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

from bench.intervals import CONFIDENCE, Estimate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike

_METHOD = "smoothed Good-Toulmin"

# How many standard errors the second half may be from what the first half predicts.
_HALVES_AGREE = 3.0


def dead_rate_at(
    counts: ArrayLike,
    tokens: int,
    target: int,
    *,
    first_half: ArrayLike | None = None,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """The share of features that would be dead on `target` tokens, from firings on `tokens`.

    counts: [n], on how many of the tokens each feature fires. first_half: the same on the first
    half of the tokens; if given, the estimate is refused where that half does not predict the
    whole. A refusal has value None and says why; so has an interval too wide to say anything.

    Raises:
        ValueError: `target` is less than `tokens`, or `tokens` less than 1.
    """
    import numpy as np

    counts = np.asarray(counts)
    if not 1 <= tokens <= target:
        raise ValueError(f"target must be at least the {tokens} tokens seen, not {target}")
    n, dead = len(counts), int((counts == 0).sum())
    ratio = target / tokens - 1
    if dead == 0 or ratio == 0:
        return Estimate(dead / n, dead / n, dead / n, confidence, _METHOD)
    if ratio > math.log(tokens):
        return _refusal(
            confidence, f"{target} tokens are more than log(N) times the {tokens} that were seen"
        )
    if first_half is not None:
        problem = _halves_disagree(np.asarray(first_half), counts, tokens)
        if problem:
            return _refusal(confidence, problem)
    revived, error = _newly_seen(counts, tokens, ratio)
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * error
    if 2 * reach >= dead:
        return _refusal(
            confidence, f"the interval is as wide as the {dead} features that are dead so far"
        )
    value, low, high = (
        min(max(left, 0.0), float(dead)) / n
        for left in (dead - revived, dead - revived - reach, dead - revived + reach)
    )
    return Estimate(value, low, high, confidence, _METHOD)


def _refusal(confidence: float, reason: str) -> Estimate:
    return Estimate(None, None, None, confidence, _METHOD, reason)


def _halves_disagree(first: np.ndarray, counts: np.ndarray, tokens: int) -> str | None:
    half = tokens // 2
    dead_then, dead_now = int((first == 0).sum()), int((counts == 0).sum())
    revived, error = _newly_seen(first, half, tokens / half - 1)
    if abs(dead_then - dead_now - revived) <= _HALVES_AGREE * error:
        return None
    return (
        f"the first half of the tokens predicts {revived:.0f} newly firing features in the second "
        f"half, but {dead_then - dead_now} were seen: the tokens are not exchangeable"
    )


def _newly_seen(counts: np.ndarray, tokens: int, ratio: float) -> tuple[float, float]:
    """Expected number of features first seen in `ratio` times as many further tokens, and its
    standard error (Efron and Thisted 1976, equation 4.4: independent Poisson sightings)."""
    import numpy as np

    # The cut-off is Binomial(trials, theta). Orlitsky's trials diverge at ratio 1, where the
    # series needs no smoothing in theory; the log(N) of its numerator is enough in practice.
    gain = ratio**2 / (ratio - 1) if ratio > 1 else 1.0
    trials = max(1, int(0.5 * math.log(tokens * min(gain, ratio + 2), 3)))
    theta = 2 / (2 + ratio)
    seen = np.bincount(np.minimum(counts, trials + 1), minlength=trials + 2)
    revived = variance = 0.0
    for i in range(1, trials + 1):
        weight = -((-ratio) ** i) * _binomial_tail(i, trials, theta)
        revived += weight * int(seen[i])
        # One more than was seen, so that a rare count that did not occur has an error as well.
        variance += weight**2 * (int(seen[i]) + 1)
    return revived, math.sqrt(variance)


def _binomial_tail(least: int, trials: int, probability: float) -> float:
    """P(L >= least) for L ~ Binomial(trials, probability)."""
    return sum(
        math.comb(trials, i) * probability**i * (1 - probability) ** (trials - i)
        for i in range(least, trials + 1)
    )
