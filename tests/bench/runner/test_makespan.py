"""How well blocks fill the workers of a run, by the code that deals them, on a simulated clock."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any

import pytest

from bench.plan import shard
from bench.plan.blocks import Block, Request, make_plan
from bench.plan.costs import block_seconds
from bench.plan.devices import device_like
from bench.plan.protocol import load_protocol
from bench.runner import engines
from bench.runner.engines import dealt
from bench.runner.engines import workers as workers_engine
from bench.runner.engines.workers import WorkersEngine
from bench.runner.settings import NoProgress, Settings
from zoo.registry import load_registry

BLOCKS, WORKERS = 454, 16

Cost = Callable[[Block], float]


@pytest.fixture(scope="module")
def blocks() -> list[Block]:
    """Blocks of a layer each of the suite `paper`; the hub is not asked what is there."""
    from huggingface_hub import constants

    registry = load_registry()
    cards = registry.select(suite="paper")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        plan = make_plan(Request(cards=cards, protocol=load_protocol("paper"), memory=1), registry)
    assert len(plan) >= BLOCKS
    return plan[:BLOCKS]


@pytest.fixture(params=["the plan's costs", "even", "heavy tail"])
def seconds(
    request: pytest.FixtureRequest, blocks: list[Block], monkeypatch: pytest.MonkeyPatch
) -> Cost:
    """What each block takes, which is what the plan says of it."""
    rng = random.Random(5)
    drawn = {
        "the plan's costs": lambda block: block_seconds(block, device_like("cpu")),
        "even": lambda block: rng.uniform(0.9, 1.1),
        "heavy tail": lambda block: rng.paretovariate(1.5),
    }[request.param]
    costs = {block.specs[0].hash: drawn(block) for block in blocks}

    def cost(block: Block, *_: Any) -> float:
        return costs[block.specs[0].hash]

    monkeypatch.setattr(engines, "block_seconds", cost)
    return cost


def ideal(costs: Sequence[float]) -> float:
    return max(max(costs), sum(costs) / WORKERS)


class Simulation:
    """Workers of the local engine without processes: each is at work for as long as its block
    takes, and time passes only while the engine waits."""

    def __init__(self, seconds: Cost, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.begun = 0.0, list[Block]()
        self._seconds, self._ends = seconds, dict[Connection, float]()
        monkeypatch.setattr(WorkersEngine, "_start", self._start)
        monkeypatch.setattr(workers_engine, "wait", self._wait)
        monkeypatch.setattr(workers_engine, "_hear", self._hear)
        monkeypatch.setattr(workers_engine, "_stop", lambda workers: None)

    def _start(self, slot: int, settings: Settings) -> SimpleNamespace:
        ours, theirs = Pipe()
        theirs.close()

        def take(block: Block) -> None:
            self.begun.append(block)
            self._ends[ours] = self.now + self._seconds(block)

        return SimpleNamespace(slot=slot, connection=ours, take=take)

    def _wait(self, connections: Sequence[Connection]) -> list[Connection]:
        first = min(connections, key=self._ends.__getitem__)
        self.now = self._ends[first]
        return [first]

    def _hear(self, worker: Any, absent: Any) -> Generator[Any, None, str]:
        yield from ()
        return "idle"


def test_workers_end_within_5_percent_of_the_ideal(
    blocks: list[Block], seconds: Cost, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulation = Simulation(seconds, monkeypatch)
    engine = WorkersEngine(WORKERS)
    list(engine.records(engine.agree(blocks), Settings(), NoProgress()))
    costs = [seconds(block) for block in blocks]
    *longer, shortest = sorted(costs, reverse=True)
    assert [seconds(block) for block in simulation.begun] == [shortest, *longer]
    assert ideal(costs) <= simulation.now < 1.05 * ideal(costs)


def test_processes_that_are_dealt_their_blocks_end_within_5_percent_of_the_ideal(
    blocks: list[Block], seconds: Cost
) -> None:
    shares = dealt(blocks, WORKERS, "cpu")
    assert sum(map(len, shares)) == BLOCKS
    costs = [seconds(block) for block in blocks]
    assert max(sum(map(seconds, share)) for share in shares) < 1.05 * ideal(costs)


def test_a_fixed_order_would_not(blocks: list[Block], monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock can tell: the shortest first takes a quarter longer."""
    costs = {block.specs[0].hash: 1.0 + 99.0 * (i > BLOCKS - 8) for i, block in enumerate(blocks)}

    def cost(block: Block, *_: Any) -> float:
        return costs[block.specs[0].hash]

    monkeypatch.setattr(workers_engine, "longest_first", lambda blocks, _: sorted(blocks, key=cost))
    simulation = Simulation(cost, monkeypatch)
    list(WorkersEngine(WORKERS).records(blocks, Settings(), NoProgress()))
    assert simulation.now > 1.25 * ideal(list(costs.values()))


def test_the_jobs_of_an_array_end_within_5_percent_of_the_ideal(
    blocks: list[Block], monkeypatch: pytest.MonkeyPatch
) -> None:
    known: dict[tuple[str, ...], int] = {}
    plans_cost = shard.cost

    def cost(block: Block) -> int:
        name = tuple(spec.hash for spec in block.specs)
        return known[name] if name in known else known.setdefault(name, plans_cost(block))

    monkeypatch.setattr(shard, "cost", cost)
    shares = shard.divided(blocks, WORKERS)
    loads = [sum(map(cost, share)) for share in shares]
    assert max(loads) < 1.05 * sum(loads) / WORKERS
