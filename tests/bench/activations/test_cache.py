"""The cache of activations: the same bits without the model; what is damaged is not believed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from adapters import Adapter, open_adapter
from adapters.language import CausalLanguage
from bench.activations import cache as module
from bench.activations.cache import (
    CachedSource,
    CachedStream,
    cached,
    cached_layers,
    hits,
)
from bench.activations.stream import ActivationStream
from bench.plan.blocks import Block, Request, make_plan
from bench.plan.protocol import load_protocol
from bench.plan.work import cache_bytes, training_rows
from bench.records.store import RecordStore
from bench.runner.block import measure_block
from bench.runner.checkpoints import saved_states
from bench.runner.settings import Settings
from tests.bench.runs import Killed, KilledAfter, Listener, comparable
from tests.conftest import TINY
from zoo.registry import load_registry

Bench = Callable[..., tuple[int, str, str]]
MODEL = "tiny-gpt2"


def plan(*settings: str, layers: list[int] | None = None) -> Block:
    registry = load_registry()
    protocol = load_protocol("quick", settings=[*TINY, *settings])
    cards = registry.select(models=[MODEL])
    request = Request(cards=cards, protocol=protocol, layers=layers or [0, 2])
    (block,) = make_plan(request, registry)
    return block


def measured(block: Block, cache: Path | None = None) -> dict[str, dict]:
    return comparable(measure_block(block, Settings(cache=cache)))


@pytest.fixture(scope="module")
def expected() -> dict[str, dict]:
    return measured(plan())


def forbid(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any) -> Any:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(CausalLanguage, "load", refuse)


def test_a_second_run_gives_the_same_bits_without_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: dict[str, dict]
) -> None:
    monkeypatch.setattr(module, "_SHARD_ELEMENTS", 20_000)  # many shards
    assert measured(plan(), tmp_path) == expected
    assert len(list(tmp_path.glob("*/*.safetensors"))) > 4
    forbid(monkeypatch)
    assert measured(plan(), tmp_path) == expected
    one = plan(layers=[2])
    assert measured(one, tmp_path).items() <= expected.items(), "a layer alone is a hit too"
    failed = measured(plan(layers=[1]), tmp_path).values()
    assert {r["status"] for r in failed} == {"failed"}, "another layer is not"


def test_damaged_gammas_of_special_tokens_are_measured_again(
    tmp_path: Path, expected: dict[str, dict]
) -> None:
    measured(plan(), tmp_path)
    stored = [entry.folder / "special.json" for entry in cached_layers(plan(), tmp_path, "cpu")]
    before = [path.read_text() for path in stored]
    stored[0].write_text(before[0].replace('"gamma": ', '"gamma": 1'))
    stored[1].write_text("{")
    assert measured(plan(), tmp_path) == expected
    assert [path.read_text() for path in stored] == before


def test_passes_for_special_tokens_are_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = load_registry()
    protocol = load_protocol("quick", settings=TINY)
    request = Request(registry.select(models=["tiny-esm2"]), protocol, layers=[1])
    (block,) = make_plan(request, registry)
    first = measured(block, tmp_path)
    assert all(record["result"]["special_tokens"]["kept"] for record in first.values())

    def refuse(self: Any) -> Any:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(Adapter, "model", property(refuse))
    assert measured(block, tmp_path) == first


def test_the_format_is_what_is_written_down(tmp_path: Path) -> None:
    block = plan()
    measured(block, tmp_path)
    (first, _) = cached_layers(block, tmp_path, "cpu")
    manifest = json.loads((first.folder / "manifest.json").read_text())
    assert manifest["identity"]["layer"] == 0
    contents = manifest["contents"]
    assert contents["evaluated"] == contents["fitted"] == 512
    assert contents["evaluated_examples"] > 0
    assert contents["fitted_examples"] > 0
    assert 0 < contents["first_pass"] <= training_rows(block)
    shards = [
        load_file(first.folder / shard["name"])["activations"] for shard in manifest["shards"]
    ]
    assert sum(map(len, shards)) == manifest["rows"] == 1024 + training_rows(block)
    assert {x.shape[1] for x in shards} == {manifest["width"]} == {block.card.tap.width}
    on_disk = sum(path.stat().st_size for path in tmp_path.glob("*/*.safetensors"))
    assert cache_bytes(block) <= on_disk < cache_bytes(block) + 1000
    assert {path.suffix for path in tmp_path.glob(".*")} == {".lock"}, "no scratch is left"


@pytest.mark.parametrize(
    "setting", ["N=500", "fit_tokens=300", "data_seed=1", "dtype=bfloat16", "forward_tokens=64"]
)
def test_what_decides_the_activations_is_in_the_key(tmp_path: Path, setting: str) -> None:
    ours, other = (cached_layers(block, tmp_path, "cpu")[0] for block in (plan(), plan(setting)))
    assert ours.folder != other.folder


@pytest.mark.parametrize("setting", ["n=128", "k=2", "lr=1e-3", "steps=3"])
def test_what_only_decides_the_training_is_not(tmp_path: Path, setting: str) -> None:
    ours, other = (cached_layers(block, tmp_path, "cpu")[0] for block in (plan(), plan(setting)))
    assert ours.folder == other.folder


def test_another_device_or_version_is_another_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = plan()
    here = cached_layers(block, tmp_path, "cpu")[0].folder
    assert cached_layers(block, tmp_path, "cuda:1")[0].folder != here
    monkeypatch.setattr(module, "package_versions", lambda: {"torch": "1.0"})
    assert cached_layers(block, tmp_path, "cpu")[0].folder != here


def test_fewer_steps_are_a_hit_and_more_are_computed_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured(plan(), tmp_path)
    assert hits(plan("steps=5"), tmp_path) == 2
    assert hits(plan("steps=40"), tmp_path) == 0
    assert measured(plan("steps=40"), tmp_path) == measured(plan("steps=40"))
    assert hits(plan("steps=40"), tmp_path) == 2
    forbid(monkeypatch)
    assert {r["status"] for r in measured(plan("steps=5"), tmp_path).values()} == {"ok"}


def test_a_damaged_shard_is_noticed_and_computed_again(
    tmp_path: Path, expected: dict[str, dict]
) -> None:
    measured(plan(), tmp_path)
    path = sorted(tmp_path.glob("*/*.safetensors"))[0]
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    listener = Listener()
    records = measure_block(plan(), Settings(cache=tmp_path), listener)
    assert {r.hash: r.comparable() for r in records} == expected
    assert len(listener.notes) == 1
    assert "is damaged; computed again" in listener.notes[0]
    assert all(entry.is_sound() for entry in cached_layers(plan(), tmp_path, "cpu"))


def test_killed_while_it_reads_the_cache_it_goes_on_to_the_same_bits(
    tmp_path: Path, expected: dict[str, dict]
) -> None:
    block = plan()
    settings = Settings(cache=tmp_path / "cache", states=tmp_path / "state", save_every=0)
    with pytest.raises(Killed):
        list(measure_block(block, settings, KilledAfter(7 * len(block.specs))))
    assert saved_states(tmp_path / "state")[0].step == 6
    assert {r.hash: r.comparable() for r in measure_block(block, settings)} == expected


def test_rows_are_those_that_training_takes() -> None:
    """Buffer 256, batch 64: two batches a cycle."""
    counts = {steps: training_rows(plan(f"steps={steps}")) for steps in (0, 1, 2, 3, 4, 5)}
    assert counts == {0: 0, 1: 256, 2: 256, 3: 384, 4: 384, 5: 512}


def test_no_room_on_the_disk_is_said_before_the_work(
    bench: Bench, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = module.shutil.disk_usage(".")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    code, _, err = bench("run", "--model", MODEL, *tiny, "--cache", "acts")
    assert code == 2
    assert "--cache acts: no room for" in err


def test_plan_says_the_size_and_whether_it_is_there(bench: Bench, tiny: list[str]) -> None:
    options = ["--model", MODEL, "--layer", "1", *tiny, "--cache", "acts"]
    assert "miss, " in bench("plan", *options)[1]
    assert bench("run", *options)[0] == 0
    assert "hit, " in bench("plan", *options)[1]
    document = json.loads(bench("plan", *options, "--json")[1])
    (row,) = document["blocks"]
    assert row["cached_layers"] == 1
    assert row["cache_size"] == cache_bytes(plan(layers=[1]))
    assert {r.status for r in RecordStore(Path("runs"))} == {"ok"}


def test_processes_that_want_the_same_layer_store_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads stand for processes: a lock is of the one as of the other."""
    fill, filled = module._fill, []

    def slowly(*given: Any) -> None:
        filled.append(given)
        time.sleep(0.5)
        fill(*given)

    monkeypatch.setattr(module, "_fill", slowly)
    notes: list[str] = []

    def look() -> CachedStream:
        adapter = open_adapter(block.card)
        assert block.corpus is not None
        stream = ActivationStream(adapter, block.corpus, block.layers, block.protocol)
        return cached(block, stream, tmp_path, "cpu", notes.append)

    block = plan()
    with ThreadPoolExecutor(3) as pool:
        streams = [pool.submit(look) for _ in range(3)]
        samples = [stream.result().sample(block.tokens) for stream in streams]
    assert len(filled) == 1
    assert any("waits for another process" in note for note in notes)
    for sample in samples[1:]:
        assert all(torch.equal(sample[layer], samples[0][layer]) for layer in block.layers)


def test_a_longer_run_replaces_what_a_shorter_one_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SHARD_ELEMENTS", 20_000)
    short, long = plan(), plan("steps=40")
    measured(short, tmp_path)
    rows = short.tokens + training_rows(short)
    reader = CachedSource(cached_layers(short, tmp_path, "cpu"), 0, "cpu")
    first = next(reader.take(100))
    measured(long, tmp_path)
    (entry, _) = cached_layers(long, tmp_path, "cpu")
    assert sum(shard.rows for shard in entry.shards()) >= long.tokens + training_rows(long)
    assert entry.is_sound()
    again = CachedSource(cached_layers(short, tmp_path, "cpu"), 0, "cpu")
    assert torch.equal(next(again.take(100))[0], first[0])
    rest = [
        torch.cat([piece[0] for piece in source.take(rows - 100)]) for source in (reader, again)
    ]
    assert torch.equal(*rest)
    assert not list(tmp_path.glob("*/.*"))
