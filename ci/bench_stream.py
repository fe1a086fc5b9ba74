"""How much of the time a model waits for input and for training: `python ci/bench_stream.py`.

A stub takes a known time for each forward pass, each example takes one to read and tokenise, and
each batch one to train on: all are waits in which nothing is computed, as on a device, so that a
busy machine shows nearly the same. The model is idle between its first pass and its last one
whenever no pass is running.

With no readers the three follow each other. With some, examples are made ready ahead and the next
half of the buffer is extracted while the present one is trained on; then everything waits for the
model. `--check` exits 1 unless it is idle less than 5 % of the time then, and both ways give the
same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from contextlib import closing
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from adapters import Adapter, Inputs
from bench.activations.stream import ActivationStream
from bench.plan.protocol import load_protocol
from zoo.cards import Card
from zoo.finite import FiniteCorpus

MOST_IDLE = 0.05
WIDTH, CONTEXT, WINDOWS, PASSES_OF_A_HALF, BATCHES_OF_A_HALF = 16, 32, 16, 8, 16


class Costs(NamedTuple):
    """Seconds of a forward pass of 16 windows, of an example of one window, of a batch."""

    forward: float = 0.2
    example: float = 0.02
    batch: float = 0.05


class Stub(nn.Module):
    """One block that waits, and remembers when."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.layer = nn.ModuleList([nn.Identity()])
        self.seconds = seconds
        self.passes: list[tuple[float, float]] = []

    def forward(self, ids: Tensor) -> Tensor:
        begin = time.perf_counter()
        time.sleep(self.seconds)
        self.passes.append((begin, time.perf_counter()))  # the block's tap ends the pass
        x: Tensor = self.layer[0](ids.float()[:, :, None] + torch.arange(WIDTH))
        return x


class Waiting(Adapter):
    """Examples are numbers; each is a window of its own, and takes its time."""

    costs: Costs

    def load(self) -> nn.Module:
        return Stub(self.costs.forward)

    def windows(self, example: Any) -> list[Tensor]:
        time.sleep(self.costs.example)
        return [(torch.arange(CONTEXT) * 7 + example) % 1000]

    def inputs(self, items: list[Tensor]) -> Inputs:
        ids = torch.stack(items)
        return Inputs(
            {"ids": ids}, torch.ones_like(ids, dtype=torch.bool), torch.zeros_like(ids) > 0
        )


class Figures(NamedTuple):
    """idle: share of the time without a pass; seconds: of all; digest: of the batches."""

    idle: float
    seconds: float
    digest: str


def measure(readers: int, halves: int, costs: Costs) -> Figures:
    """The figures of training on so many halves of a buffer."""
    card = Card.model_validate(
        {
            "id": "waiting",
            "summary": "A model that waits",
            "domain": "language",
            "adapter": "hf-causal",
            "checkpoint": {"source": "none"},
            "tap": {"blocks": "layer.{i}", "layers": 1, "width": WIDTH},
            "corpus": "python-topics",
            "context": CONTEXT,
            "parameters": 0,
        }
    )
    adapter = Waiting(card)
    adapter.costs = costs
    tokens = WINDOWS * CONTEXT
    half = PASSES_OF_A_HALF * tokens
    batch = half // BATCHES_OF_A_HALF
    settings = [f"batch={batch}", f"buffer={2 * half}", f"forward_tokens={tokens}"]
    protocol = load_protocol("quick", settings=settings)
    corpus = FiniteCorpus("numbers", "text", lambda: list(range(100_000)), fingerprint="none")
    stream = ActivationStream(adapter, corpus, [0], protocol, workers=readers)
    digest, steps = hashlib.sha256(), halves * BATCHES_OF_A_HALF
    begin = time.perf_counter()
    with closing(stream.shuffled(batch)) as batches:
        batches.to_come = steps
        for _ in range(steps):
            digest.update(batches.next()[0].numpy().tobytes())
            time.sleep(costs.batch)
    seconds = time.perf_counter() - begin
    passes = adapter.model.passes
    assert isinstance(passes, list)
    busy = sum(end - start for start, end in passes)
    return Figures(1 - busy / (passes[-1][1] - passes[0][0]), seconds, digest.hexdigest())


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--readers", type=int, default=4)
    parser.add_argument("--halves", type=int, default=3)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--faster", type=float, default=1, help="divide all times by this")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    costs = Costs(*(seconds / options.faster for seconds in Costs()))
    ways = {readers: measure(readers, options.halves, costs) for readers in (0, options.readers)}
    without, some = ways[0], ways[options.readers]
    same = without.digest == some.digest
    ratio = without.seconds / some.seconds
    if options.json:
        idle = {readers: found.idle for readers, found in ways.items()}
        print(json.dumps({"idle": idle, "ratio": ratio, "same_bytes": same}))
    else:
        for readers, found in ways.items():
            print(f"{readers} readers: the model is idle {found.idle:.1%}, {found.seconds:.1f} s")
        print(f"{ratio:.2f} times as fast; the bytes {'agree' if same else 'differ'}")
    return int(options.check and not (same and some.idle < MOST_IDLE))


if __name__ == "__main__":
    sys.exit(main())
