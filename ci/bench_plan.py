"""How long blocks take, and how much memory, beside what `bench plan` announces.

    python ci/bench_plan.py [--case NAME]... [--share 0.25] [--check]

Each block runs in a process of its own with one thread, between two calibrations in others. What is
compared is the processor's time, and the calibration takes medians: on a machine that does other
things this is nearer to a quiet machine's than the wall time is. `--check` exits 1 where a time is
off by more than the share. Linux only, for the memory.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

from bench.plan.blocks import Block, Request, make_plan
from bench.plan.costs import cost_of
from bench.plan.devices import Device, this_device
from bench.plan.protocol import load_protocol
from zoo.registry import load_registry

# Models (installed or embedded), and what differs from the preset quick.
CASES: dict[str, tuple[str, ...]] = {
    "synthetic": ("synthetic-gamma40",),
    "gpt2": ("tiny-gpt2",),
    "dinov2": ("tiny-dinov2",),
    "esm2": ("tiny-esm2",),
    "enformer": ("tiny-enformer",),
    "larger-n": (
        *("synthetic-gamma40", "n=8k", "k=64", "batch=1k", "steps=100", "buffer=16k"),
        *("aux_k=512", "arm=raw", "arm=centered"),
    ),
    "dense": ("synthetic-gamma40", "n=2k", "path=dense"),
    "jumprelu": ("synthetic-gamma40", "n=2k", "family=jumprelu"),
    "batchtopk": ("synthetic-gamma40", "n=2k", "family=batchtopk"),
    "remedies": (
        *("synthetic-gamma40", "n=2k", "dead_after=1k"),
        *("arm=raw+auxk", "arm=raw+ghost", "arm=raw+pre-act"),
    ),
    "spliceai": ("spliceai-1-skip", "layer=0", "layer=2"),
    "minilm": ("all-minilm-l6-v2", "layer=1", "steps=100", "N=1k"),
}


@dataclass(frozen=True)
class Found:
    """Seconds of the processor and bytes, announced and measured; how busy the machine was."""

    seconds: float
    took: float
    memory: int
    peak: int
    load: float

    @property
    def off(self) -> float:
        """How far the time is above what was announced, as a share of it."""
        return self.took / self.seconds - 1

    @property
    def memory_off(self) -> float:
        """The same of the memory."""
        return self.peak / self.memory - 1


def measure(name: str) -> Found:
    """Runs the case in a fresh process."""
    block = _block(name)
    announced = [_child("--calibrate")]
    took = _child("--inside", name)
    announced.append(_child("--calibrate"))
    costs = [cost_of([block], Device(**rates)) for rates in announced]
    seconds = sum(cost.seconds for cost in costs) / len(costs)
    return Found(seconds, took["seconds"], costs[0].memory, took["peak"], os.getloadavg()[0])


def _child(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _block(name: str) -> Block:
    model, *rest = CASES[name]
    arms = [text.removeprefix("arm=") for text in rest if text.startswith("arm=")]
    layers = [int(text.removeprefix("layer=")) for text in rest if text.startswith("layer=")]
    settings = [text for text in rest if not text.startswith(("arm=", "layer="))]
    registry = load_registry()
    protocol = load_protocol("quick", settings=settings, arms=arms)
    request = Request([registry.card(model)], protocol, layers=layers or None, memory=1 << 50)
    (block,) = make_plan(request, registry)
    if block.error is not None:
        raise RuntimeError(str(block.error))
    return block


def calibrate() -> dict[str, Any]:
    """The rates of one thread of this machine, as it is now."""
    import torch

    torch.set_num_threads(1)
    return asdict(this_device("cpu", clock=time.thread_time, typical=statistics.median))


def inside(name: str) -> dict[str, Any]:
    """The case in this process: seconds of the processor, and bytes."""
    import torch
    from bench_memory import Watch

    from bench.runner.block import measure_block

    torch.set_num_threads(1)
    watch, begun = Watch(), time.process_time()
    for record in measure_block(_block(name)):
        if record.failure is not None:
            raise RuntimeError(str(record.failure))
    return {"seconds": time.process_time() - begun, "peak": watch.stop()}


def main() -> int:
    parser = argparse.ArgumentParser(description="Announced and measured time and memory.")
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--share", type=float, default=0.25, help="how far off a time may be")
    parser.add_argument("--check", action="store_true", help="exit 1 where one is off by more")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    parser.add_argument("--calibrate", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside is not None or options.calibrate:
        print(json.dumps(calibrate() if options.calibrate else inside(options.inside)))
        return 0
    worst = 0.0
    print("block        announced  measured     off  announced   measured     off  load")
    for name in options.case or CASES:
        found = measure(name)
        worst = max(worst, abs(found.off))
        print(
            f"{name:12} {found.seconds:7.1f} s  {found.took:6.1f} s  {found.off:+6.0%}  "
            f"{found.memory / 2**20:5.0f} MiB  {found.peak / 2**20:5.0f} MiB  "
            f"{found.memory_off:+6.0%}  {found.load:4.1f}",
            flush=True,
        )
    return 1 if options.check and worst > options.share else 0


if __name__ == "__main__":
    sys.exit(main())
