"""Every family and every arm through `bench run`, on small work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench import load_sae
from bench.records.store import RecordStore
from bench.sae.arms import all_arms, one_word_arms
from bench.sae.families import FAMILIES, FamilySpec, Key
from bench.sae.families.relu import ReLU
from bench.sae.gradients import Backward

Bench = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_runs_end_to_end(bench: Bench, tiny: list[str], family: str) -> None:
    options = ["--model", "synthetic-gamma4", *tiny, "--set", f"family={family}"]
    arms = ["--arm", "raw+auxk", "--arm", "centered"]
    code, out, err = bench("run", *options, *arms, "--save-saes")
    assert code == 0, out + err
    found = list(RecordStore(Path("runs")))
    assert {record.spec.arm for record in found} == {"raw+auxk", "centered"}
    for record in found:
        assert record.result is not None
        assert record.result.training is not None
        assert record.result.training.path == FAMILIES[family].paths[0]
        assert record.spec.protocol.get("family", "topk") == family
        assert load_sae(Path("runs/saes") / record.hash).family.name == family
        if family == "relu":
            assert record.result.death_end.dead_topk == 0
            assert record.result.predicted_dead == record.result.predicted_relu


@dataclass(frozen=True)
class Half(ReLU):
    """A family in a file of its own, as a contributor would add one: ReLU at half its price."""

    name = "half"

    def step(self, *arguments: Any, **options: Any) -> Backward:
        return ReLU(self.l1 / 2, self.warmup_steps).step(*arguments, **options)


def test_a_family_is_its_file_and_an_entry_in_one_table(
    bench: Bench, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"l1": Key(4.0, "price", {})}
    spec = FamilySpec(f"{__name__}:Half", 3.0, dense=True, paths=("dense",), keys=keys)
    monkeypatch.setitem(FAMILIES, "half", spec)
    options = ["--model", "synthetic-gamma4", *tiny, "--arm", "raw"]
    for family in (["family=half"], ["family=relu", "l1=2", "warmup=0"]):
        settings = [part for setting in family for part in ("--set", setting)]
        code, out, err = bench("run", *options, *settings, "--save-saes")
        assert code == 0, out + err
    records = {record.spec.protocol["family"]: record for record in RecordStore(Path("runs"))}
    half, relu = records["half"], records["relu"]
    assert half.spec.protocol["l1"] == 4.0
    assert "warmup" not in half.spec.protocol
    assert half.result is not None
    assert relu.result is not None
    assert half.result.training == relu.result.training
    assert load_sae(Path("runs/saes") / half.hash).family == Half(4.0)


def test_every_arm_trains(bench: Bench, tiny: list[str]) -> None:
    # Those without a name of their own go through the same code.
    named = [arm.name for arm in all_arms() if arm.center != "mean"]
    names = list(dict.fromkeys([*named, *(arm.name for arm in one_word_arms())]))
    arms = [part for name in names for part in ("--arm", name)]
    options = ["--model", "synthetic-gamma4", *tiny, "--set", "dead_after=64"]
    code, out, err = bench("run", *options, *arms)
    assert code == 0, out + err
    found = list(RecordStore(Path("runs")))
    assert {record.spec.arm for record in found} == set(names)
    assert all(record.status == "ok" for record in found)
    ends = {record.spec.arm: record.result.training.fvu for record in found}
    for name in ("raw", "none-rms"):  # dead features are left in these
        assert len({ends[name], ends[f"{name}+auxk"], ends[f"{name}+auxk-relu"]}) == 3


def test_seeds_agreement_is_in_the_record_and_not_in_what_is_compared(
    bench: Bench, tiny: list[str]
) -> None:
    options = ["--model", "synthetic-gamma4", "--arm", "raw", *tiny]
    assert bench("run", *options, "--seed", "0")[0] == 0
    (alone,) = RecordStore(Path("runs"))
    assert alone.agreement is None
    assert bench("run", *options, "--seed", "0", "--seed", "1", "--force")[0] == 0
    together = {record.spec.seed: record for record in RecordStore(Path("runs"))}
    assert together[0].comparable() == alone.comparable()
    for seed, other in ((0, 1), (1, 0)):
        found = together[seed].agreement
        assert found is not None
        assert found.seeds == (other,)
        assert 0 < found.mean_max_cosine < 1
