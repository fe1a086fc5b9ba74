"""A Ray cluster that loses a process: its task is tried again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.plan.blocks import Block, Request, make_plan
from bench.plan.protocol import load_protocol
from bench.records.schema import Record
from bench.records.store import RecordStore
from bench.runner.block import measure_block
from bench.runner.engines import make_engine
from bench.runner.run import run, todo
from bench.runner.settings import Settings
from tests.bench.runs import comparable
from tests.conftest import TINY
from zoo.registry import load_registry

pytest.importorskip("ray", reason="Ray is not installed")


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
