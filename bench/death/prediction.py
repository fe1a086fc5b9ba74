"""Death at initialisation, predicted from the mean and the covariance of a layer's tokens.

A zero-bias SAE sees only directions: it asks of a token whether cos(w, x) is among the k largest of
its n features. Over random directions w the cosine with any one token is spread alike (its square
is Beta(1/2, (d - 1)/2)), so that for many features the k-th largest is a number c that all tokens
share, about Phi^-1(1 - k/n) / sqrt(d). So feature w fires on token x where

    w . x > c |x|

and it is dead where no token is so. Let tokens be independent and Gaussian, with the mean and the
covariance that the tokens have over their root mean square. Then the probability p(w) of firing on
one token follows by conditional Monte Carlo (Hammersley, 1956): draw a few tokens, let each vary
along the one line on which w . x varies while what is independent of it stays, and integrate along
the line exactly: the condition is quadratic there. Tails of any size need no more draws. And

    P(dead) = E_w (1 - p(w))^N,    P(dead-by-ReLU) = the same with c = 0.

Real tokens are not Gaussian: they repeat, are bounded, lie in clusters, or have heavy tails. One
more measured number stands for all of it: the *reach*, how far the tokens go along a random
direction at the farthest. The number of Gaussian tokens that reach as far is the layer's
*effective* number of tokens, and takes the place of N. Nothing is fitted.

Mean absolute error in points of dead features. On the twelve layers of tiny-esm2, tiny-dinov2 and
tiny-enformer (n 512, k 16, N 4096): closed form of `bench.death.theory` 30, moments alone 5, with
the reach 1; `tests/bench/death/test_prediction.py` measures them. On 20 layers of SpliceAI on made
genomes (n 8192, k 64, N 100,000): closed form 11, moments alone 21, with the reach 2.

Where it fails. The moments alone are too high where a few tokens have directions of their own (a
heavy tail, as in SpliceAI and in protein models), and too low where tokens repeat (tiny-esm2). With
the reach, single layers of SpliceAI are off by 4 points, and their death by ReLU by up to 12. At a
k below about 8 dictionaries differ by more than binomial chance, which no prediction of a mean can
tell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.optimize import brentq
from scipy.special import betaincinv
from torch import Tensor

from bench.death.theory import check_dictionary
from bench.records.schema import Prediction
from bench.statistics.layer import LayerStatistics

# Directions w, and tokens drawn for each: the standard error is a point or two.
_DIRECTIONS, _LINES = 1024, 128

# Directions that the probability of firing is found of at a time: arrays of 256 KB. Measured.
_AT_ONCE = 256

# Random directions on which the reach of tokens is measured, and tokens at a time.
_MEASURED, _CHUNK = 512, 8192

# Cosines at which the reach is integrated, up to this many standard deviations of one.
_COSINES, _FARTHEST = 32, 8.0

# Beyond this the tokens reach farther than Gaussian ones of any number.
MOST_TOKENS = 1e15

# Tokens of trained models reach as far as some ten times as many Gaussian ones whose spectrum is
# a power law. Calibrated on 180 published rows of ten models; one constant for all.
_TABLE_TOKENS = 10


@dataclass(frozen=True)
class Dead:
    """Shares of the dictionary in [0, 1]; `dead` is by either path."""

    relu: float
    dead: float


def predict(
    statistics: LayerStatistics, sample: Tensor, k: int, n: int, *, dense: bool = False
) -> Prediction:
    """What becomes of a random dictionary, without a center, on the tokens [N, d] of a sample.

    statistics: of the tokens that the sample is drawn from. dense: a family that selects no k;
    its features die by ReLU alone.
    """
    rms = statistics.moments.rms
    tokens = GaussianTokens(rms.mean, rms.covariance)
    reach = measured_reach(sample)
    effective = tokens.tokens_reaching(reach)
    of_moments, found = (tokens.predict(count, k, n) for count in (len(sample), effective))
    return Prediction(
        moments_relu=of_moments.relu,
        moments_dead=of_moments.relu if dense else of_moments.dead,
        reach=reach,
        effective_tokens=effective,
        relu=found.relu,
        dead=found.relu if dense else found.dead,
    )


class GaussianTokens:
    """Gaussian tokens of a mean [d] and a covariance [d, d], or its diagonal [d], seen from random
    directions. Everything asked of one object is of the same draws, which `seed` decides.

    Raises:
        ValueError: the tokens do not vary.
    """

    def __init__(self, mean: Tensor, covariance: Tensor, *, seed: int = 0) -> None:
        mean, covariance = mean.double(), covariance.double()
        diagonal = covariance.ndim == 1
        total = float((covariance if diagonal else covariance.diagonal()).sum())
        if not total > 0:
            raise ValueError("the tokens do not vary: there is no spread to predict from")
        self.width = len(mean)
        generator = torch.Generator().manual_seed(seed)

        def normal(rows: int) -> Tensor:
            draw = torch.randn(rows, len(mean), generator=generator, dtype=torch.float64)
            return draw.to(mean.device)

        factor = covariance.sqrt() if diagonal else _factor(covariance)
        x = mean + (normal(_LINES) * factor if diagonal else normal(_LINES) @ factor.T)
        w = _spread_along(normal(_DIRECTIONS), mean)
        pull = w * covariance if diagonal else w @ covariance  # [directions, d]
        # On token x the direction sees w . x = center + spread * z, with z standard normal, and
        # the token moves by `step` as z goes up by one.
        self._center = (w @ mean)[:, None]
        variance = (pull * w).sum(1, keepdim=True)
        self._spread = variance.clamp(min=1e-30 * total).sqrt()
        step = pull / self._spread
        z, along = (w @ x.T - self._center) / self._spread, step @ x.T
        # |x|^2 along that line is rest + 2 slope z + curve z^2, each [directions, lines] or less.
        self._curve = step.square().sum(1, keepdim=True)
        self._slope = along - z * self._curve
        self._rest = x.square().sum(1) - 2 * z * along + z.square() * self._curve
        self._grid: tuple[Tensor, Tensor] | None = None

    def predict(self, tokens: float, k: int, n: int) -> Dead:
        """Shares dead on so many tokens, of a dictionary of n features of which k are active."""
        if not tokens > 0:
            raise ValueError(f"a prediction needs tokens, not {tokens}")
        by_relu, dead = self.firing(0.0), self.firing(threshold(k, n, self.width))
        return Dead(*(float(_never(p, tokens).mean()) for p in (by_relu, dead)))

    def firing(self, cosine: float) -> Tensor:
        """The probability [directions] that a token's cosine with a direction is above `cosine`,
        which is not negative."""
        if cosine <= 0:
            return torch.special.ndtr(self._center / self._spread)[:, 0]
        if cosine >= 1:
            return torch.zeros_like(self._center[:, 0])
        # A few directions at a time, whose arrays the processor's cache holds.
        parts = zip(
            *(
                x.split(_AT_ONCE)
                for x in (self._center, self._spread, self._curve, self._slope, self._rest)
            ),
            strict=True,
        )
        return torch.cat([_firing(cosine * cosine, *part) for part in parts])

    def reach(self, tokens: float) -> float:
        """`measured_reach` of so many of these tokens, as expected."""
        cosines, firing = self._firing_grid()
        # E max = integral of P(max > c) - P(max < -c); a token's cosine with w is below -c where
        # that with -w, which is as likely a direction, is above c.
        above, below = 1 - _never(firing, tokens), torch.exp(tokens * firing.log())
        area = torch.trapezoid((above - below).mean(1), cosines)
        return math.sqrt(self.width) * float(area)

    def tokens_reaching(self, reach: float) -> float:
        """The number of these tokens that has this reach: at least 1, at most MOST_TOKENS."""
        most = math.log(MOST_TOKENS)

        def beyond(logarithm: float) -> float:
            return self.reach(math.exp(logarithm)) - reach

        if beyond(0.0) >= 0:
            return 1.0
        return MOST_TOKENS if beyond(most) <= 0 else math.exp(brentq(beyond, 0.0, most, xtol=1e-4))

    def _firing_grid(self) -> tuple[Tensor, Tensor]:
        """Cosines [c], and the probabilities to exceed them [c, directions]."""
        if self._grid is None:
            most = min(1.0, _FARTHEST / math.sqrt(self.width))
            cosines = torch.linspace(0, most, _COSINES + 1, dtype=torch.float64)
            rows = torch.stack([self.firing(c) for c in cosines.tolist()])
            self._grid = cosines.to(rows.device), rows.clamp(min=1e-300)
        return self._grid


def _firing(
    square: float, center: Tensor, spread: Tensor, curve: Tensor, slope: Tensor, rest: Tensor
) -> Tensor:
    """Of some directions, the probability [directions] that (center + spread z)^2 > square |x|^2 on
    the line of a token, where w . x > 0; the mean over the lines."""
    a = spread.square() - square * curve
    b = center * spread - square * slope
    discriminant = b * b - a * (center.square() - square * rest)
    root = discriminant.clamp(min=0).sqrt()
    if bool((a > 0).all()):
        return torch.special.ndtr(-((-b + root) / a)).mean(1)
    ends = (-b - root) / a, (-b + root) / a
    first, last = torch.minimum(*ends), torch.maximum(*ends)
    beyond = torch.special.ndtr(-last)
    # With a < 0 the token turns away from w as z grows on: it fires between the two ends.
    between = torch.special.ndtr(-first) - beyond
    inside = (discriminant > 0) & (first > -center / spread)
    probability = torch.where(a > 0, beyond, torch.where(inside, between, 0.0))
    return probability.mean(1)


def threshold(k: int, n: int, width: int) -> float:
    """The cosine that k of n random directions exceed, in `width` dimensions; at least 0.

    With k above n / 2 it would be negative; there a value > 0 is what binds.
    """
    check_dictionary(k, n)
    return math.sqrt(betaincinv(0.5, (width - 1) / 2, 1 - 2 * k / n)) if 2 * k < n else 0.0


def measured_reach(x: Tensor, *, seed: int = 0) -> float:
    """How far the tokens x [tokens, d] go along a random direction at the farthest.

    Half the mean width of the set of unit tokens, times sqrt(d): in the unit in which a random
    pre-activation over the token's root mean square has variance 1. Zero tokens count as 0.
    """
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(x.shape[1], _MEASURED, generator=generator).to(x.device)
    w /= torch.linalg.vector_norm(w, dim=0)
    highest = torch.full((_MEASURED,), -torch.inf, device=x.device)
    lowest = -highest
    for rows in x.split(_CHUNK):
        cosines = torch.nn.functional.normalize(rows.float(), dim=1) @ w
        highest = torch.maximum(highest, cosines.amax(0))
        lowest = torch.minimum(lowest, cosines.amin(0))
    return math.sqrt(x.shape[1]) * float((highest - lowest).double().mean()) / 2


def from_two_numbers(
    gamma: float, effective_rank: float, width: int, tokens: int, k: int, n: int
) -> Dead:
    """The prediction for tables that hold no covariance: gamma and the effective rank alone.

    The spectrum is taken for a power law of that effective rank in `width` dimensions, the mean for
    one in any direction, and the tokens for as good as ten times as many Gaussian ones. Mean
    absolute error on 180 published rows: 5.65 points, where the closed form has 7.1. That factor of
    ten was chosen on the same rows, so 5.65 is how well it fits them, not a test; without the
    factor it is 9.75. Most of the error is of models of two kinds that gamma and the rank do not
    tell apart (at a gamma of 1.5 and a rank of 170 to 200, 55 % of ModernBERT's features are dead
    and 30 % of gLM2's).
    """
    spectrum = power_law(effective_rank, width)
    # Any length would do: only directions matter.
    mean = torch.randn(width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean *= gamma * math.sqrt(float(spectrum.sum())) / float(mean.norm())
    return GaussianTokens(mean, spectrum).predict(_TABLE_TOKENS * tokens, k, n)


def power_law(effective_rank: float, width: int) -> Tensor:
    """Eigenvalues i^-a [width], with a >= 0 such that they have this effective rank.

    Raises:
        ValueError: the effective rank is not between 1 and the width.
    """
    if not 1 <= effective_rank <= width:
        raise ValueError(f"effective rank {effective_rank} is not between 1 and {width}")
    logarithm = torch.arange(1, width + 1, dtype=torch.float64).log()

    def excess(power: float) -> float:
        share = torch.softmax(-power * logarithm, 0)
        entropy = -float(torch.special.xlogy(share, share).sum())
        return entropy - math.log(effective_rank)

    if excess(0.0) <= 0:
        return torch.ones(width, dtype=torch.float64)
    steepest = 100.0
    power = steepest if excess(steepest) >= 0 else brentq(excess, 0.0, steepest)
    return torch.exp(-power * logarithm)


def _never(probability: Tensor, tokens: float) -> Tensor:
    """(1 - probability)^tokens"""
    return torch.exp(tokens * torch.log1p(-probability))


def _spread_along(w: Tensor, mean: Tensor) -> Tensor:
    """Unit directions of the normal draws w [m, d], their parts along the mean evenly spaced in
    probability: most of what differs from one feature to the next is that part."""
    length = float(torch.linalg.vector_norm(mean))
    if length > 0:
        axis = mean / length
        even = (torch.arange(len(w), dtype=torch.float64, device=w.device) + 0.5) / len(w)
        w = w + (torch.special.ndtri(even) - w @ axis)[:, None] * axis
    return torch.nn.functional.normalize(w, dim=1)


def _factor(covariance: Tensor) -> Tensor:
    """A lower factor of the covariance, raised by as little as it takes to be positive definite."""
    raised = 1e-12 * float(covariance.diagonal().mean())
    while True:
        shifted = covariance.clone()
        shifted.diagonal().add_(raised)
        factor, failed = torch.linalg.cholesky_ex(shifted)
        if not int(failed):
            return factor
        raised *= 100
