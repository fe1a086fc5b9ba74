"""Families side by side: on the same layers, by the same arms, and in words that records give."""

from __future__ import annotations

from statistics import fmean

import pytest

from bench.records.schema import Record
from leaderboard.columns.death import END_RELU
from leaderboard.families import compared_families
from leaderboard.groups import group_records
from leaderboard.markdown.families import (
    families_section,
    family_sentences,
    one_l0_paragraphs,
)
from leaderboard.markdown.layout import Page
from tests.leaderboard.tables import table
from tests.records import make_grid

ARMS = ["raw", "centered", "whitened"]


@pytest.fixture
def records() -> list[Record]:
    """topk on two models; relu, whose path is dense, on one of them; each dead as made up."""
    topk = make_grid(models=["tiny-a", "tiny-b"], layers=[0, 1], arms=ARMS)
    relu = make_grid(
        models=["tiny-a"],
        layers=[0, 1],
        arms=ARMS,
        protocol={"family": "relu", "l1": 5.0, "warmup": 0.05, "path": "dense"},
    )
    return [*topk, *(ended(each, 0 if each.spec.arm == "centered" else 40) for each in relu)]


def ended(record: Record, dead: int) -> Record:
    """The record with so many features dead at the end, by ReLU."""
    assert record.result is not None
    assert record.result.death_end is not None
    end = record.result.death_end.model_copy(update={"dead_relu": dead, "dead_topk": 0})
    return record.model_copy(update={"result": record.result.model_copy(update={"death_end": end})})


def revived(record: Record, durable: int, born: int) -> Record:
    """The record with so many features alive for good, of so many born dead."""
    assert record.result is not None
    training = record.result.training
    assert training is not None
    assert training.revival is not None
    counts = {"born": born, "durable": durable, "relapsed": born - durable, "never": 0}
    revival = training.revival.model_copy(update=counts)
    result = record.result.model_copy(
        update={"training": training.model_copy(update={"revival": revival})}
    )
    return record.model_copy(update={"result": result})


def test_only_layers_that_all_families_have_are_compared(records: list[Record]) -> None:
    (found,) = compared_families(group_records(records))
    assert found.families == ["topk", "relu"]
    assert found.models == ("tiny-a",)
    assert found.layers == 2
    assert [each.arm for each in found.arms] == [*ARMS, *ARMS]
    raw = found.arms[0]
    expected = [
        END_RELU.value(each)
        for each in records
        if each.spec.model == "tiny-a"
        and each.spec.arm == "raw"
        and "family" not in each.spec.protocol
    ]
    assert raw.end_relu == pytest.approx(fmean(each for each in expected if each is not None))


def test_what_revives_is_a_share_of_all_that_were_born_dead(records: list[Record]) -> None:
    """A layer on which one feature is born dead counts as one feature."""
    counts = {0: (1, 1), 1: (2, 99)}  # alive for good, of so many
    records = [
        revived(each, *counts[each.spec.layer]) if each.spec.arm == "raw" else each
        for each in records
    ]
    (found,) = compared_families(group_records(records))
    assert found.arms[0].durable == pytest.approx(3 / 100)


def test_it_is_told_which_family_is_cured_by_what(records: list[Record]) -> None:
    (found,) = compared_families(group_records(records))
    topk, relu = family_sentences(found)
    assert topk.startswith("**topk**: raw, ")
    assert relu.endswith("less than 1.0 % dead on every layer: *centered*.")
    page = Page("Cures")
    page.add(*families_section(page, [found]))
    shown = table(page.render(), "Families: which dies of what, cured by what")
    assert shown.row(Family="relu", Arm="centered")["Cured"] == "2"
    assert shown.row(Family="relu", Arm="centered")["End by ReLU %"] == "0"


def test_other_sizes_and_one_family_are_no_comparison(records: list[Record]) -> None:
    other = make_grid(
        models=["tiny-b"],
        layers=[0],
        arms=ARMS,
        protocol={"family": "batchtopk", "threshold_rate": 0.01, "steps": 7},
    )
    (found,) = compared_families(group_records([*records, *other]))
    assert found.families == ["topk", "relu"]
    topk = [each for each in records if "family" not in each.spec.protocol]
    assert list(compared_families(group_records(topk))) == []


def test_a_family_that_was_led_to_an_l0_is_told_apart(records: list[Record]) -> None:
    led = make_grid(
        models=["tiny-a"],
        layers=[0, 1],
        arms=ARMS,
        protocol={"family": "relu", "l1": 5.0, "warmup": 0.05, "path": "dense", "target_l0": 8.0},
    )
    (found,) = compared_families(group_records([*records, *led]))
    assert found.families == ["topk", "relu", "relu at L0 8"]
    assert found.at_one_l0() == {}


def test_families_are_compared_at_one_l0(records: list[Record]) -> None:
    k = records[0].spec.protocol["k"]
    own = {"family": "relu", "l1": 5.0, "warmup": 0.05, "path": "dense", "target_l0": float(k)}
    led = make_grid(models=["tiny-a"], layers=[0, 1], arms=ARMS, protocol=own)
    topk = [each for each in records if "family" not in each.spec.protocol]
    near = [with_l0(each, 0.95 * k) for each in topk]
    (found,) = compared_families(group_records([*near, *(with_l0(each, 1.02 * k) for each in led)]))
    assert {each.aimed_l0 for each in found.arms} == {k}
    head, lines = one_l0_paragraphs(found)
    assert f"of {k}, and the others" in head
    raw = lines.splitlines()[0]
    assert raw.startswith("- *raw*: ")
    assert f"relu at L0 {k} " in raw
    assert "off it" not in lines
    (far,) = compared_families(group_records([*near, *(with_l0(each, 2 * k) for each in led)]))
    assert f"; off it: relu at L0 {k} " in one_l0_paragraphs(far)[1]
    (free,) = compared_families(group_records(records))
    assert one_l0_paragraphs(free) == []


def with_l0(record: Record, l0: float) -> Record:
    """The record with so many codes per token."""
    assert record.result is not None
    assert record.result.training is not None
    training = record.result.training.model_copy(update={"l0": l0})
    result = record.result.model_copy(update={"training": training})
    return record.model_copy(update={"result": result})
