"""The embedded suite against training its SAEs one run at a time: `python ci/bench_block.py DIR`.

DIR holds the peers' environments, as for `ci/bench_step.py`. Ours is `bench run`, everything
included: models loaded and run, statistics, censuses, quality, figures; all layers and arms of a
model from one stream. A peer's way is one run per SAE of the same size, batch and number of steps:

    steps     its training steps alone, at its fastest setting, on activations that are there
    starts    a process per SAE (imports, and a trainer built)
    models    for each SAE its model loaded up to the layer, and run on the tokens it trains on;
              by our adapters, for all peers alike

What a peer would need beside that, any measure of death above all, is left out.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from peers.client import TIMED, Peer, PeerFailed, make_peer

from adapters import open_adapter
from bench.activations.stream import ActivationStream
from bench.compute.matmul import fast_matmul
from bench.plan.blocks import Request, make_plan
from bench.plan.protocol import load_protocol
from zoo.registry import load_registry


def ours() -> float:
    """Seconds of `bench run` into an empty folder."""
    with tempfile.TemporaryDirectory() as output:
        start = time.perf_counter()
        command = [sys.executable, "-m", "bench", "run", "--output", output]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start


def models(threads: int) -> float:
    """Seconds of every SAE's own pass over its training tokens."""
    protocol, registry = load_protocol("quick"), load_registry()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    seconds = 0.0
    with fast_matmul():
        for block in make_plan(Request(registry.select(), protocol), registry):
            assert block.corpus is not None
            for layer in block.layers:
                start = time.perf_counter()
                adapter = open_adapter(block.card, depth=layer + 1)
                stream = ActivationStream(adapter, block.corpus, [layer], protocol)
                for _ in stream.training().take(protocol.steps * protocol.batch):
                    pass
                seconds += len(protocol.arms) * (time.perf_counter() - start)
    torch.set_num_threads(before)
    return seconds


def theirs(name: str, python: Path, cells: Counter[int], threads: int) -> tuple[float, float]:
    """Seconds of a peer's steps for all cells, by width, and of a process for each."""
    protocol = load_protocol("quick")
    steps = starts = 0.0
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
            steps += count * protocol.steps * min(found)
            starts += count * peer.start_seconds
    return steps, starts


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the embedded suite against peers.")
    parser.add_argument("peers", type=Path, metavar="DIR", help="the peers' environments")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    arms = len(load_protocol("quick").arms)
    cells: Counter[int] = Counter()
    for card in load_registry().select():
        cells[card.tap.width] += arms * card.tap.layers
    whole, passes = ours(), models(options.threads)
    print(f"{sum(cells.values())} SAEs; ours, everything included: {whole:.1f} s\n")
    print("| peer | steps, s | starts, s | models, s | sum over ours |\n|:--|--:|--:|--:|--:|")
    for name in TIMED:
        python = make_peer(name, options.peers)
        steps, starts = theirs(name, python, cells, options.threads)
        ratio = (steps + starts + passes) / whole
        print(f"| {name} | {steps:.0f} | {starts:.0f} | {passes:.0f} | {ratio:.1f} |")


if __name__ == "__main__":
    main()
