"""How long a census takes: `python ci/bench_census.py [--size TOKENS,D,N,K] [--gammas ...]`.

    product    the encoder's matrix product alone, in chunks, in the same float32 setting
    gamma G    the census of a fresh dictionary on Gaussian activations of that outlier severity
    counts     the same with firing counts, which rules out an early end

Rounds are interleaved in one process; what is printed is medians over rounds, and ratios to the
product, which hold on a busy machine where the seconds do not. `--check` exits 1 if a census of
one arm takes more than twice the product, or one that ends early takes as long as the product.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch.nn.functional import normalize

from bench.compute.matmul import fast_matmul
from bench.death.census import Census, census
from bench.sae.recipe import REFERENCE

CHUNK = 512
MOST_OVER_PRODUCT = 2.0


class Case:
    """Gaussian activations; the mean is added in place, so that one array serves every gamma."""

    def __init__(self, tokens: int, d: int, n: int, k: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.k = k
        self.W = normalize(torch.randn(n, d, generator=generator), dim=1)
        self.x = torch.randn(tokens, d, generator=generator)
        self.unit = normalize(torch.randn(d, generator=generator), dim=0) * d**0.5
        self.gamma = 0.0

    def at(self, gamma: float) -> Case:
        self.x += (gamma - self.gamma) * self.unit
        self.gamma = gamma
        return self

    def dies(self) -> int:
        return self.census().dead

    def product(self) -> None:
        out = torch.empty(CHUNK, len(self.W))
        with fast_matmul():
            for x in self.x.split(CHUNK):
                torch.mm(x, self.W.T, out=out[: len(x)])

    def census(self, counts: bool = False) -> Census:
        return census(self.x, self.W, k=self.k, counts=counts)


def names(gammas: list[float]) -> dict[str, float]:
    return {f"gamma {gamma:g}": gamma for gamma in gammas}


def timed(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure(case: Case, gammas: list[float], rounds: int) -> dict[str, float]:
    times: dict[str, list[float]] = {}

    def note(name: str, seconds: float) -> None:
        times.setdefault(name, []).append(seconds)

    for _ in range(rounds):
        for name, gamma in names(gammas).items():
            case.at(gamma)
            note("product", timed(case.product))
            note(name, timed(case.census))
        note("counts", timed(lambda: case.census(counts=True)))
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    n, k, N = REFERENCE
    parser.add_argument("--size", default=f"{N},768,{n},{k}", metavar="TOKENS,D,N,K")
    parser.add_argument("--gammas", type=float, nargs="+", default=[0.0, 0.5, 1.0, 4.0, 50.0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--check", action="store_true", help="exit 1 if the targets are missed")
    options = parser.parse_args()
    case = Case(*(int(part) for part in options.size.split(",")))
    alive = [name for name, gamma in names(options.gammas).items() if case.at(gamma).dies() == 0]
    seconds = measure(case, options.gammas, options.rounds)
    ratios = {name: value / seconds["product"] for name, value in seconds.items()}
    if options.json:
        print(json.dumps({"seconds": seconds, "ratios": ratios}, indent=1))
    else:
        print(f"tokens, d, n, k = {options.size}; {torch.get_num_threads()} threads")
        print("              seconds   over the product")
        for name, value in seconds.items():
            note = "   ends early" if name in alive else ""
            print(f"{name:12} {value:8.2f} {ratios[name]:9.2f}x{note}")
    good = all(
        ratio <= (1.0 if name in alive else MOST_OVER_PRODUCT) for name, ratio in ratios.items()
    )
    return 0 if good or not options.check else 1


if __name__ == "__main__":
    sys.exit(main())
