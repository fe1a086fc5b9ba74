"""Gamma against death on the overview, beside the published numbers."""

from __future__ import annotations

from scipy.stats import spearmanr

from bench.records.schema import Record
from tests.leaderboard.tables import render, table
from tests.records import make_grid

HEADING = "Gamma against death"
MODELS = {f"tiny-{letter}": ("language", "vision")[i % 2] for i, letter in enumerate("abcdef")}


def expected(records: list[Record], domain: str | None = None) -> float:
    raw = [
        (record.result.statistics.gamma, record.result.death_init.dead)
        for record in records
        if record.result and record.spec.arm == "raw" and domain in (None, record.spec.domain)
    ]
    return float(spearmanr([gamma for gamma, _ in raw], [dead for _, dead in raw]).statistic)


def test_the_correlation_is_over_all_layers_and_by_domain() -> None:
    records = make_grid(models=MODELS | {f"{name}2": MODELS[name] for name in MODELS})
    found = table(render(records)["README.md"], HEADING)
    for row, domain, layers, models in (
        ("here, all", None, 48, 12),
        ("here, language", "language", 24, 6),
        ("here, vision", "vision", 24, 6),
    ):
        cells = found.row(Correlation=row)
        assert cells["Models"] == str(models)
        value, low, high = cells["Total"].replace("[", "").replace("]", "").split()
        assert cells["Layers with raw"] == str(layers)
        assert value == f"{expected(records, domain):.3f}"
        assert float(low.rstrip(",")) <= float(value) <= float(high) <= 1


def test_the_published_numbers_stand_beside_ours() -> None:
    found = table(render(make_grid())["README.md"], HEADING)
    columns = ("Layers with raw", "Total", "By TopK", "By ReLU")
    of_table, of_abstract = (
        [found.row(Correlation=f"paper, its {what}")[column] for column in columns]
        for what in ("table", "abstract")
    )
    assert of_table == ["454", "0.914", "0.877", "0.830"]
    assert of_abstract == ["\N{EM DASH}", "\N{EM DASH}", "0.89", "0.82"]


def test_too_few_layers_have_no_correlation_and_the_reason_is_said() -> None:
    page = render(make_grid(layers=[0, 1]))["README.md"]
    cell = table(page, HEADING).row(Correlation="here, all")["Total"]
    assert cell.startswith("\N{EM DASH}[^")
    assert f"{cell[1:]}: fewer than ten layers" in page


def test_one_model_has_no_correlation_however_many_layers() -> None:
    page = render(make_grid(layers=list(range(12))))["README.md"]
    row = table(page, HEADING).row(Correlation="here, all")
    assert (row["Layers with raw"], row["Models"]) == ("12", "1")
    assert f"{row['Total'][1:]}: layers of one model" in page


def test_few_models_have_no_interval() -> None:
    page = render(make_grid(models=MODELS))["README.md"]
    cell = table(page, HEADING).row(Correlation="here, vision")["Total"]
    assert cell.startswith(f"{expected(make_grid(models=MODELS), 'vision'):.3f}[^")
    assert f"{cell[5:]}: an interval needs five models" in page


def test_other_arms_and_failed_cells_are_no_cells() -> None:
    page = render(make_grid(arms=["centered"]))["README.md"]
    assert table(page, HEADING).row(Correlation="here, all")["Layers with raw"] == "0"


def test_protocols_are_not_mixed() -> None:
    page = render([*make_grid(), *make_grid(layers=[0, 1], limit=100)])["README.md"]
    layers = [
        table(page, HEADING, index).row(Correlation="here, all")["Layers with raw"]
        for index in (0, 1)
    ]
    assert layers == ["4", "2"]
