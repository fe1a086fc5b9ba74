"""The numbers' intervals: intervals over features, over seeds and of means over layers."""

from __future__ import annotations

import pytest

from bench.intervals import Estimate, binomial_interval, difference, paired_bootstrap
from bench.records.schema import Death, Record
from leaderboard.columns.death import DUE_TO_MEAN, DUE_TO_NEITHER, DUE_TO_SPECTRUM, INIT
from leaderboard.columns.revival import BORN_DEAD
from leaderboard.groups import group_records
from leaderboard.metric_intervals import mean_interval, saved_interval
from tests.leaderboard.tables import render, table
from tests.records import make_grid, make_record, make_result, make_spec

N = 768
CAUSES = "Causes of death at initialisation"


def cell(dead: int, **spec: object) -> Record:
    """A record of whose features so many are dead at initialisation."""
    made = make_spec(**spec)
    death = Death(dead_relu=0, dead_topk=dead)
    return make_record(made, make_result(made).model_copy(update={"death_init": death}))


def ends(estimate: Estimate | None) -> tuple[float | None, float | None]:
    assert estimate is not None
    return estimate.low, estimate.high


def test_a_share_of_several_seeds_is_over_the_features_of_all() -> None:
    records = [cell(dead, seed=seed) for seed, dead in enumerate((70, 80, 90))]
    found = INIT.interval(records) if INIT.interval else None
    assert found == binomial_interval(240, 3 * N)


def test_a_share_is_written_with_the_farther_end() -> None:
    page = render([cell(0, layer=0), cell(77, layer=1)])["models/tiny-a.md"]
    column = table(page, "Layers").column("Born dead % raw")
    high = binomial_interval(0, N).high
    assert high is not None
    assert column[0] == f"0 ±{100 * high:.1f}"
    share = binomial_interval(77, N)
    assert share.value is not None
    assert share.high is not None
    assert column[1] == f"10.0 ±{100 * (share.high - share.value):.1f}"


def test_a_share_of_nothing_has_no_interval() -> None:
    record = make_record()
    assert record.result is not None
    assert record.result.training is not None
    none = {"born": 0, "fired": 0}
    first = record.result.training.first_firing.model_copy(update=none)
    training = record.result.training.model_copy(update={"first_firing": first})
    empty = make_record(record.spec, record.result.model_copy(update={"training": training}))
    assert BORN_DEAD.never.value(empty) is None
    assert BORN_DEAD.never.interval is not None
    assert BORN_DEAD.never.interval([empty]) is None


def test_of_layers_that_depend_on_each_other_the_mean_is_no_surer_than_each() -> None:
    one = binomial_interval(100, N)
    same = mean_interval([one, one, one])
    assert ends(same) == pytest.approx(ends(one))
    assert mean_interval([]) is None
    assert mean_interval([one, None]) is None


def pairs(*layers: list[tuple[int, int]]) -> list[list[tuple[Record, Record]]]:
    """For each layer and seed the dead of the raw and of the centered arm."""
    return [
        [
            (cell(raw, layer=layer, seed=seed), cell(cured, layer=layer, seed=seed, arm="centered"))
            for seed, (raw, cured) in enumerate(seeds)
        ]
        for layer, seeds in enumerate(layers)
    ]


def test_what_one_seed_saves_has_an_interval_over_features() -> None:
    found = saved_interval(pairs([(300, 30)], [(100, 0)]), INIT.counted)
    one, other = (
        difference(binomial_interval(a, N), binomial_interval(b, N))
        for a, b in ((300, 30), (100, 0))
    )
    assert ends(found) == pytest.approx(
        ((one.low + other.low) / 2, (one.high + other.high) / 2)  # type: ignore[operator]
    )


def test_what_several_seeds_save_has_an_interval_over_seeds() -> None:
    found = saved_interval(
        pairs([(300, 30), (310, 20), (290, 25)], [(100, 0), (90, 1), (80, 2)]), INIT.counted
    )
    raw = [(300 + 100) / 2 / N, (310 + 90) / 2 / N, (290 + 80) / 2 / N]
    cured = [30 / 2 / N, 21 / 2 / N, 27 / 2 / N]
    assert ends(found) == pytest.approx(ends(paired_bootstrap(raw, cured)))


def test_layers_with_different_seeds_are_not_paired() -> None:
    layers = pairs([(300, 30), (310, 20)], [(100, 0)])
    assert ends(saved_interval(layers, INIT.counted))[0] is not None
    assert saved_interval([], INIT.counted) is None


def test_saved_is_shown_with_its_interval() -> None:
    records = [*sum(pairs([(300, 30)])[0], ())]
    row = table(render(records)["README.md"], "By what centering saves").row(Model="tiny-a")
    expected = difference(binomial_interval(300, N), binomial_interval(30, N))
    assert expected.value is not None
    assert expected.low is not None
    assert row["Saved at birth"].startswith(
        f"{100 * expected.value:.1f} ±{100 * (expected.value - expected.low):.1f}"
    )


# ----------------------------------------------------------------------------------- attribution


def test_death_by_cause_is_that_of_the_record_once_for_all_arms() -> None:
    records = make_grid(layers=[0], arms=["raw", "centered", "raw+auxk"])
    assert records[0].result is not None
    attribution = records[0].result.attribution
    assert attribution is not None
    rates = [binomial_interval(dead, N) for dead in attribution.values()]
    expected = {
        "Due to mean %": difference(rates[0], rates[1]),
        "Due to spectrum %": difference(rates[1], rates[2]),
        "Due to neither %": rates[2],
    }
    pages = render(records)
    for page, heading in (
        ("models/tiny-a.md", "Layers"),
        ("language.md", "Models at initialisation"),
    ):
        assert CAUSES not in pages[page]  # as they would stand there twice
        (row,) = table(pages[page], heading).rows
        cells = dict(zip(table(pages[page], heading).headers, row, strict=True))
        for column, estimate in expected.items():
            assert estimate.value is not None
            assert estimate.low is not None
            assert estimate.high is not None
            reach = max(estimate.value - estimate.low, estimate.high - estimate.value)
            assert cells[column] == f"{100 * estimate.value:.1f} ±{100 * reach:.1f}"


def test_the_parts_add_up_to_the_raw_arm_s_death() -> None:
    for record in make_grid():
        assert record.result is not None
        attribution = record.result.attribution
        assert attribution is not None
        parts = [metric.value(record) for metric in (DUE_TO_MEAN, DUE_TO_SPECTRUM, DUE_TO_NEITHER)]
        assert sum(part or 0 for part in parts) == pytest.approx(attribution["raw"] / N)


def test_over_seeds_the_parts_are_bootstrapped() -> None:
    records = make_grid(layers=[0], seeds=[0, 1, 2], arms=["raw"])
    attribution = [r.result.attribution for r in records if r.result and r.result.attribution]
    assert DUE_TO_MEAN.interval is not None
    assert DUE_TO_MEAN.interval(records) == paired_bootstrap(
        [each["raw"] / N for each in attribution], [each["centered"] / N for each in attribution]
    )


def test_records_of_before_have_no_parts_and_no_table() -> None:
    records = []
    for record in make_grid(layers=[0], arms=["centered"]):
        assert record.result is not None
        before = record.result.model_copy(update={"attribution": None})
        records.append(make_record(record.spec, before))
    assert CAUSES not in render(records)["models/tiny-a.md"]
    assert CAUSES not in render(records)["language.md"]
    mixed = render([*records, *make_grid(layers=[1], arms=["centered"])])
    for page in (mixed["models/tiny-a.md"], mixed["language.md"]):
        assert CAUSES in page
    found = table(mixed["models/tiny-a.md"], CAUSES)
    assert found.row(Layer="0")["Due to mean %"] == "\N{EM DASH}"
    assert found.row(Layer="1")["Raw %"] != "\N{EM DASH}"


def test_a_record_without_its_parts_is_no_pair_for_one_with_them() -> None:
    made = make_spec(seed=1)
    before = make_record(made, make_result(made).model_copy(update={"attribution": None}))
    after = make_record(
        make_spec(seed=0),
        make_result(make_spec(seed=0)).model_copy(
            update={"attribution": {"raw": 384, "centered": 96, "whitened": 0}}
        ),
    )
    (group,) = group_records([before, after])
    page = render([before, after])["models/tiny-a.md"]
    assert group.seeds == [0, 1]
    assert table(page, "Layers").row(Layer="0")["Due to mean %"].startswith("37.5 ±")
