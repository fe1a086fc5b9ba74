"""Remedies side by side: what is enough, what it costs, and that the page says what records say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.plan.memory import training_memory
from bench.records.prices import Price, Prices, write_prices
from bench.records.schema import BiasSteps, Record
from bench.sae.arms import parse_arm
from bench.sae.recipe import Recipe
from leaderboard import write_boards
from leaderboard.cures import cures, needs, regimes
from leaderboard.figures.drawing import draw
from leaderboard.figures.pictures import pictures
from leaderboard.groups import group_records
from leaderboard.markdown.cures import cures_page
from leaderboard.web.page import page_data
from tests.leaderboard.tables import table
from tests.records import make_grid, make_record, make_result, make_spec, write_records

# By arm: dead at the end of 1,000 features, the error, the time of a step.
LEFT: dict[str, tuple[int, float, float]] = {
    "raw": (500, 0.40, 1.0),
    "raw+auxk": (480, 0.38, 1.4),
    "centered": (5, 0.2015, 1.0),
    "raw+b-mean": (10, 0.2019, 1.02),
    "whitened": (0, 0.30, 1.0),
    "centered+subspace": (0, 0.20, 1.0),
}


def made(arm: str, *, model: str = "tiny-a", seed: int = 0, **changes: Any) -> Record:
    """A record of an arm with the numbers of `LEFT`, a little more dead in each further seed."""
    dead, fvu, seconds = LEFT[arm]
    spec = make_spec(model=model, layer=0, arm=arm, seed=seed, protocol={"n": 1000})
    result = make_result(spec)
    assert result.training is not None
    dead = changes.get("dead", dead + 2 * seed if dead else 0)
    training = result.training.model_copy(
        update={"fvu": 9.0, "fvu_ordinary": changes.get("fvu", fvu)}
    )
    end = result.death_end.model_copy(update={"dead_relu": dead, "dead_topk": 0})
    outcome = result.model_copy(update={"training": training, "death_end": end})
    record = make_record(spec, outcome)
    return record.model_copy(update={"step_seconds": seconds})


@pytest.fixture
def records() -> list[Record]:
    return [made(arm, seed=seed) for arm in LEFT for seed in (0, 1)]


def test_remedies_are_ranked_by_death_and_then_by_error(records: list[Record]) -> None:
    found = cures(group_records(records))
    assert [each.arm for each in found] == [
        "centered+subspace", "whitened", "centered", "raw+b-mean", "raw+auxk", "raw",
    ]  # fmt: skip
    centered = found[2]
    assert centered.end.mean == pytest.approx(0.006)  # 5 and 7 of 1,000
    assert (centered.end.low, centered.end.high) == (0.005, 0.007)
    assert centered.fvu is not None
    assert centered.fvu.mean == pytest.approx(0.2015 / 0.20)  # on ordinary tokens
    times = {each.arm: each.time for each in found}
    assert times["raw"] == 1.0
    assert times["raw+auxk"] == pytest.approx(1.4)


def test_time_is_of_steps_measured_by_themselves_where_there_are_any(
    records: list[Record], tmp_path: Path
) -> None:
    spec = records[0].spec
    seconds = {"raw": 2.0, "raw+auxk": 5.0}
    prices = Prices(
        protocol=spec.protocol,
        provenance=records[0].provenance,
        steps=tuple(
            Price(model=spec.model, layer=spec.layer, arm=arm, seconds=each)
            for arm, each in seconds.items()
        ),
    )
    write_records(tmp_path, records)
    write_prices(tmp_path, prices)
    groups, bare = group_records(records, prices), group_records(records)
    times = {each.arm: each.time for each in cures(groups)}
    assert times["raw+auxk"] == 2.5
    # Not measured by itself: of the run.
    assert times["raw+b-mean"] == pytest.approx(1.02)
    page = cures_page(groups)
    assert page is not None
    assert "each SAE stepping by itself" in page
    assert "each SAE stepping by itself" not in (cures_page(bare) or "")
    write_boards(tmp_path, figures=False)
    written = (tmp_path / "leaderboards" / "cures.md").read_text(encoding="utf-8")
    row = table(written, "Remedies, by what is dead at the end").row(Remedy="raw+auxk")
    assert row["Time"] == "2.50"
    # The price ends the columns of models: of steps measured by themselves alone, and of no raw.
    written = (tmp_path / "leaderboards" / f"{groups[0].domain}.md").read_text(encoding="utf-8")
    after = table(written, "Models after training")
    price = {head: after.rows[0][place] for place, head in enumerate(after.headers)}
    assert price["Step cost raw+auxk"] == "2.50"
    assert price["Step cost raw+b-mean"] == "\N{EM DASH}"
    assert "Step cost raw" not in price
    assert float(price["Memory cost raw+auxk"]) > 1 == float(price["Memory cost centered"])
    (model,) = page_data(groups)["models"]
    titles = [column["title"] for column in page_data(groups)["modelColumns"]]
    assert model["values"][titles.index("Step cost raw+auxk")] == 2.5
    assert not any("Step cost" in each["title"] for each in page_data(bare)["modelColumns"])


def test_memory_is_what_the_plan_counts_over_raws(records: list[Record]) -> None:
    found = {each.arm: each.memory for each in cures(group_records(records))}
    spec = records[0].spec
    recipe = Recipe(**{k: v for k, v in spec.protocol.items() if k in Recipe.model_fields})
    width = spec.card["tap"]["width"]
    raw, auxk = (training_memory(recipe, width, parse_arm(arm)) for arm in ("raw", "raw+auxk"))
    assert found["raw"] == found["centered"] == 1.0
    assert found["raw+auxk"] == auxk / raw > 1


def test_the_biass_speed_is_the_median_of_the_layers_where_it_learned_half() -> None:
    halves = {"tiny-a": (100, 300), "tiny-b": (500, 700), "tiny-c": (50, None)}
    groups = group_records(
        [
            _with_half(made(arm, model=model, seed=seed), half)
            for model, steps in halves.items()
            for seed, half in enumerate(steps)
            for arm in LEFT
        ]
    )
    found = {each.arm: each for each in cures(groups)}
    assert found["raw"].half == (400, 2, 3)
    assert found["raw"].bias is not None
    assert found["centered"].half is found["centered"].bias is None
    page = cures_page(groups)
    assert page is not None
    rows = table(page, "Remedies, by what is dead at the end")
    assert rows.row(Remedy="raw")["Bias 50 %"] == "400, on 2 of 3"
    assert rows.row(Remedy="whitened")["Bias 50 %"] == "—"


def _with_half(record: Record, half: int | None) -> Record:
    assert record.result is not None
    assert record.result.training is not None
    steps = BiasSteps(half=half, most=None, nearly_all=None)
    training = record.result.training.model_copy(update={"bias_steps": steps})
    return record.model_copy(
        update={"result": record.result.model_copy(update={"training": training})}
    )


def test_enough_is_few_dead_at_nearly_the_best_error(records: list[Record]) -> None:
    enough = {each.arm: each.enough for each in cures(group_records(records))}
    # whitened leaves none dead, and half as much more unexplained; b-mean leaves 1.1 % dead.
    assert enough == {
        "raw": 0, "raw+auxk": 0, "whitened": 0, "centered": 1, "raw+b-mean": 0,
        "centered+subspace": 1,
    }  # fmt: skip


def test_the_cheapest_that_is_enough_needs_least(records: list[Record]) -> None:
    (regime,) = regimes(group_records(records))
    # As fast as centered+subspace, which needs a covariance too.
    assert regime.cheapest == "centered"
    assert regime.raw_dead == pytest.approx(0.501)


def test_where_nothing_is_enough_it_is_said(records: list[Record]) -> None:
    worse = [made(arm, model="tiny-b", dead=300) for arm in LEFT]
    groups = group_records([*records, *worse])
    assert [each.cheapest for each in regimes(groups) if each.group.model == "tiny-b"] == [None]
    page = cures_page(groups)
    assert page is not None
    assert "Enough on 1 of 2 layers: *centered+subspace*, *centered*." in page
    row = next(line for line in page.splitlines() if line.startswith("| centered "))
    assert "tiny-b" in row
    assert "**none**" in page


def test_the_page_says_what_the_records_say(records: list[Record]) -> None:
    page = cures_page(group_records(records))
    assert page is not None
    found = table(page, "Remedies, by what is dead at the end")
    row = found.row(Remedy="centered")
    assert row["Dead %"] == "0.6 (0.5–0.7)"
    assert row["FVU / best"] == "1.01"
    assert row["Needs"] == "geometric median of a sample"
    assert row["Enough"] == "1"
    assert "Enough on every layer" in page
    assert "Active Subspace Init" in page


def test_few_arms_are_no_comparison_of_remedies() -> None:
    assert cures_page(group_records(make_grid())) is None


def test_a_remedy_that_a_layer_lacks_is_left_out(records: list[Record]) -> None:
    other = [made(arm, model="tiny-b") for arm in LEFT if arm != "whitened"]
    other.append(made("raw", model="tiny-b", seed=1))
    six = [
        *other,
        *make_grid(models=["tiny-b"], layers=[0], arms=["raw+ghost"], protocol={"n": 1000}),
    ]
    arms = [each.arm for each in cures(group_records([*records, *six]))]
    assert "whitened" not in arms
    assert "raw+ghost" not in arms
    assert "centered" in arms


def test_layers_that_share_no_seed_or_no_remedy_are_not_compared(tmp_path: Path) -> None:
    """A part of a grid, as a run leaves that was stopped: boards are written all the same."""
    pytest.importorskip("matplotlib")
    seeds = [made(arm, model=f"tiny-{seed}", seed=seed) for arm in LEFT for seed in (0, 1)]
    remedies = [
        *make_grid(layers=[0], arms=["raw", "raw+b-mean", "raw+data"]),
        *make_grid(layers=[1], arms=["raw+ghost", "raw+resample", "raw+b-median"]),
    ]
    for name, part in {"seeds": seeds, "remedies": remedies}.items():
        write_records(tmp_path / name, part)
        write_boards(tmp_path / name, figures=False)
        page = (tmp_path / name / "leaderboards" / "cures.md").read_text(encoding="utf-8")
        assert "No remedy was trained on every layer here" in page
        for picture in pictures(group_records(part)):
            if picture.kind in ("cures", "when"):  # those of remedies and of times of revival
                draw(picture)


@pytest.mark.parametrize(
    ("arm", "expected"),
    [
        ("raw", "nothing"),
        ("raw+auxk+b-fast", "nothing"),
        ("whitened", "mean, covariance of a sample"),
        ("centered+subspace+mask", "geometric median, covariance, median norm of a sample"),
        ("of tomorrow", "nothing"),
    ],
)
def test_needs_are_those_of_all_choices(arm: str, expected: str) -> None:
    assert needs(arm) == expected


def test_the_boards_hold_the_page_its_link_and_its_figure(
    records: list[Record], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    write_records(tmp_path, records)
    write_boards(tmp_path)
    boards = tmp_path / "leaderboards"
    assert "(cures.md)" in (boards / "README.md").read_text(encoding="utf-8")
    page = (boards / "cures.md").read_text(encoding="utf-8")
    assert "Fewest dead: " in page
    assert len(list((boards / "figures").glob("*-cures.svg"))) == 1
