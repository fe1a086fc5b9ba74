"""How long runs take, beside what `bench plan` announces.

    python ci/bench_plan.py [--case NAME]... [--share 0.25] [--check]

Each runs in a process of its own with one thread, its model's libraries imported before. The
machine is measured as `bench plan --on this` does it, but before it, every few seconds while it
trains, and after it, and the median of each rate counts: what slows the run down slows these
too. Times are the processor's, not the clock's on the wall, for the same reason; those of the
measurements are taken off. `--check` exits 1 where a time is off by more than the share.
`ci/bench_memory.py` measures the memory of SAEs on stored activations, `ci/bench_memory_models.py`
that of models.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, fields
from typing import Any

from bench.plan.blocks import Block, Request, make_plan
from bench.plan.costs import cost_of
from bench.plan.devices import Device, this_device
from bench.plan.protocol import load_protocol
from bench.runner.settings import NoProgress, Phase
from zoo.corpus_choice import CorpusChoice
from zoo.registry import load_registry

# Models (installed or embedded), and what differs from the preset quick, or from the one that is
# named; passages are of 35 tokens.
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
    "auxk": (
        *("synthetic-gamma40", "n=4k", "k=32", "batch=1k", "steps=80", "buffer=16k"),
        *("aux_k=256", "dead_after=2k", "arm=raw+auxk"),
    ),
    "auxk-relu": ("synthetic-gamma40", "n=2k", "dead_after=1k", "arm=raw+auxk-relu"),
    "auxk-gpt2": ("tiny-gpt2", "n=1k", "dead_after=2k", "arm=raw+auxk", "arm=centered+auxk"),
    "auxk-esm2": ("tiny-esm2", "dead_after=2k", "arm=raw+auxk-relu", "arm=raw+ghost"),
    "cures": ("synthetic-gamma40", "protocol=cures", "steps=500"),
    "spliceai": ("spliceai-1-skip", "layer=0", "layer=2"),
    "passages": ("all-minilm-l6-v2", "corpus=shakespeare", "layer=1", "steps=100", "N=1k"),
    "minilm": ("all-minilm-l6-v2", "layer=1", "steps=100", "N=1k"),
}


# Seconds of the processor between two measurements of the machine.
CALIBRATE_EVERY = 4.0


@dataclass(frozen=True)
class Found:
    """Seconds of the processor, announced and measured; how busy the machine was."""

    seconds: float
    took: float
    load: float

    @property
    def off(self) -> float:
        """How far the time is above what was announced, as a share of it."""
        return self.took / self.seconds - 1


def measure(name: str) -> Found:
    """Runs the case in a fresh process."""
    command = [sys.executable, __file__, "--inside", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return Found(**json.loads(done.stdout.splitlines()[-1]))


def _blocks(name: str) -> list[Block]:
    model, *rest = CASES[name]
    arms = [text.removeprefix("arm=") for text in rest if text.startswith("arm=")]
    layers = [int(text.removeprefix("layer=")) for text in rest if text.startswith("layer=")]
    named = [text.removeprefix("corpus=") for text in rest if text.startswith("corpus=")]
    preset = [text.removeprefix("protocol=") for text in rest if text.startswith("protocol=")]
    named_ones = ("arm=", "layer=", "corpus=", "protocol=")
    settings = [text for text in rest if not text.startswith(named_ones)]
    registry = load_registry()
    protocol = load_protocol(*preset or ["quick"], settings=settings, arms=arms)
    corpus = CorpusChoice(registry.corpus(named[0])) if named else CorpusChoice()
    request = Request(
        [registry.card(model)], protocol, layers=layers or None, memory=1 << 50, corpus=corpus
    )
    blocks = make_plan(request, registry)
    for block in blocks:
        if block.error is not None:
            raise RuntimeError(str(block.error))
    return blocks


class Calibrating(NoProgress):
    """Measures the machine as often as it is told of progress, but for a few seconds between."""

    def __init__(self) -> None:
        self.measured: list[Device] = []
        self.seconds = 0.0
        self._next = 0.0

    def advance(self, steps: int) -> None:
        if time.process_time() >= self._next:
            self.calibrate()

    def phase(self, name: Phase) -> None:
        self.advance(0)

    def calibrate(self) -> None:
        """Measures now."""
        begun = time.process_time()
        how = {"clock": time.thread_time, "typical": statistics.median, "seconds": 0.1}
        self.measured.append(this_device("cpu", **how))
        self.seconds += time.process_time() - begun
        self._next = time.process_time() + CALIBRATE_EVERY

    def device(self) -> Device:
        """The median of each rate."""
        return _median(self.measured)


def _median(found: list[Any]) -> Any:
    """Of numbers, and of each of them in mappings and devices; the first of anything else."""
    first = found[0]
    if isinstance(first, Device):
        names = [field.name for field in fields(Device)]
        return Device(**{name: _median([getattr(one, name) for one in found]) for name in names})
    if isinstance(first, dict):
        return {key: _median([one[key] for one in found]) for key in first}
    return statistics.median(found) if isinstance(first, float) else first


def inside(name: str) -> Found:
    """The case in this process."""
    import torch

    from adapters import open_adapter
    from bench.runner.block import measure_block

    torch.set_num_threads(1)
    blocks = _blocks(name)
    _ = open_adapter(blocks[0].card, depth=blocks[0].depth).model
    calibrating = Calibrating()
    calibrating.calibrate()
    before, begun = calibrating.seconds, time.process_time()
    for block in blocks:
        for record in measure_block(block, progress=calibrating):
            if record.failure is not None:
                raise RuntimeError(str(record.failure))
    took = time.process_time() - begun - (calibrating.seconds - before)
    calibrating.calibrate()
    announced = cost_of(blocks, calibrating.device()).seconds
    return Found(announced, took, os.getloadavg()[0])


def main() -> int:
    parser = argparse.ArgumentParser(description="Announced and measured time.")
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--share", type=float, default=0.25, help="how far off a time may be")
    parser.add_argument("--check", action="store_true", help="exit 1 where one is off by more")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside is not None:
        print(json.dumps(asdict(inside(options.inside))))
        return 0
    worst = 0.0
    print("run          announced  measured     off  load")
    for name in options.case or CASES:
        found = measure(name)
        worst = max(worst, abs(found.off))
        print(
            f"{name:12} {found.seconds:7.1f} s  {found.took:6.1f} s  {found.off:+6.0%}  "
            f"{found.load:4.1f}",
            flush=True,
        )
    return 1 if options.check and worst > options.share else 0


if __name__ == "__main__":
    sys.exit(main())
