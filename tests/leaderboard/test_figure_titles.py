"""Titles of figures: each sentence is true of the records that the figure draws."""

from __future__ import annotations

import re
from statistics import fmean, median

import pytest

from bench.intervals import binomial_interval
from bench.records.schema import Record
from leaderboard.figures import titles
from leaderboard.figures.pictures import Picture, pictures
from leaderboard.figures.why import why_title
from leaderboard.groups import group_records
from tests.records import make_grid

ARMS = ["raw", "centered", "whitened", "raw+auxk", "raw+b-mean", "raw+subspace"]


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return make_grid(models={"tiny-a": "language", "tiny-b": "vision"}, layers=[1, 2], arms=ARMS)


@pytest.fixture(scope="module")
def drawn(records: list[Record]) -> dict[str, Picture]:
    return {each.name.partition("-")[2]: each for each in pictures(group_records(records))}


def of_kind(drawn: dict[str, Picture], kind: str) -> Picture:
    return next(each for each in drawn.values() if each.kind == kind)


def shares(title: str) -> dict[str, float]:
    """By arm, what `12.3 % raw` says."""
    return {arm: float(share) for share, arm in re.findall(r"<?([\d.]+) % (raw|centered)", title)}


def mean_of(records: list[Record], arm: str, born: bool) -> float:
    read = []
    for record in records:
        if record.spec.arm == arm and record.result is not None:
            death = record.result.death_init if born else record.result.death_end
            assert death is not None
            read.append(100 * death.dead / record.spec.protocol["n"])
    return fmean(read)


@pytest.mark.parametrize(("kind", "born"), [("gamma_death", True), ("death_training", False)])
def test_deaths_are_the_means_of_the_records(
    drawn: dict[str, Picture], records: list[Record], kind: str, born: bool
) -> None:
    found = shares(of_kind(drawn, kind).title)
    assert found.keys() == {"raw", "centered"}
    for arm, share in found.items():
        assert share == pytest.approx(mean_of(records, arm, born), abs=0.06)


def test_the_bias_is_the_median_raw_cells(drawn: dict[str, Picture], records: list[Record]) -> None:
    ends = [
        100 * record.result.training.checkpoints[-1].bias_progress
        for record in records
        if record.spec.arm == "raw" and record.result is not None and record.result.training
    ]
    (share,) = re.findall(r"([\d.]+) %", of_kind(drawn, "bias").title)
    assert float(share) == pytest.approx(median(ends), abs=0.06)


def test_fates_are_pooled_over_domains_by_their_features() -> None:
    def curve(arm: str, features: int, durable: float) -> dict[str, object]:
        return {"arm": arm, "features": features, "durable": [0.0, durable]}

    curves = [curve("raw", 300, 0.1), curve("raw", 100, 0.5), curve("centered", 6, 1 / 3)]
    title = titles.fates_title({"path": "TopK", "curves": curves})
    assert title.endswith(
        "born dead by TopK, alive for good at the end: 20.0 % raw, 2 of 6 centered"
    )


def test_few_features_are_counted_and_have_no_share() -> None:
    few, enough = titles.FEWEST_FOR_SHARE - 1, titles.FEWEST_FOR_SHARE
    assert titles.share_or_count(33, few) == "33 of 99"
    assert titles.share_or_count(33, enough) == "33.0 %"
    share = binomial_interval(enough // 2, enough)
    assert share.low is not None
    assert share.high is not None
    assert (share.high - share.low) / 2 == pytest.approx(0.1, abs=0.005)
    row = {"born": 0.001, "mean": 0.001, "features": few}
    assert why_title({"rows": [row]}) == "Of all features, 99 are born dead"
    assert "100 % are dead because of the mean" in why_title({"rows": [row | {"features": enough}]})
    curve = {"arm": "raw", "path": "relu", "features": 6, "median": [1.0, 0.0]}
    title = titles.revival_title({"curves": [curve], "steps": [0, 9]})
    assert title == "Raw, only 6 features of all cells are born dead by ReLU"


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        (
            (0.9, 0.6),
            "Raw, less than half of those born dead by ReLU are alive for good after 9 steps",
        ),
        (
            (0.4, 0.6),
            "Raw, at least half of those born dead by ReLU are alive for good after 9 steps "
            "in 1 of 2 domains",
        ),
        (
            (0.4, 0.5),
            "Raw, at least half of those born dead by ReLU are alive for good after 9 steps",
        ),
        (
            (0.3,),
            "Raw, 70.0 % of those born dead by ReLU are alive for good after 9 steps in the median "
            "cell",
        ),
    ],
)
def test_revival_counts_the_domains_that_reach_a_half(ends: tuple[float, ...], said: str) -> None:
    curve = {"arm": "raw", "path": "relu", "features": 500}
    curves = [curve | {"median": [1.0, end]} for end in ends]
    if len(ends) > 1:
        curves.append(curve | {"features": 6, "median": [1.0, 0.0]})  # too few to be counted
    curves.append(curve | {"arm": "centered", "median": [1.0, 0.0]})
    title = titles.revival_title({"curves": curves, "steps": [0, 9]})
    assert title == said


def test_the_worst_model_is_named() -> None:
    panels = {"gamma": [[[0, 1.0]], [[0, 3.0]]], "dead": [[[0, 0.1], [1, 0.3]], [[0, 0.25]]]}
    data = {"models": ["a", "b"], "panels": panels | {"cured": [[[0, 0.01]], [[0, 0.02]]]}}
    assert titles.heat_title(data) == "Most are born dead in b: 25.0 % raw, 2.0 % centered"
    data["panels"] = panels | {"dead": [[], []], "cured": [[], []]}
    assert titles.heat_title(data) == "Gamma from 1.00 to 3.00, mean over layers"


def test_remedies_are_counted_and_ranked() -> None:
    points = [{"remedy": each} for each in ("b", "a", "b", None)]
    assert titles.when_title({"points": points}) == (
        "A remedy is enough on 3 of 4 layers; the cheapest on 2: b"
    )
    assert titles.when_title({"points": points[-1:]}) == "No remedy is enough on any of 1 layer"
    remedies = [
        {"arm": "raw", "dead": 0.7, "fvu": 2.0},
        {"arm": "x", "dead": 0.01, "fvu": 3.0},
        {"arm": "y", "dead": 0.2, "fvu": 1.0},
    ]
    assert titles.cures_title({"points": remedies}) == (
        "Fewest dead: x, 1.0 % dead; least error: y, 20.0 % dead; raw, 70.0 % dead"
    )
    assert titles.cures_title({"points": remedies[:1]}) == "Fewest dead: raw, 70.0 % dead"


def test_every_title_of_a_kind_says_a_number(drawn: dict[str, Picture]) -> None:
    for picture in drawn.values():
        assert re.search(r"\d|No ", picture.title), picture.title


def test_of_many_arms_lines_are_drawn_of_raw_centered_and_the_most_alive() -> None:
    many = [*ARMS, "raw+data", "raw+ghost", "mean-none"]
    records = make_grid(layers=[1, 2], arms=many)
    found = next(each for each in pictures(group_records(records)) if each.kind == "death_training")
    ends = {arm: mean_of(records, arm, born=False) for arm in many}
    others = sorted((arm for arm in many if arm not in ("raw", "centered")), key=ends.__getitem__)
    assert {line["arm"] for line in found.data["lines"]} == {"raw", "centered", *others[:5]}
    assert set(found.data["arms"]) == {"raw", "centered", *others[:5]}
    assert found.caption.startswith(
        "Of 9 arms raw and centered and the 5 that end with fewest dead."
    )
