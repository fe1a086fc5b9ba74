"""The embedded suite against training its SAEs one run at a time: `python ci/bench_block.py DIR`.

DIR holds the peers' environments, as for `ci/bench_step.py`. Ours is `bench run`, everything
included: models loaded and run, statistics, censuses, quality, all arms of a model from one stream.
A peer's way is one run per SAE of the same size, batch and number of steps:

    steps     its training steps alone, at its fastest setting, on activations that are there
    runs      the same and the start of a process per SAE (imports, and a trainer built)

What a peer would need beside that, its forward passes and any measure of death, is left out.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from peers.client import PEERS, Peer, PeerFailed, make_peer

from bench.matmul import fast_matmul
from bench.protocol import load_protocol
from zoo.registry import load_registry


def ours() -> float:
    """Seconds of `bench run` into an empty folder."""
    with tempfile.TemporaryDirectory() as output:
        start = time.perf_counter()
        command = [sys.executable, "-m", "bench.cli", "run", "--output", output]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start


def theirs(name: str, python: Path, cells: Counter[int], threads: int) -> tuple[float, float]:
    """Seconds of a peer's steps for all cells, by width, and with a process for each."""
    protocol = load_protocol("quick")
    steps = runs = 0.0
    with fast_matmul() as choice:
        for width, count in cells.items():
            size = (width, protocol.n, protocol.k, protocol.batch)
            peer = Peer(name, python, size, choice.precision, threads)
            found = []
            for variant in peer.variants:
                try:
                    peer.seconds(variant, 10)
                    found.append(peer.seconds(variant, 100))
                except PeerFailed as error:
                    print(error, file=sys.stderr)
            peer.close()
            training = count * protocol.steps * min(found)
            steps += training
            runs += training + count * peer.start_seconds
    return steps, runs


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the embedded suite against peers.")
    parser.add_argument("peers", type=Path, metavar="DIR", help="the peers' environments")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    arms = len(load_protocol("quick").arms)
    cells: Counter[int] = Counter()
    for card in load_registry().select():
        cells[card.tap.width] += arms * card.tap.layers
    whole = ours()
    print(f"{sum(cells.values())} SAEs; ours, everything included: {whole:.1f} s\n")
    print("| peer | steps, s | over ours | runs, s | over ours |\n|:--|--:|--:|--:|--:|")
    for name in PEERS:
        python = make_peer(name, options.peers)
        steps, runs = theirs(name, python, cells, options.threads)
        print(f"| {name} | {steps:.0f} | {steps / whole:.1f} | {runs:.0f} | {runs / whole:.1f} |")


if __name__ == "__main__":
    main()
