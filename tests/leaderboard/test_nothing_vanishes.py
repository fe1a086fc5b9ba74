"""Whatever was measured, failed, limited or left out: every model with a record is everywhere."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from bench.records.schema import Record
from leaderboard import render, summary
from leaderboard.columns.death import DUE_TO_NEITHER
from leaderboard.export import flat_cells
from leaderboard.figures.pictures import pictures
from leaderboard.groups import RAW, Group, Setting, group_records
from leaderboard.page_names import domain_page, model_page
from leaderboard.web.page import page_data
from tests.leaderboard.tables import Table, label, tables
from tests.records import make_record, make_spec
from zoo.cards import DOMAINS
from zoo.errors import BadCorpus, BadWeights

SEEDS = range(8)
RANKINGS = {"By gamma", "By death at initialisation", "By what centering saves"}


def random_records(seed: int) -> list[Record]:
    """Models of all domains under up to three settings, each with some cells of a random grid."""
    draw = random.Random(seed)
    return [
        record
        for number in range(draw.randrange(3, 8))
        for setting in draw.sample(SETTINGS, draw.randrange(1, len(SETTINGS) + 1))
        for record in _random_cells(draw, f"model-{number}", setting)
    ]


SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"limit": 200},
    {"protocol": {"steps": 0}},
    {"protocol": {"lr": 0.5}},
)


def _random_cells(draw: random.Random, model: str, setting: dict[str, Any]) -> Iterator[Record]:
    domain = DOMAINS[int(model.removeprefix("model-")) % len(DOMAINS)]
    arms = draw.sample(["raw", "raw+auxk", "centered", "whitened"], draw.randrange(1, 5))
    layers = draw.sample(range(4), draw.randrange(1, 4))
    places = [(layer, arm, seed) for layer in layers for arm in arms for seed in (0, 1)]
    failing = draw.choice([0.0, 0.0, 0.3, 1.0])
    for layer, arm, seed in draw.sample(places, draw.randrange(1, len(places) + 1)):
        spec = make_spec(model=model, domain=domain, layer=layer, arm=arm, seed=seed, **setting)
        error = draw.choice([BadCorpus("empty"), BadWeights("truncated", "Fetch them again.")])
        yield make_record(spec, error if draw.random() < failing else None)


@pytest.fixture(params=SEEDS)
def records(request: pytest.FixtureRequest) -> list[Record]:
    return random_records(request.param)


@pytest.fixture
def groups(records: list[Record]) -> list[Group]:
    return group_records(records)


def test_the_random_records_are_of_every_kind() -> None:
    every = [record for seed in SEEDS for record in random_records(seed)]
    assert {record.status for record in every} == {"ok", "failed"}
    assert {record.spec.domain for record in every} == set(DOMAINS)
    groups = [group for seed in SEEDS for group in group_records(random_records(seed))]
    assert any(group.missing for group in groups)
    assert any(len(group.failed) == len(group.records) for group in groups)
    assert any("raw" not in group.arms for group in groups)
    assert any(group.setting.limited for group in groups)


def test_every_model_has_a_row_in_every_ranking(records: list[Record], groups: list[Group]) -> None:
    shown = tables(render(records)["README.md"])
    for heading in RANKINGS:
        found = [each for each in shown if each.heading == heading]
        assert _models(found) == sorted(group.label for group in groups), heading


def test_every_model_and_layer_has_a_row_on_its_domain_s_page(
    records: list[Record], groups: list[Group]
) -> None:
    pages = render(records)
    for domain in {group.domain for group in groups}:
        members = [group for group in groups if group.domain == domain]
        shown = tables(pages[domain_page(domain)])
        for heading in {each.heading for each in shown}:
            found = [each for each in shown if each.heading == heading]
            shown_for = [each for each in members if each.setting in _settings(members, heading)]
            per_layer = "Layer" in found[0].headers
            expected = [g.label for g in shown_for for _ in (g.layers if per_layer else [0])]
            assert _models(found) == sorted(expected), heading


def test_every_cell_has_a_row_on_its_model_s_page(
    records: list[Record], groups: list[Group]
) -> None:
    pages = render(records)
    for group in groups:
        page = pages[f"models/{model_page(group.model)}"]
        for record in group.records:
            assert f"{record.hash}.json" in page
    cells = [
        row
        for name, text in pages.items()
        if name.startswith("models/")
        for each in tables(text)
        if each.heading == "Cells"
        for row in each.rows
    ]
    assert len(cells) == sum(len(group.cells) for group in groups)
    assert sum("missing" in row for row in cells) == sum(len(group.missing) for group in groups)


def test_every_model_and_cell_is_on_the_page(groups: list[Group]) -> None:
    data = page_data(groups)
    assert [each["label"] for each in data["models"]] == [group.label for group in groups]
    assert len(data["cells"]) == sum(len(group.cells) for group in groups)
    linked = {cell[5].rpartition("/")[2] for cell in data["cells"] if cell[5]}
    assert linked == {f"{record.hash}.json" for group in groups for record in group.records}


def test_every_measured_cell_is_in_the_figures(groups: list[Group]) -> None:
    shown = pictures(groups)
    measured = [group for group in groups if len(group.failed) < len(group.records)]
    profiles = {(each.setting, each.subject) for each in shown if each.kind == "profile"}
    assert profiles == {(group.setting, group.key) for group in measured}
    points = [p for each in shown if each.kind == "gamma_death" for p in each.data["points"]]
    assert len(points) == sum(len(g.records) - len(g.failed) for g in groups)
    heat = [name for each in shown if each.kind == "heat" for name in each.data["models"]]
    assert set(heat) >= {group.label for group in measured}


def test_every_record_is_in_the_export_and_every_model_in_the_summary(
    records: list[Record], groups: list[Group]
) -> None:
    assert {row["hash"] for row in flat_cells(records)} == {record.hash for record in records}
    rows = [
        line.split()[0]
        for line in summary(records, told=False).splitlines()
        if line[:6] == "model-"
    ]
    assert sorted(rows) == sorted(group.label for group in groups)


def test_any_order_gives_the_same(records: list[Record]) -> None:
    turned = records[::-1]
    assert render(turned) == render(records)
    assert flat_cells(turned) == flat_cells(records)
    assert summary(turned) == summary(records)
    expected = [each.hash for each in pictures(group_records(records))]
    assert [each.hash for each in pictures(group_records(turned))] == expected


def _settings(groups: list[Group], heading: str) -> set[Setting]:
    """The settings whose section has a table: not where no model of it could have a number."""
    if "training" in heading:
        return {group.setting for group in groups if group.spec.protocol["steps"]}
    if "Causes" in heading:
        with_raw = {group.setting for group in groups if RAW in group.arms}
        return {
            group.setting
            for group in groups
            for record in group.records
            if group.setting not in with_raw and DUE_TO_NEITHER.value(record) is not None
        }
    return {group.setting for group in groups}


def _models(found: list[Table]) -> list[str]:
    """The models that have a row in some tables, as often as they have one."""
    return sorted(label(cell) for each in found for cell in each.column("Model"))
