"""How much memory blocks take.

    python ci/bench_memory.py [--way WAY] [--size D,N,TOKENS,BUFFER,LAYERS,ARMS]
    python ci/bench_memory.py --remedies      every remedy, each in a block of its own
    python ci/bench_memory.py --arm raw+ghost only this one

Each block runs in a process of its own, on stored random activations; what is printed is the peak
of that process's resident memory, looked at every few milliseconds, beside what `bench plan`
announces for it. Pages of the file of activations, which the system takes back when it needs them,
are left out. `--check` exits 1 where the two differ by more than 10 % of what was announced.
Remedies are measured where the mean is so large that nearly all features of the raw arm are dead:
what helps dead features then takes the most memory, and that is what is announced. Linux only.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import threading
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.plan.blocks import Block

DEFAULT_SIZES = (
    "768,8192,8192,16384,1,2",
    "512,4096,16384,16384,3,2",
    "512,2048,65536,8192,2,1",
    "256,2048,8192,131072,3,2",
    "1024,4096,32768,8192,1,3",
    "384,16384,8192,8192,2,2",
)
ARMS = ("raw", "centered", "whitened+auxk")

# Of these sizes the arrays of remedies are large beside a process.
REMEDY_SIZES = ("512,8192,4096,4096,1,1", "256,16384,4096,4096,1,1")

# Mean of the activations, over their spread.
MEAN, LARGE_MEAN = 1.0, 40.0
WAYS = (
    "topk-sparse",
    "topk-dense",
    "batchtopk-sparse",
    "batchtopk-dense",
    "matryoshka-dense",
    "relu",
    "jumprelu",
)
MOST_OFF = 0.10


@dataclass(frozen=True)
class Size:
    """Width, dictionary size, tokens of the sample and of the buffer, layers, arms."""

    d: int
    n: int
    tokens: int
    buffer: int
    layers: int
    arms: int

    @classmethod
    def parse(cls, text: str) -> Size:
        try:
            return cls(*(int(part) for part in text.split(",")))
        except (TypeError, ValueError):
            raise argparse.ArgumentTypeError(
                f"{text!r} is not D,N,TOKENS,BUFFER,LAYERS,ARMS"
            ) from None


@dataclass(frozen=True)
class Found:
    """Bytes that were announced, and the peak that was measured."""

    announced: int
    measured: int

    @property
    def off(self) -> float:
        """How far the peak is above what was announced, as a share of it."""
        return self.measured / self.announced - 1


class Watch:
    """The peak of this process's memory from now on: what it has now, and what it takes."""

    def __init__(self) -> None:
        self._files = _status()["RssFile"]
        self._peak = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """The peak in bytes."""
        self._over.set()
        self._thread.join()
        return self._peak

    def _look(self) -> None:
        while not self._over.wait(0.005):
            self._peak = max(self._peak, self._files + _status()["RssAnon"])


def _status() -> dict[str, int]:
    """Bytes by the kernel's names of the kinds of memory."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    fields = (line.partition(":") for line in lines if line.startswith("Rss"))
    return {name: int(value.split()[0]) * 1024 for name, _, value in fields}


def measure(size: Size, way: str, remedy: str | None = None) -> Found:
    """Runs the block in a fresh process."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, __file__, "--inside", scratch, "--way", way, "--size"]
        command.append(",".join(map(str, astuple(size))))
        command += [] if remedy is None else ["--arm", remedy]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return Found(**json.loads(done.stdout.splitlines()[-1]))


def inside(size: Size, way: str, scratch: Path, remedy: str | None = None) -> Found:
    """The block in this process; its activations are made in `scratch`."""
    import numpy as np

    from bench.plan.blocks import Request, make_plan
    from bench.plan.protocol import load_protocol
    from zoo.cards import Card
    from zoo.registry import load_registry

    random = np.random.default_rng(0)
    for layer in range(size.layers):
        file = np.lib.format.open_memmap(
            scratch / f"layer{layer}.npy",
            mode="w+",
            dtype=np.float32,
            shape=(size.tokens + 8192, size.d),
        )
        for start in range(0, len(file), 1024):
            part = random.standard_normal(file[start : start + 1024].shape)
            file[start : start + 1024] = part + (MEAN if remedy is None else LARGE_MEAN)
        file._mmap.close()  # type: ignore[attr-defined]
    card = Card.model_validate(
        {
            "id": "made",
            "summary": "random activations",
            "domain": "synthetic",
            "adapter": "array",
            "checkpoint": {"source": "folder", "path": str(scratch), "licence": "MIT"},
            "tap": {"blocks": "layer.{i}", "layers": size.layers, "width": size.d},
            "corpus": "draws",
            "context": 256,
            "parameters": 0,
            "options": {"file": "layer{i}.npy"},
        }
    )
    settings = [f"n={size.n}", "k=32", f"N={size.tokens}", f"buffer={size.buffer}", "steps=6"]
    settings += ["batch=2048", "checkpoints=1", "aux_k=256", "dead_after=4096"]
    family, _, path = way.partition("-")
    settings += [f"family={family}", f"path={path or 'dense'}"]
    arms = ARMS[: size.arms] if remedy is None else (remedy,)
    protocol = load_protocol("quick", settings=settings, arms=arms)
    (block,) = make_plan(Request([card], protocol, memory=1 << 50), load_registry())
    import torch  # noqa: F401  # so that its own pages count as the process's

    return measured(block)


def measured(block: Block) -> Found:
    """A block that runs now, in this process. Raises RuntimeError where a cell fails."""
    from bench.runner.block import measure_block

    watch = Watch()
    for record in measure_block(block):
        if record.failure is not None:
            raise RuntimeError(str(record.failure))
    return Found(block.memory, watch.stop())


def main() -> int:
    parser = argparse.ArgumentParser(description="Announced and measured memory of blocks.")
    parser.add_argument("--size", type=Size.parse, action="append")
    parser.add_argument("--way", choices=WAYS, default=WAYS[0], help="family and path of the step")
    parser.add_argument("--arm", action="append", default=[], help="measure this remedy by itself")
    parser.add_argument("--remedies", action="store_true", help="every arm of the protocol cures")
    parser.add_argument(
        "--check", action="store_true", help="exit 1 where they differ by over 10 %%"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per size")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    arms: list[str | None] = [*options.arm, *(_remedies() if options.remedies else ())]
    texts = REMEDY_SIZES if arms else DEFAULT_SIZES
    sizes = options.size or [Size.parse(text) for text in texts]
    if options.inside is not None:
        found = inside(sizes[0], options.way, options.inside, arms[0] if arms else None)
        print(json.dumps({"announced": found.announced, "measured": found.measured}))
        return 0
    worst = 0.0
    if not options.json:
        print("width  features  sample  buffer  layers  arms  announced  measured")
    for size, arm in itertools.product(sizes, arms or [None]):
        found = measure(size, options.way, arm)
        worst = max(worst, abs(found.off))
        if options.json:
            print(json.dumps({**vars(size), "arm": arm, **vars(found)}), flush=True)
            continue
        print(
            f"{size.d:5}  {size.n:8}  {size.tokens:6}  {size.buffer:6}  {size.layers:6}  "
            f"{size.arms:4}  {found.announced / 2**20:5.0f} MiB  "
            f"{found.measured / 2**20:4.0f} MiB  {found.off:+.1%}  {arm or ''}".rstrip(),
            flush=True,
        )
    return 1 if options.check and worst > MOST_OFF else 0


def _remedies() -> tuple[str, ...]:
    from bench.plan.protocol import load_protocol

    return load_protocol("cures").arms


if __name__ == "__main__":
    sys.exit(main())
