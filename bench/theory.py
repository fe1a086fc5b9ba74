"""Predicted death at initialisation, in closed form, and what measured death is owed to.

Source: Simon, Adams, Zou, "On the Relationship Between Activation Outliers and Feature Death in
Sparse Autoencoders" (arXiv 2605.31518). For Gaussian activations of full rank with outlier
severity gamma = ||mu|| / ||sigma||, over N tokens, a dictionary of n features and k active ones:

    C = Phi^-1(1 - 1/N),  t_k = Phi^-1(1 - k/n)
    P(dead-by-ReLU) = Phi(-C / gamma)
    P(dead)         = Phi(t_k - C / gamma),  at most 1 - k/n as gamma grows

There is no fitted parameter. Layers whose variance sits in few directions die more than this.
Nothing here needs torch or numpy. All rates are shares in [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from bench.intervals import Estimate, difference


def predicted_relu(gamma: float, tokens: int) -> float:
    """Share of features whose pre-activation is never > 0 on `tokens` tokens."""
    reach = _reach(gamma, tokens)
    return _normal_cdf(-reach)


def predicted_dead(gamma: float, tokens: int, k: int, n: int) -> float:
    """Share of features that never fire, by either path, on `tokens` tokens."""
    _check_dictionary(k, n)
    reach = _reach(gamma, tokens)
    # With k above n / 2 the threshold would be negative; there a value > 0 is what binds.
    threshold = -NormalDist().inv_cdf(k / n) if 2 * k < n else 0.0
    return _normal_cdf(threshold - reach)


def ceiling(k: int, n: int) -> float:
    """The share of dead features that `predicted_dead` tends to as gamma grows."""
    _check_dictionary(k, n)
    return max(1.0 - k / n, 0.5)


@dataclass(frozen=True)
class Attribution:
    """Measured death split by cause; the three parts add up to the raw arm's death.

    mean: what centering removes. spectrum: what whitening removes beyond centering. rest: what
    neither removes. A part is negative where the cure made death worse.
    """

    mean: Estimate
    spectrum: Estimate
    rest: Estimate


def attribution(raw: Estimate, centered: Estimate, whitened: Estimate) -> Attribution:
    """What a layer's death owes to its mean (raw - centered) and spectrum (centered - whitened).

    Arguments are rates of dead features of the three arms, of one tied initialisation.
    """
    return Attribution(difference(raw, centered), difference(centered, whitened), whitened)


def _reach(gamma: float, tokens: int) -> float:
    """C / gamma: how many standard deviations of the mean's pull the largest of N tokens undoes."""
    if not gamma >= 0:
        raise ValueError(f"gamma must be >= 0, not {gamma}")
    if tokens < 2:
        raise ValueError(f"the closed forms need at least 2 tokens, not {tokens}")
    # Phi^-1(1 - 1/N) written from the lower tail, where it does not cancel for large N.
    extreme = -NormalDist().inv_cdf(1.0 / tokens)
    return extreme / gamma if gamma > 0 else math.inf


def _check_dictionary(k: int, n: int) -> None:
    if not 1 <= k <= n:
        raise ValueError(f"k must be between 1 and n = {n}, not {k}")


def _normal_cdf(value: float) -> float:
    return 0.5 * math.erfc(-value / math.sqrt(2.0))
