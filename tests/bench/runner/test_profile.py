"""Where a block's time went: the parts are the whole, and to look changes nothing."""

from __future__ import annotations

import gzip
import json
import re
import time
from pathlib import Path

import pytest
import torch

from bench.compute import profiling
from bench.compute.profiling import PARTS, Profile, mark, marked, profiled
from bench.plan.blocks import Request, make_plan
from bench.plan.protocol import load_protocol
from bench.runner.block import measure_block
from bench.runner.settings import Settings
from tests.bench.runs import Listener, comparable
from tests.conftest import TINY
from zoo.registry import load_registry

CPU = torch.device("cpu")


@pytest.mark.parametrize("readers", [0, 1])
def test_the_parts_of_a_run_are_its_time_and_its_records_are_the_same(
    cards: Path, tmp_path: Path, readers: int
) -> None:
    registry = load_registry([cards])
    protocol = load_protocol("quick", settings=TINY, arms=["raw"])
    request = Request(cards=[registry.card("made")], protocol=protocol, layers=[1])
    (block,) = make_plan(request, registry)
    heard = Listener()
    settings = Settings(profile=tmp_path / "profile", readers=readers)
    begin = time.perf_counter()
    found = comparable(measure_block(block, settings, heard))
    took = time.perf_counter() - begin
    assert found == comparable(measure_block(block))
    (table,) = (tmp_path / "profile").glob("*.md")
    rows = dict(re.findall(r"\| ([a-z, ]+) \| ([\d.]+) \|", table.read_text()))
    seconds = {name: float(value) for name, value in rows.items()}
    whole = seconds.pop("whole")
    own = {name: value for name, value in seconds.items() if "beside" not in name}
    assert set(own) == {*PARTS, "other"}
    assert sum(own.values()) == pytest.approx(whole, abs=0.01)
    assert 0.1 * took < whole <= took  # to start the profiler and to write its trace takes time
    trained = {"model", "product", "selection", "decode", "gradients", "optimizer", "census"}
    assert all(own[name] > 0 for name in trained)
    assert ("model, beside" in seconds) == bool(readers)
    assert [note for note in heard.notes if note.startswith("made, layers 1 to 1: ")]
    (trace,) = (tmp_path / "profile").glob("*.json.gz")
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    names = [event.get("name") for event in events]
    assert names.count("optimizer") >= 12
    assert trained - {"model", "census"} <= set(names)


def test_the_outer_mark_counts_and_what_has_none_is_other(tmp_path: Path) -> None:
    @marked("selection")
    def select() -> None:
        time.sleep(0.02)

    select()  # without a profile
    with profiled(tmp_path, "made", CPU, lambda text: None):
        found = profiling._profile
        assert isinstance(found, Profile)
        with mark("census"):
            select()
        select()
        time.sleep(0.02)
    assert {name for name, s in found.seconds.items() if s > 0.015} == {
        "census",
        "selection",
        "other",
    }
    assert profiling._profile is None
    assert mark("model") is mark("census")
    assert not list(tmp_path.glob("*.json.gz"))  # no step was taken
