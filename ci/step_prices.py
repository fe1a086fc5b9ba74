"""What a training step of each remedy takes, beside raw's.

python -m ci.step_prices --layer all-minilm-l6-v2:2    of the synthetic suite and of this layer

They go into `prices.json` of a folder of records; `ci/cures.py --part prices` measures those of the
page of cures.

Every SAE steps by itself, all of a layer in turns, on one thread, and what counts is the thread's
own processor time: what else the machine does slows all alike. The trainings are a quarter as long
as those of the protocol; what changes in them does so after shares of their steps.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.plan.blocks import Block, Request, make_plan
from bench.plan.protocol import load_protocol
from bench.records.prices import Price, Prices, write_prices
from bench.records.schema import Record
from bench.runner.block import measure_block
from bench.runner.settings import Settings
from zoo.registry import load_registry

# A quarter of the protocol's.
SHORTER = ("steps=500", "dead_after=2500", "checkpoints=1")


def blocks(
    layers: Sequence[str], *, settings: Sequence[str] = SHORTER, arms: Sequence[str] = ()
) -> list[Block]:
    """Trainings of one seed: of the synthetic suite, and of `layers`, each MODEL:LAYER."""
    registry = load_registry()
    protocol = load_protocol("cures", settings=settings, arms=arms, seeds=[0])
    found = make_plan(Request(registry.select(suite="synthetic"), protocol), registry)
    for model, _, layer in (each.partition(":") for each in layers):
        cards = registry.select(models=[model])
        found += make_plan(Request(cards, protocol, layers=[int(layer)]), registry)
    return found


def measure(work: Sequence[Block]) -> Prices:
    """Runs them. Raises RuntimeError where a training failed."""
    import torch

    torch.set_num_threads(1)
    records: list[Record] = []
    for block in work:
        print(f"{block.card.id}: {len(block.specs)} arms", flush=True)
        records += measure_block(block, Settings(banks=False))
    steps = []
    for record in records:
        if record.step_seconds is None:
            raise RuntimeError(f"{record.spec.model}, {record.spec.arm}: {record.failure}")
        spec = record.spec
        price = Price(model=spec.model, layer=spec.layer, arm=spec.arm, seconds=record.step_seconds)
        steps.append(price)
    first = records[0]
    return Prices(protocol=first.spec.protocol, provenance=first.provenance, steps=tuple(steps))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--output", type=Path, default=Path("results/cures"))
    parser.add_argument("--layer", action="append", default=[], metavar="MODEL:LAYER")
    parser.add_argument("--arm", action="append", default=[], help="by default the protocol's")
    asked = parser.parse_args()
    print(write_prices(asked.output, measure(blocks(asked.layer, arms=asked.arm))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
