"""How long the statistics take, and in how much memory: `python ci/bench_stats.py [--tokens N]`.

Against the reference formula in numpy float64 (whole-array LayerNorm, mean, standard deviation):

    gamma      one layer's moments after a per-token LayerNorm, and gamma from them
    layer      everything a record holds: three gammas, kurtosis, covariance, effective rank, median

Rounds are interleaved in one process and medians are printed; ratios hold on a busy machine where
the seconds do not, if both sides run in one thread, as numpy's formula does. Peak memory is that
of a fresh process, over what the activations take.
`--check` exits 1 unless gamma is 5 times faster in a tenth of the memory, and equal to 1e-9.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.sae.recipe import REFERENCE
from bench.statistics.layer import LayerStatistics
from bench.statistics.moments import Moments, gamma

BATCH = 4096
LEAST_SPEEDUP, LEAST_MEMORY_SAVING, TOLERANCE = 5.0, 10.0, 1e-9


def activations(tokens: int, width: int) -> Tensor:
    """Made in place, so that the peak memory is that of the array."""
    generator = torch.Generator().manual_seed(0)
    x = torch.empty(tokens, width).normal_(generator=generator)
    x *= torch.rand(width, generator=generator) + 0.1
    x += 2 * torch.randn(width, generator=generator)
    return x


def reference_gamma(x: Tensor) -> float:
    y = x.numpy().astype(np.float64)
    mean, variance = y.mean(axis=1, keepdims=True), y.var(axis=1, keepdims=True)
    y = (y - mean) / np.sqrt(variance + 1e-5)
    return float(np.linalg.norm(y.mean(axis=0)) / np.linalg.norm(y.std(axis=0)))


def our_gamma(x: Tensor) -> float:
    moments = Moments(x.shape[1], transform="layernorm")
    for batch in x.split(BATCH):
        moments.update(batch)
    return gamma(moments.mean, moments.variance)


def our_layer(x: Tensor) -> float:
    layer = LayerStatistics(x.shape[1])
    for batch in x.split(BATCH):
        layer.update(batch)
    return layer.result().gamma


CONTESTANTS: dict[str, Callable[[Tensor], float]] = {
    "reference": reference_gamma,
    "gamma": our_gamma,
    "layer": our_layer,
}


def peak_memory(name: str, tokens: int, width: int) -> int:
    """Bytes over the activations, of one call in a fresh process."""
    command = [sys.executable, __file__, "--peak-of", name]
    sizes = ["--tokens", str(tokens), "--width", str(width)]
    return int(subprocess.run([*command, *sizes], check=True, capture_output=True).stdout)


def print_peak(name: str, tokens: int, width: int) -> None:
    small = activations(BATCH, width)
    CONTESTANTS[name](small)  # what libraries set up once is not the method's
    x = activations(tokens, width)
    before = high_water_mark()
    CONTESTANTS[name](x)
    print(high_water_mark() - before)


def high_water_mark() -> int:
    """Most resident bytes of this process so far (Linux; getrusage's figure survives exec)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def measure(tokens: int, width: int, rounds: int) -> dict[str, dict[str, float]]:
    x = activations(tokens, width)
    times: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    values = {}
    for _ in range(rounds):
        for name, function in CONTESTANTS.items():
            start = time.perf_counter()
            values[name] = function(x)
            times[name].append(time.perf_counter() - start)
    del x
    return {
        name: {
            "seconds": statistics.median(times[name]),
            "peak_mb": peak_memory(name, tokens, width) / 1e6,
            "relative_difference": abs(values[name] / values["reference"] - 1),
        }
        for name in CONTESTANTS
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=REFERENCE.N)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--check", action="store_true", help="exit 1 if the targets are missed")
    parser.add_argument("--peak-of", choices=CONTESTANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak_of:
        print_peak(options.peak_of, options.tokens, options.width)
        return 0
    torch.set_num_threads(options.threads)
    results = measure(options.tokens, options.width, options.rounds)
    ours, reference = results["gamma"], results["reference"]
    if options.json:
        print(json.dumps(results, indent=1))
    else:
        print(f"N {options.tokens}, d {options.width}, {torch.get_num_threads()} threads")
        print("              seconds   faster   peak MB   less   difference")
        for name, result in results.items():
            faster = reference["seconds"] / result["seconds"]
            less = reference["peak_mb"] / result["peak_mb"]
            print(
                f"{name:12} {result['seconds']:8.3f} {faster:7.1f}x {result['peak_mb']:9.0f}"
                f" {less:5.1f}x   {result['relative_difference']:.1e}"
            )
    good = (
        reference["seconds"] >= LEAST_SPEEDUP * ours["seconds"]
        and reference["peak_mb"] >= LEAST_MEMORY_SAVING * ours["peak_mb"]
        and ours["relative_difference"] <= TOLERANCE
    )
    return 0 if good or not options.check else 1


if __name__ == "__main__":
    sys.exit(main())
