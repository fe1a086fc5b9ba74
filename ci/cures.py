"""Measures everything that the page of cures shows, into one folder.

python ci/cures.py                     all parts, seed 0, into results/cures
python ci/cures.py --seed 0 --seed 1   of these seeds
python ci/cures.py --part real         only a part: synthetic, families, one-l0, real or prices
python ci/cures.py --print             only say which commands these are

What is done already is not done again, and a run that was stopped resumes, as with `bench run`; but
for the prices, which are measured in a few minutes.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence

from bench.plan.protocol import load_protocol
from bench.sae.families import DEFAULT, FAMILIES, is_dense

# Regimes and arms by which the families are told apart; topk is trained on them by `synthetic`.
REGIMES = ("synthetic-gamma1", "synthetic-gamma40", "synthetic-lowrank1")
ARMS = ("raw", "centered", "whitened", "raw+auxk-relu", "centered+auxk-relu")

# What the families without a k need to come to topk's L0 in these steps: a price of being off it,
# and thresholds that can be moved there (`bench/sae/families/jumprelu.py`).
TO_ONE_L0 = {"jumprelu": ("l0=1", "threshold=0.1", "bandwidth=0.05")}

# Real layers of the offline suite: of the highest gamma there, and of a low one; and their made
# corpora: what was measured must not depend on which packages are installed.
REAL = {"spliceai-1-skip": 4, "all-minilm-l6-v2": 2}
CORPORA = {"spliceai-1-skip": "long-genomes", "all-minilm-l6-v2": "python-topics"}

PARTS = ("synthetic", "families", "one-l0", "real", "prices")


def commands(parts: Sequence[str], seeds: Sequence[int], output: str) -> list[list[str]]:
    """The commands that measure these parts, in order, as `python -m` takes them."""
    shared = [word for seed in seeds for word in ("--seed", str(seed))] + ["--output", output]
    run = ["bench", "run", "--protocol", "cures"]
    l0 = load_protocol("cures").k
    regimes, arms = _each("--model", REGIMES), _each("--arm", ARMS)
    found = {
        "synthetic": [[*run, "--suite", "synthetic", *shared]],
        "families": [
            [*run, "--set", f"family={family}", *regimes, *arms, *shared]
            for family in FAMILIES
            if family != DEFAULT
        ],
        "one-l0": [
            [
                *run,
                *_each(
                    "--set", (f"family={family}", f"target_l0={l0}", *TO_ONE_L0.get(family, ()))
                ),
                *regimes,
                *arms,
                *shared,
            ]
            for family in FAMILIES
            if is_dense(family)
        ],
        "real": [
            [*run, "--model", model, "--layer", str(layer), "--corpus", CORPORA[model], *shared]
            for model, layer in REAL.items()
        ],
        "prices": [
            [
                "ci.step_prices",
                *_each("--layer", (f"{model}:{layer}" for model, layer in REAL.items())),
                *("--output", output),
            ]
        ],
    }
    return [command for part in PARTS if part in parts for command in found[part]]


def _each(option: str, values: Iterable[str]) -> list[str]:
    return [word for value in values for word in (option, value)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--part", action="append", choices=PARTS, help="by default all")
    parser.add_argument("--seed", action="append", type=int, help="by default 0")
    parser.add_argument("--output", default="results/cures")
    parser.add_argument("--print", action="store_true", dest="only_print", help="run nothing")
    asked = parser.parse_args()
    for command in commands(asked.part or PARTS, asked.seed or (0,), asked.output):
        print("python -m", shlex.join(command), flush=True)
        if asked.only_print:
            continue
        code = subprocess.run([sys.executable, "-m", *command], check=False).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
