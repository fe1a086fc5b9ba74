"""Every family and every arm through `bench run`, on small work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench import load_sae
from bench.records.store import RecordStore
from bench.sae.arms import all_arms
from bench.sae.families import DENSE, KEYS, Name

Bench = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("family", KEYS)
def test_a_family_runs_end_to_end(bench: Bench, tiny: list[str], family: Name) -> None:
    options = ["--model", "synthetic-gamma4", *tiny, "--set", f"family={family}"]
    arms = ["--arm", "raw+auxk", "--arm", "centered"]
    code, out, err = bench("run", *options, *arms, "--save-saes")
    assert code == 0, out + err
    found = list(RecordStore(Path("runs")))
    assert {record.spec.arm for record in found} == {"raw+auxk", "centered"}
    for record in found:
        assert record.result is not None
        assert record.result.training is not None
        assert record.result.training.path == ("dense" if family in DENSE else "sparse")
        assert record.spec.protocol.get("family", "topk") == family
        assert load_sae(Path("runs/saes") / record.hash).family.name == family
        if family == "relu":
            assert record.result.death_end.dead_topk == 0
            assert record.result.predicted_dead == record.result.predicted_relu


def test_every_arm_trains(bench: Bench, tiny: list[str]) -> None:
    names = [arm.name for arm in all_arms()]
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
