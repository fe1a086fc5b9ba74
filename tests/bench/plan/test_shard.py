"""Shares of a run: together they are the run, whatever each job finds done or free."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bench.plan.blocks import Block, Request, make_plan
from bench.plan.costs import block_seconds
from bench.plan.devices import device_like
from bench.plan.protocol import load_protocol
from bench.plan.shard import RunShard, cost, divided
from bench.records.store import RecordStore
from bench.runner.block import measure_block
from bench.runner.run import run, todo
from tests.bench.runs import comparable
from tests.conftest import TINY
from zoo.registry import Registry, load_registry

Bench = Callable[..., tuple[int, str, str]]


@pytest.fixture
def request_of(registry: Registry) -> Request:
    protocol = load_protocol("quick", seeds=[0, 1, 2])
    return Request(cards=registry.select(suite="embedded"), protocol=protocol)


def hashes(blocks: list[Block]) -> list[str]:
    return [spec.hash for block in blocks for spec in block.specs]


@pytest.mark.parametrize("of", [1, 2, 3, 7, 50])
def test_the_shares_are_the_run_and_no_cell_is_in_two(
    registry: Registry, request_of: Request, of: int
) -> None:
    whole = make_plan(request_of, registry)
    shares = divided(whole, of)
    assert len(shares) == of
    found = [name for share in shares for name in hashes(share)]
    assert sorted(found) == sorted(hashes(whole))
    assert len(set(found)) == len(found)
    loads = [sum(map(cost, share)) for share in shares]
    if of <= 7:  # there are cells enough to balance
        assert max(loads) < 1.25 * sum(loads) / of


def test_a_share_is_the_same_whatever_memory_is_free(
    registry: Registry, request_of: Request
) -> None:
    shard = RunShard(1, 3)
    roomy = shard.blocks(replace(request_of, memory=1 << 40), registry)
    tight = shard.blocks(replace(request_of, memory=1), registry)
    assert sorted(hashes(tight)) == sorted(hashes(roomy))
    assert max(len(block.layers) for block in tight) == 1 < max(len(b.layers) for b in roomy)


def test_the_cost_is_the_plans(registry: Registry, request_of: Request) -> None:
    (block,) = make_plan(replace(request_of, cards=[registry.card("tiny-esm2")]), registry)
    device = replace(device_like("cuda"), block=0.0)
    assert cost(block) == round(1e6 * block_seconds(block, device))
    first = block.only(spec for spec in block.specs if spec.layer == 0)
    assert cost(first) < cost(block) / 2


def test_merged_by_copying_the_records_are_those_of_the_whole_run(
    bench: Bench, arguments: list[str], cards: Path, tmp_path: Path
) -> None:
    registry = load_registry([cards])
    protocol = load_protocol("quick", settings=TINY)
    request = Request(cards=[registry.card("made")], protocol=protocol)
    for i in range(2):
        store = RecordStore(tmp_path / f"shard-{i}")
        found = list(run(todo(RunShard(i, 2).blocks(request, registry), store), store))
        assert 2 <= len(found) <= 4
        shutil.copytree(store.folder, tmp_path / "all" / "records", dirs_exist_ok=True)
    whole = comparable(r for block in make_plan(request, registry) for r in measure_block(block))
    assert len(whole) == 6
    assert comparable(RecordStore(tmp_path / "all")) == whole
    code, out, _ = bench("plan", *arguments, "--shard", "1/2", "--output", "shard-1")
    assert code == 0
    assert f", {len(found)} cells, {len(found)} done" in out.partition("shard 1/2:")[2]


def test_a_share_without_cells_is_done_at_once(bench: Bench, arguments: list[str]) -> None:
    code, out, err = bench("run", *arguments, "--shard", "6/7")
    assert (code, out) == (0, "")
    assert err == "bench: shard 6/7 has no cell: there are fewer than shards\n"


@pytest.mark.parametrize(
    ("shard", "says"),
    [
        ("5/4", "--shard 5/4: there is no such shard. Of 4 shards the first is 0/4, the last 3/4."),
        ("4/4", "--shard 4/4: there is no such shard. Of 4 shards the first is 0/4, the last 3/4."),
        (
            "0/0",
            "--shard 0/0: there is no such shard. Divide the run into one shard at least: 0/1.",
        ),
        ("a/b", "--shard 'a/b' is not i/n. For instance: --shard 0/4"),
        ("-1/4", "--shard '-1/4' is not i/n. For instance: --shard 0/4"),
        ("2", "--shard '2' is not i/n. For instance: --shard 0/4"),
        ("", "--shard '' is not i/n. For instance: --shard 0/4"),
    ],
)
def test_what_is_no_share_is_refused(bench: Bench, shard: str, says: str) -> None:
    assert bench("run", "--shard", shard) == (2, "", f"bench: {says}\n")


@pytest.mark.parametrize("option", [("--shard", "0/2"), ("--readers", "1"), ("--profile",)])
def test_options_of_training_are_refused_where_nothing_is_trained(
    bench: Bench, option: tuple[str, ...]
) -> None:
    code, out, err = bench("run", "--sae", "x", *option)
    assert (code, out) == (2, "")
    assert err == f"bench: {option[0]} is for SAEs that are trained here, not for --sae\n"


def test_a_model_is_cut_no_finer_than_the_shares_need() -> None:
    registry = load_registry()
    request = Request(registry.select(models=["tiny-gpt2"]), load_protocol("quick"))
    whole = make_plan(replace(request, memory=sys.maxsize), registry)
    found = [[block.layers for block in share] for share in divided(whole, 2)]
    assert sorted(found) == [[[0, 1]], [[2, 3]]]
