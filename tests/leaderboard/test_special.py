"""The table of gammas with and without special tokens."""

from __future__ import annotations

from bench.records.schema import Record, SpecialTokens
from tests.leaderboard.tables import mean, render, table
from tests.records import make_grid, make_record

HEADING = "With and without special tokens"


def with_special(record: Record, special: SpecialTokens | None) -> Record:
    assert record.result is not None
    return make_record(record.spec, record.result.model_copy(update={"special_tokens": special}))


def test_every_layer_has_its_gammas_of_both_kinds() -> None:
    records = make_grid(layers=[0, 1])
    found = table(render(records)["models/tiny-a.md"], HEADING)
    for record in records:
        assert record.result is not None
        special = record.result.special_tokens
        assert special is not None
        row = found.row(Layer=str(record.spec.layer))
        for which, part in (("With", special.kept), ("Without", special.dropped)):
            assert part is not None
            for column, value in (
                ("gamma", part.gamma),
                ("raw", part.gamma_raw),
                ("rms", part.gamma_rms),
            ):
                assert abs(mean(row[f"{which}: {column}"]) / value - 1) < 5e-3
            assert row[f"{which}: top dims"].startswith(f"{part.outlier_dims[0].index} (40.0)")


def test_a_model_without_them_says_so_instead_of_a_table() -> None:
    none = SpecialTokens(kept=None, dropped=None, reason="the model has none")
    page = render([with_special(record, none) for record in make_grid()])["models/tiny-a.md"]
    assert f"### {HEADING}\n\nThe model has none.\n" in page


def test_a_reason_for_one_of_them_stands_below_the_table() -> None:
    (first, *rest) = make_grid(layers=[0, 1], arms=["raw"])
    assert first.result is not None
    assert first.result.special_tokens is not None
    half = first.result.special_tokens.model_copy(update={"kept": None, "reason": "it is <huge>"})
    page = render([with_special(first, half), *rest])["models/tiny-a.md"]
    row = table(page, HEADING).row(Layer="0")
    assert row["With: gamma"] == "\N{EM DASH}"
    assert row["Without: gamma"] != "\N{EM DASH}"
    assert "It is &lt;huge&gt;." in page


def test_records_of_before_have_no_such_section() -> None:
    page = render([with_special(record, None) for record in make_grid()])["models/tiny-a.md"]
    assert HEADING not in page
