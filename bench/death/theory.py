"""Predicted death at initialisation, in closed form, and what measured death is due to.

Source: Simon, Adams, Zou, "On the Relationship Between Activation Outliers and Feature Death in
Sparse Autoencoders" (arXiv 2605.31518). For Gaussian activations of full rank with outlier
severity gamma = ||mu|| / ||sigma||, over N tokens, a dictionary of n features and k active ones:

    C = Phi^-1(1 - 1/N),  t_k = Phi^-1(1 - k/n)
    P(dead-by-ReLU) = Phi(-C / gamma)
    P(dead)         = Phi(t_k - C / gamma),  at most 1 - k/n as gamma grows

There is no fitted parameter. Layers whose variance sits in few directions die more than this.

Where they hold, on such activations: P(dead-by-ReLU) at every gamma. P(dead) takes the k-th largest
pre-activation for t_k gamma, the spread of the means alone; but the noise around the means spreads
pre-activations too, and the k-th largest of them is t_k sqrt(1 + gamma^2). So the closed form says
too little: 3 % instead of 18 % at gamma 1 (at the published size), 61 % instead of 69 % at gamma
2, and within a point from gamma 4 on. `gaussian_relu` and `gaussian_dead` are our own, not the
paper's: they take that threshold, and the whole distribution of the largest of N values instead of
its quantile C. They are right for Gaussians at every gamma. Real layers are not Gaussian, nor of
full rank: over the 454 published ones the mean absolute error of P(dead) is 7.7 points (too high by
2.0 on average), that of the closed form 8.2 (too low by 5.1); which is nearer differs by model.

Nothing here needs torch or numpy. All rates are shares in [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

from bench.intervals import Estimate, difference


def predicted_relu(gamma: float, tokens: int) -> float:
    """Share of features whose pre-activation is never > 0 on `tokens` tokens."""
    reach = _reach(gamma, tokens)
    return _normal_cdf(-reach)


def predicted_dead(gamma: float, tokens: int, k: int, n: int) -> float:
    """Share of features that never fire, by either path, on `tokens` tokens."""
    check_dictionary(k, n)
    reach = _reach(gamma, tokens)
    # With k above n / 2 the threshold would be negative; there a value > 0 is what binds.
    threshold = -NormalDist().inv_cdf(k / n) if 2 * k < n else 0.0
    return _normal_cdf(threshold - reach)


def gaussian_relu(gamma: float, tokens: int) -> float:
    """`predicted_relu` without its quantile: P(max over tokens of (gamma g + z) <= 0)."""
    return _never_above(0.0, gamma, tokens)


def gaussian_dead(gamma: float, tokens: int, k: int, n: int) -> float:
    """Share of features that never fire on Gaussian activations of full rank. Not the paper's.

    In units of sigma per dimension, feature f has the pre-activation gamma g_f + z_ft on token t.
    Over the features of one token g and z are standard normal, as directions are random in a space
    of many dimensions, so that the k-th largest of many is T = t_k sqrt(1 + gamma^2). Over the
    tokens g_f stays and z varies, so that with m the largest of N standard normals

        P(dead) = P(gamma g + m <= T) = E_m Phi((T - m) / gamma),  P(m <= x) = Phi(x)^N

    which takes tokens for independent, and width and k for large: at a k of 8 dictionaries differ
    from each other by more than binomial chance. With T = 0 it is death by ReLU.
    """
    check_dictionary(k, n)
    threshold = -NormalDist().inv_cdf(k / n) if 2 * k < n else 0.0
    return _never_above(threshold * math.hypot(1.0, gamma), gamma, tokens)


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


@lru_cache(maxsize=4096)  # cells of one layer, its arms and seeds, ask the same
def _never_above(threshold: float, gamma: float, tokens: int) -> float:
    """P(gamma g + m <= threshold), m the largest of `tokens` standard normals."""
    _reach(gamma, tokens)  # checks both
    if gamma == 0:
        return math.exp(tokens * math.log1p(-_normal_cdf(-threshold)))
    return math.fsum(
        weight * _normal_cdf((threshold - largest) / gamma) for largest, weight in _largest(tokens)
    )


@lru_cache(maxsize=64)
def _largest(tokens: int) -> tuple[tuple[float, float], ...]:
    """Nodes and weights of an expectation over the largest m of `tokens` standard normals.

    With Phi(m)^N = exp(-exp(-y)) y is Gumbel, and the trapezoid rule over y converges fast.
    """
    step, nodes = 0.1, []
    for i in range(-40, 351):
        y = step * i
        tail = -math.expm1(-math.exp(-y) / tokens)  # 1 - Phi(m), without cancellation
        nodes.append((-NormalDist().inv_cdf(tail), step * math.exp(-y - math.exp(-y))))
    return tuple(nodes)


def check_dictionary(k: int, n: int) -> None:
    """Raises ValueError unless 1 <= k <= n."""
    if not 1 <= k <= n:
        raise ValueError(f"k must be between 1 and n = {n}, not {k}")


def _normal_cdf(value: float) -> float:
    return 0.5 * math.erfc(-value / math.sqrt(2.0))
