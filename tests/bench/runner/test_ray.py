"""Tasks of a Ray cluster: what they ask for, and that one whose process is lost is tried again."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.plan.blocks import Block, Request, make_plan
from bench.plan.protocol import load_protocol
from bench.records.schema import Record
from bench.records.store import RecordStore
from bench.runner.block import measure_block
from bench.runner.engines import make_engine
from bench.runner.run import run, todo
from bench.runner.settings import NoProgress, Settings
from tests.bench.runs import comparable
from tests.conftest import TINY
from zoo.registry import load_registry


def dying_once(block: Block, settings: Settings) -> list[Record]:
    assert settings.states is not None
    mark = settings.states.parent / "died"
    if not mark.exists():
        mark.touch()
        os._exit(1)
    return list(measure_block(block, settings))


@pytest.mark.filterwarnings("ignore")
def test_a_task_whose_process_was_lost_is_tried_again(
    cards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    from bench.runner.engines import ray as cluster

    registry = load_registry([cards])
    request = Request([registry.card("made")], load_protocol("quick", settings=TINY), layers=[0])
    blocks = make_plan(request, registry)
    expected = comparable(record for block in blocks for record in measure_block(block))
    monkeypatch.setattr(cluster, "_measure", dying_once)
    store = RecordStore(tmp_path)
    settings = Settings(states=tmp_path / "state")
    assert comparable(run(todo(blocks, store), store, settings, make_engine("ray"))) == expected
    assert (tmp_path / "died").exists()


def test_a_task_asks_for_a_core_or_a_gpu_and_for_the_memory_of_its_block(
    cards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.runner.engines import ray as cluster

    asked: list[dict] = []

    class Task:
        def __init__(self, **options: object) -> None:
            self.wanted = options

        def __call__(self, function: object) -> Task:
            return self

        def options(self, **more: object) -> Task:
            asked.append(self.wanted | more)
            return self

        def remote(self, block: Block, settings: Settings) -> str:
            return block.card.id

    stub = SimpleNamespace(
        init=lambda **options: None,
        nodes=lambda: [{"Resources": {"memory": 1 << 40}}, {"Resources": {}}],
        remote=Task,
        wait=lambda tasks, num_returns: (tasks[:1], tasks[1:]),
        get=lambda task: [],
        cancel=lambda task, force: None,
        exceptions=SimpleNamespace(RayError=RuntimeError),
    )
    monkeypatch.setitem(sys.modules, "ray", stub)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    registry = load_registry([cards])
    request = Request([registry.card("made")], load_protocol("quick", settings=TINY), layers=[0])
    (block,) = make_plan(request, registry)
    for device in ("cpu", "cuda"):
        list(cluster.RayEngine().records([block], Settings(device=device), NoProgress()))
    monkeypatch.setattr(stub, "nodes", lambda: [{"Resources": {"memory": 1000}}])
    list(cluster.RayEngine().records([block], Settings(), NoProgress()))
    tries = {"max_retries": 2}
    assert asked == [
        tries | {"num_cpus": 1, "memory": block.memory},
        tries | {"num_gpus": 1, "memory": block.memory},
        tries | {"num_cpus": 1, "memory": 1000},
    ]
