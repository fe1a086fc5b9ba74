from __future__ import annotations

import random

import pytest

from bench.records.schema import Record
from bench.records.spec import Spec
from leaderboard.columns.activations import GAMMA
from leaderboard.columns.death import INIT
from leaderboard.figures.pictures import pictures
from leaderboard.groups import Spread, arm_order, by_setting, group_records, sizes_as_run
from leaderboard.markdown.layout import setting_line
from leaderboard.terminal import table_title
from tests.records import make_grid, make_provenance, make_record, make_spec
from zoo.errors import BadCorpus, BadRecord


def test_a_cell_that_others_have_is_missing() -> None:
    records = make_grid(layers=[0, 1], seeds=[0, 1])
    lost = records.pop(3).spec
    (group,) = group_records(records)
    assert group.missing == [(lost.layer, lost.arm, lost.seed)]
    assert len(group.cells) == 8


def test_failed_cells_are_kept() -> None:
    bad = make_record(layer=1, outcome=BadCorpus("empty"))
    (group,) = group_records([make_record(layer=0), bad])
    assert group.failed == [bad]
    assert group.at_layer(GAMMA.value, 1, "raw") is None


def test_protocols_are_never_mixed() -> None:
    records = [
        make_record(),
        make_record(protocol={"steps": 7}),
        make_record(limit=100),
        make_record(metric_version=99),
    ]
    groups = group_records(records)
    assert len(by_setting(groups)) == 4
    assert all(len(group.records) == 1 for group in groups)


def test_the_preset_s_name_does_not_separate_equal_protocols() -> None:
    records = [make_record(layer=0), make_record(layer=1, provenance=make_provenance(protocol="z"))]
    (group,) = group_records(records)
    assert group.setting.name == "trial, z"


def test_a_family_is_part_of_a_settings_name() -> None:
    spec = make_spec()
    other = Spec(**spec.model_dump() | {"protocol": spec.protocol | {"family": "relu"}})
    (setting,) = by_setting(group_records([make_record(other)]))
    assert setting.name.endswith(" relu")
    (setting,) = by_setting(group_records([make_record(spec)]))
    assert "relu" not in setting.name


def test_limited_settings_come_last() -> None:
    groups = group_records([make_record(limit=5), make_record()])
    assert [group.setting.limited for group in groups] == [False, True]


@pytest.mark.parametrize(
    "change",
    [
        {"weights": "sha256:" + "ab" * 32},
        {"corpus": "another"},
        {"corpus_fingerprint": "sha256:" + "cd" * 32},
        {"card": {"adapter": "other"}},
        {"domain": "protein"},
    ],
)
def test_one_name_for_different_things_is_told_apart(change: dict[str, object]) -> None:
    groups = group_records([make_record(), make_record(**change)])
    assert len(groups) == 2
    assert len({group.label for group in groups}) == 2
    assert all(group.label.startswith("tiny-a (") for group in groups)


def test_corpora_tell_a_model_apart_by_their_names_where_these_do() -> None:
    def on(corpus: str, digit: str) -> Record:
        return make_record(corpus=corpus, corpus_fingerprint=f"sha256:{digit * 64}")

    groups = group_records([on("human", "1"), on("made", "2")])
    assert {group.label for group in groups} == {"tiny-a (human)", "tiny-a (made)"}
    groups = group_records([on("human", "1"), on("made", "2"), on("made", "3")])
    assert len({group.label for group in groups}) == 3


def test_a_name_that_stands_for_one_thing_is_its_own_label() -> None:
    (group,) = group_records(make_grid())
    assert group.label == "tiny-a"


def test_the_same_record_twice_is_one() -> None:
    record = make_record()
    (group,) = group_records([record, record.model_copy()])
    assert group.records == [record]


def test_two_records_of_one_cell_that_differ_are_refused() -> None:
    spec = make_spec()
    with pytest.raises(BadRecord, match=f"both the cell {spec.hash}"):
        group_records([make_record(spec), make_record(spec, BadCorpus("empty"))])


def test_a_protocol_without_sizes_is_refused() -> None:
    record = make_record(protocol={"n": 100})
    protocol = {key: value for key, value in record.spec.protocol.items() if key != "n"}
    spec = record.spec.model_copy(update={"protocol": protocol})
    with pytest.raises(BadRecord, match="its protocol has no n"):
        group_records([record.model_copy(update={"spec": spec, "hash": "x"})])


def test_values_are_means_over_seeds_then_over_layers() -> None:
    records = make_grid(layers=[0, 1], arms=["raw"], seeds=[0, 1])[:3]
    (group,) = group_records(records)
    dead = [_dead(record) for record in records]
    first, second = (dead[0] + dead[1]) / 2, dead[2]
    assert group.by_layer(INIT.value, "raw") == pytest.approx({0: first, 1: second})
    spread = group.over_layers(INIT.value, "raw")
    assert spread is not None
    assert spread.mean == pytest.approx((first + second) / 2)
    assert (spread.low, spread.high) == pytest.approx(tuple(sorted((first, second))))


def test_savings_are_paired_by_layer_and_seed() -> None:
    records = make_grid(layers=[0, 1], seeds=[0, 1])
    dead = {(r.spec.layer, r.spec.arm, r.spec.seed): _dead(r) for r in records}
    # Without its centered partner, a raw cell must not enter.
    kept = [r for r in records if (r.spec.layer, r.spec.arm, r.spec.seed) != (1, "centered", 0)]
    (group,) = group_records(kept)
    first = [dead[0, "raw", seed] - dead[0, "centered", seed] for seed in (0, 1)]
    second = dead[1, "raw", 1] - dead[1, "centered", 1]
    spread = group.saved(INIT.value)
    assert spread is not None
    assert spread.mean == pytest.approx((sum(first) / 2 + second) / 2)


def test_means_do_not_depend_on_the_order() -> None:
    draw = random.Random(1)
    values = [draw.uniform(-1, 1) * 10 ** draw.uniform(-8, 8) for _ in range(200)]
    means = set()
    for _ in range(20):
        draw.shuffle(values)
        spread = Spread.of(values)
        assert spread is not None
        means.add(spread.mean)
    assert len(means) == 1


def test_equal_values_have_exactly_that_mean() -> None:
    assert Spread.of([0.1] * 3) == Spread(0.1, 0.1, 0.1)
    assert Spread.of([]) is None


def test_arms_are_ordered_as_people_read_them() -> None:
    names = ["zebra", "whitened", "none-rms", "centered+auxk", "raw+auxk", "centered", "raw"]
    assert sorted(names, key=arm_order) == [
        "raw", "raw+auxk", "centered", "centered+auxk", "whitened", "none-rms", "zebra",
    ]  # fmt: skip


def _dead(record: Record) -> float:
    assert record.result is not None
    death = record.result.death_init
    return (death.dead_relu + death.dead_topk) / record.spec.protocol["n"]


def test_a_limited_run_is_told_by_the_sizes_that_it_had() -> None:
    whole = make_record().spec
    protocol = whole.protocol
    sizes = {key: protocol[key] for key in ("n", "k", "N", "steps")}
    assert sizes_as_run(whole) == sizes
    limit = 3 * protocol["batch"] - 1
    (group,) = group_records([make_record(limit=limit)])
    assert sizes_as_run(group.spec) == sizes | {"N": min(protocol["N"], limit), "steps": 3}
    assert "3 training steps" in setting_line(group)
    assert f"N {min(protocol['N'], limit):,}" in table_title(group)
    (caption,) = {each.caption for each in pictures([group]) if each.kind == "profile"}
    assert "3 training steps" in caption
