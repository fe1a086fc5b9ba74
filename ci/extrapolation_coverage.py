"""How often the 95 % intervals of `bench.death.extrapolation` hold the truth, on made counts.

python ci/extrapolation_coverage.py [--draws 200] [--check]

Rates times tokens are drawn lognormal (with and without features that never fire), gamma, from two
lognormals, or Pareto; firings are Poisson, and the truth is counted on further tokens. With --check
it fails where rates are held less often than 93 % over all sizes and ratios.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import numpy as np

from bench.death.extrapolation import dead_rate_at

SIZES, RATIOS, TOKENS, LEAST = (512, 8192), (1, 2, 5, 10), 10_000, 0.93


def lognormal(draw: np.random.Generator, n: int) -> np.ndarray:
    return draw.lognormal(draw.uniform(-2, 3), draw.uniform(1, 2.5), n)


def with_never(draw: np.random.Generator, n: int) -> np.ndarray:
    return lognormal(draw, n) * (draw.random(n) >= draw.uniform(0.05, 0.5))


def gamma(draw: np.random.Generator, n: int) -> np.ndarray:
    return draw.gamma(draw.uniform(0.2, 1.5), draw.uniform(1, 30), n)


def two_groups(draw: np.random.Generator, n: int) -> np.ndarray:
    return np.where(draw.random(n) < 0.5, draw.lognormal(-2, 0.7, n), draw.lognormal(2, 1, n))


def pareto(draw: np.random.Generator, n: int) -> np.ndarray:
    return 0.01 * (1 + draw.pareto(draw.uniform(0.4, 1.2), n))


KINDS = (lognormal, with_never, gamma, two_groups, pareto)


def coverage(
    kind: Callable[[np.random.Generator, int], np.ndarray], n: int, ratio: int, draws: int
) -> tuple[int, int, int]:
    """How many truths were held, of how many answers, of how many draws with a dead feature."""
    held = answered = asked = 0
    draw = np.random.default_rng([n, ratio])
    for _ in range(draws):
        rates = kind(draw, n)
        counts, further = draw.poisson(rates), draw.poisson(rates * ratio)
        if counts.all():
            continue
        asked += 1
        found = dead_rate_at(counts, TOKENS, TOKENS * (1 + ratio))
        if found.low is not None and found.high is not None:
            truth = float(((counts == 0) & (further == 0)).mean())
            answered += 1
            held += found.low <= truth <= found.high
    return held, answered, asked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    print("rates, n, further tokens: held of answered, answered of asked")
    for kind in KINDS:
        totals = np.zeros(3, dtype=int)
        for n in SIZES:
            for ratio in RATIOS:
                found = coverage(kind, n, ratio, arguments.draws)
                totals += found
                held, answered, asked = found
                share = f"{held / max(answered, 1):6.1%} {answered / max(asked, 1):7.1%}"
                print(f"{kind.__name__:11} {n:5} {ratio:3} {share}", flush=True)
        held, answered, asked = totals.tolist()
        print(f"{kind.__name__:11}   all    {held / answered:6.1%} {answered / asked:7.1%}")
        if arguments.check and held / answered < LEAST:
            sys.exit(f"{kind.__name__} rates are held in {held / answered:.1%} of the answers")


if __name__ == "__main__":
    main()
