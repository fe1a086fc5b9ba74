"""What the pages say: every model has its rows, and the numbers are the records'."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import Any

import pytest

from bench.intervals import binomial_interval
from bench.records.schema import FirstFiring, Record, Training
from bench.records.store import RecordStore
from leaderboard import write_boards
from leaderboard.boards import BOARDS_FOLDER
from leaderboard.text import escape
from tests.leaderboard.tables import Table, label, links, mean, render, table, tables
from tests.records import (
    make_grid,
    make_provenance,
    make_record,
    make_result,
    make_spec,
    write_records,
)
from zoo.errors import BadCorpus

MODELS = {"tiny-a": "language", "tiny-b": "vision", "tiny-c": "language", "tiny-s": "synthetic"}
RANKINGS = ("By gamma", "By death at initialisation", "By what centering saves")


@pytest.fixture
def records() -> list[Record]:
    """A missing cell of tiny-b, a failed layer of tiny-c, and a model that failed altogether."""
    grid = make_grid(models=MODELS, layers=[0, 1, 2])
    kept = [
        record
        for record in grid
        if (record.spec.model, record.spec.layer, record.spec.arm) != ("tiny-b", 1, "raw")
        and (record.spec.model, record.spec.layer) != ("tiny-c", 2)
    ]
    failed = [
        make_record(model="tiny-c", layer=2, arm=arm, outcome=BadCorpus("all constant"))
        for arm in ("raw", "centered")
    ]
    lost = make_record(model="tiny-d", outcome=BadCorpus("nothing in it", "Give another."))
    return [*kept, *failed, lost]


@pytest.fixture
def pages(records: list[Record]) -> dict[str, str]:
    return render(records)


def test_every_table_of_every_page_is_well_formed(pages: dict[str, str]) -> None:
    # `tables` itself checks that all lines of a table have the same number of cells.
    assert all(len(tables(text)) >= 3 for text in pages.values())


def test_every_model_is_in_every_ranking(pages: dict[str, str]) -> None:
    for heading in RANKINGS:
        models = [label(cell) for cell in table(pages["README.md"], heading).column("Model")]
        assert sorted(models) == sorted([*MODELS, "tiny-d"])


def test_every_model_and_layer_has_its_rows_on_its_domain_s_page(
    records: list[Record], pages: dict[str, str]
) -> None:
    for domain in {record.spec.domain for record in records}:
        members = {(r.spec.model, str(r.spec.layer)) for r in records if r.spec.domain == domain}
        for found in tables(pages[f"{domain}.md"]):
            models = [label(cell) for cell in found.column("Model")]
            if "Layer" in found.headers:
                layers = zip(models, found.column("Layer"), strict=True)
                assert sorted(layers) == sorted(members), found.heading
            else:
                assert sorted(models) == sorted({model for model, _ in members}), found.heading


def test_every_cell_has_a_row_on_its_model_s_page(
    records: list[Record], pages: dict[str, str]
) -> None:
    for record in records:
        spec = record.spec
        cells = table(pages[f"models/{spec.model}.md"], "Cells")
        row = cells.row(Layer=str(spec.layer), Arm=spec.arm, Seed=str(spec.seed))
        assert record.hash in row["Record"]
        assert row["State"] == ("measured" if record.status == "ok" else "failed")


def test_failed_and_missing_cells_are_shown(pages: dict[str, str]) -> None:
    incomplete = table(pages["README.md"], "Failed and missing cells")
    assert [label(cell) for cell in incomplete.column("Model")] == ["tiny-c", "tiny-d", "tiny-b"]
    assert incomplete.row(Model="tiny-b")["Missing"] == "1"
    assert incomplete.row(Model="tiny-c")["Failed"].startswith("2[^")
    layers = table(pages["models/tiny-b.md"], "Layers")
    assert layers.row(Layer="1")["Born dead % raw"] == "missing"
    assert table(pages["models/tiny-b.md"], "Cells").row(Layer="1", Arm="raw")["State"] == "missing"
    failed = table(pages["models/tiny-c.md"], "Layers").row(Layer="2")
    assert all(cell.startswith("failed[^") for key, cell in failed.items() if key != "Layer")
    assert "all constant" in pages["models/tiny-c.md"]
    assert "nothing in it. Give another." in pages["models/tiny-d.md"]


def test_failed_models_come_last_without_a_rank(pages: dict[str, str]) -> None:
    for heading in RANKINGS:
        last = table(pages["README.md"], heading).rows[-1]
        assert (last[0], label(last[1])) == ("\N{EM DASH}", "tiny-d")


def test_models_are_ranked_by_the_number_that_is_asked_for(pages: dict[str, str]) -> None:
    for heading, column in zip(
        RANKINGS, ("gamma", "Born dead % raw", "Saved at birth"), strict=True
    ):
        values = [mean(cell) for cell in table(pages["README.md"], heading).column(column)[:-1]]
        assert values == sorted(values, reverse=True)
        assert table(pages["README.md"], heading).column("#")[:3] == ["1", "2", "3"]


def test_equal_values_share_a_rank() -> None:
    spec = make_spec()
    records = [
        make_record(make_spec(model=model), make_result(spec))
        for model in ("tiny-b", "tiny-a", "tiny-c")
    ]
    assert table(render(records)["README.md"], "By gamma").column("#") == ["1", "1", "1"]


def test_numbers_are_the_records(records: list[Record], pages: dict[str, str]) -> None:
    checked = 0
    for record in records:
        if record.result is None or record.result.training is None:
            continue
        spec, result, training = record.spec, record.result, record.result.training
        page, n = pages[f"models/{spec.model}.md"], spec.protocol["n"]
        layer = table(page, "Layers").row(Layer=str(spec.layer))
        where = {"Layer": str(spec.layer), "Arm": spec.arm}
        death = table(page, "Death by path").row(**where)
        trained = table(page, "Training").row(**where)
        expected = {
            layer["gamma"]: result.statistics.gamma,
            layer["gamma raw"]: result.statistics.gamma_raw,
            layer["gamma rms"]: result.statistics.gamma_rms,
            layer["Eff. rank"]: result.statistics.effective_rank,
            trained["FVU"]: training.fvu,
            trained["L0"]: training.l0,
        }
        for cell, value in expected.items():
            assert mean(cell) == pytest.approx(value, rel=5e-3)
            checked += 1
        shares = {
            layer["Closed form %"]: result.predicted_dead,
            layer["Prediction %"]: result.prediction.dead,
            death["Born dead ReLU %"]: result.death_init.dead_relu / n,
            death["Born dead TopK %"]: result.death_init.dead_topk / n,
            death["Born dead %"]: (result.death_init.dead_relu + result.death_init.dead_topk) / n,
            death["Dead at end %"]: (result.death_end.dead_relu + result.death_end.dead_topk) / n,
            layer[f"Born dead % {spec.arm}"]: result.death_init.dead / n,
            layer[f"Dead at end % {spec.arm}"]: result.death_end.dead / n,
        }
        for cell, share in shares.items():
            assert mean(cell.lstrip("<>")) == pytest.approx(100 * share, abs=0.1001)
            checked += 1
    assert checked > 200


def test_a_model_s_row_is_the_mean_and_range_over_its_layers() -> None:
    records = make_grid(models=["tiny-c"], layers=[0, 1, 2])
    row = table(render(records)["README.md"], "By death at initialisation").row(Model="tiny-c")
    dead = [r.result.death_init.dead / 768 for r in records if r.result and r.spec.arm == "raw"]
    low, high, middle = 100 * min(dead), 100 * max(dead), 100 * sum(dead) / 3
    assert 0.05 < low < high < 99.95
    value, interval, between = row["Born dead % raw"].split()
    assert f"{value} {between}" == f"{middle:.1f} ({low:.1f}\N{EN DASH}{high:.1f})"
    ends = [binomial_interval(round(share * 768), 768).low for share in dead]
    reach = middle - 100 * sum(ends) / 3
    assert interval == f"\N{PLUS-MINUS SIGN}{reach:.1f}"


def test_several_seeds_give_mean_and_range() -> None:
    records = make_grid(layers=[1], seeds=[0, 1, 2])
    row = table(render(records)["models/tiny-a.md"], "Training").row(Arm="centered")
    fvu = [_training(record).fvu for record in records if record.spec.arm == "centered"]
    middle = sum(fvu) / 3
    assert row["FVU"] == f"{middle:.3f} ({min(fvu):.3f}\N{EN DASH}{max(fvu):.3f})"


def test_a_mean_over_some_of_the_seeds_says_so() -> None:
    records = make_grid(layers=[1], seeds=[0, 1, 2])
    bad = next(r for r in records if r.spec.arm == "raw" and r.spec.seed == 1)
    gone = next(r for r in records if r.spec.arm == "raw" and r.spec.seed == 2)
    kept = [record for record in records if record not in (bad, gone)]
    page = render([*kept, make_record(bad.spec, BadCorpus("empty"))])["models/tiny-a.md"]
    cell = table(page, "Death by path").row(Arm="raw")["Born dead %"]
    mark = cell[cell.index("[^") :]
    assert f"{mark}: of 3 seeds, 1 failed and 1 missing: empty" in page


def test_a_median_step_has_its_interval() -> None:
    cell = _first_firing_cell([_first(median_steps=1200.0, interval=(1000.0, 1400.0))])
    assert cell == "1,200 (1,000\N{EN DASH}1,400)"


def test_a_median_without_an_interval_says_why() -> None:
    wide = _first(median_steps=70.0, reason="upper end not seen")
    assert _first_firing_cell([wide]) == "70: upper end not seen"


def test_a_median_that_was_not_reached_says_why() -> None:
    assert _first_firing_cell([_first(reason="2 of 9 fired")]) == "not reached: 2 of 9 fired"


def test_a_median_of_nothing_is_not_called_unreached() -> None:
    none = _first(born=0, fired=0, reason="none was dead")
    assert _first_firing_cell([none]) == "\N{EM DASH}: none was dead"


def test_medians_of_seeds_of_which_one_was_not_reached_have_no_mean() -> None:
    cell = _first_firing_cell([_first(median_steps=50.0), _first(reason="2 of 9")])
    assert cell == "50 to not reached"


def test_boards_say_by_path_who_revived_for_good_beside_what_chance_shows() -> None:
    (record,) = records = make_grid(layers=[2], arms=["raw"])
    training = _training(record)
    pages = render(records)
    for path, found in (("ReLU", training.revival_relu), ("TopK", training.revival_topk)):
        assert found is not None
        assert found.chance is not None
        for page in (pages["models/tiny-a.md"], pages["language.md"]):
            row = table(page, f"Born dead by {path}, after training").rows[0]
            headers = table(page, f"Born dead by {path}, after training").headers
            raw = "" if page is pages["models/tiny-a.md"] else " raw"
            shown = {
                header.removesuffix(raw): cell for header, cell in zip(headers, row, strict=True)
            }
            for title, count in (
                ("Durable", found.durable),
                ("Chance", found.chance.awake),
                ("Relapsed", found.relapsed),
                ("Never", found.never),
            ):
                share = f"{100 * count / found.born:.3g}"
                assert float(shown[f"{title} {path} %"].split()[0]) == pytest.approx(
                    float(share), abs=0.06
                )
    beyond = table(pages["models/tiny-a.md"], "Born dead by ReLU, after training").row(Arm="raw")
    relu = training.revival_relu
    assert relu is not None
    assert relu.chance is not None
    difference = 100 * (relu.durable - relu.chance.awake) / relu.born
    shown_beyond = beyond["Beyond chance ReLU %"].replace("\N{MINUS SIGN}", "-")
    assert float(shown_beyond.split()[0]) == pytest.approx(difference, abs=0.06)


def test_records_that_know_only_first_firings_say_so() -> None:
    (record,) = make_grid(layers=[1], arms=["raw"])
    assert record.result is not None
    none = {
        "revival": None,
        "revival_relu": None,
        "revival_topk": None,
        "revival_reason": "too old",
    }
    training = _training(record).model_copy(update=none)
    old = make_record(record.spec, record.result.model_copy(update={"training": training}))
    page = render([old])["models/tiny-a.md"]
    row = table(page, "Born dead by ReLU, after training").row(Arm="raw")
    assert "First firing ReLU" in row
    assert "Durable ReLU %" not in row
    assert "Who revived for good is not known: too old." in page


def test_limited_runs_are_marked_and_apart() -> None:
    pages = render([*make_grid(layers=[0]), *make_grid(layers=[0], limit=100)])
    for name in ("README.md", "language.md", "models/tiny-a.md"):
        assert "## Protocol trial\n" in pages[name]
        limited = pages[name].split("## Protocol trial, limited\n")[1]
        assert "Limited to 100 tokens: a trial run, not a result" in limited.split("##")[0]


def test_protocols_of_one_name_get_headings_that_differ() -> None:
    pages = render([*make_grid(layers=[0]), *make_grid(layers=[0], protocol={"lr": 0.5})])
    headings = [line for line in pages["README.md"].splitlines() if line.startswith("## Protocol")]
    assert len(headings) == len(set(headings)) == 2
    assert "Unlike the others: lr = 0.5." in pages["README.md"]


def test_other_arms_get_columns_of_their_own() -> None:
    page = render(make_grid(layers=[0], arms=["whitened", "raw+auxk", "raw"]))["models/tiny-a.md"]
    headers = table(page, "Layers").headers
    due = [f"Due to {part} %" for part in ("mean", "spectrum", "neither")]
    assert headers[headers.index("Born dead % raw") :][:9] == [
        "Born dead % raw", *due, "Born dead % raw+auxk", "Born dead % whitened",
        "Dead at end % raw", "Dead at end % raw+auxk", "Dead at end % whitened",
    ]  # fmt: skip


def test_a_protocol_without_training_has_no_training_tables() -> None:
    pages = render(make_grid(protocol={"steps": 0}))
    assert all("raining\n" not in text for text in pages.values())


def test_recovery_is_shown_where_the_truth_is_known(pages: dict[str, str]) -> None:
    assert "Recovery" in table(pages["models/tiny-s.md"], "Training").headers
    assert "Recovery" not in table(pages["models/tiny-a.md"], "Training").headers


def test_every_column_is_explained(pages: dict[str, str]) -> None:
    plain = {"#", "Model", "Domain", "Layer", "Arm", "Seed", "Record", "State", "Reason", "What",
             "Value", "Protocol", "Cells", "Failed", "Missing"}  # fmt: skip
    for name, text in pages.items():
        glossary = {line[4:].split("**")[0] for line in text.splitlines() if line[:4] == "- **"}
        for found in tables(text):
            for header in set(found.headers) - plain:
                assert any(header.startswith(term) for term in glossary), (name, header)


def test_every_footnote_is_defined_and_used(pages: dict[str, str]) -> None:
    for text in pages.values():
        body, definitions = [], []
        for line in text.splitlines():
            (definitions if line.startswith("[^") else body).append(line)
        numbers = [line.split("]")[0] + "]" for line in definitions]
        assert numbers == [f"[^{i + 1}]" for i in range(len(definitions))]
        assert all(number in "\n".join(body) for number in numbers)


def test_every_link_leads_to_a_file(tmp_path: Path, records: list[Record]) -> None:
    write_records(tmp_path, records)
    checked = 0
    for path in write_boards(tmp_path, figures=False):
        if path.suffix != ".md":
            continue
        for target in links(path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), (path, target)
            checked += 1
    assert checked > 100


def test_a_record_s_link_is_where_the_store_keeps_it(records: list[Record]) -> None:
    record = records[0]
    stored = RecordStore(Path("out")).path(record.spec).as_posix()
    page = render(records)[f"models/{record.spec.model}.md"]
    folder = f"out/{BOARDS_FOLDER}/models"
    assert stored in {posixpath.normpath(f"{folder}/{target}") for target in links(page)}


def test_provenance_names_what_made_the_numbers(records: list[Record], pages: dict) -> None:
    found = table(pages["models/tiny-a.md"], "Provenance")
    rows = dict(zip(found.column("What"), found.column("Value"), strict=True))
    assert rows["Weights"] == records[0].spec.weights
    assert rows["Packages"] == "torch 2.13.0, transformers 4.48.1"
    assert rows["Device"] == "cpu"
    assert "2026-01-02" in rows["Started"]


def test_the_table_reader_notices_a_ragged_table() -> None:
    with pytest.raises(AssertionError, match="ragged"):
        tables("# x\n| a | b |\n|:--|--:|\n| 1 |\n")
    assert tables("|a|\n|-|\n|x\\|y|\n") == [Table("", ["a"], [["x\\|y"]])]


def _training(record: Record) -> Training:
    assert record.result is not None
    assert record.result.training is not None
    return record.result.training


def _first(born: int = 9, fired: int = 2, **times: Any) -> FirstFiring:
    return FirstFiring(
        born=born, fired=fired, **{"median_steps": None, "interval": None, "reason": None} | times
    )


def _first_firing_cell(found: list[FirstFiring]) -> str:
    """The cell of a layer whose seeds have these first firings, its footnotes written out."""
    records = []
    for seed, first in enumerate(found):
        spec = make_spec(seed=seed)
        result = make_result(spec)
        assert result.training is not None
        training = result.training.model_copy(update={"first_firing_relu": first})
        records.append(make_record(spec, result.model_copy(update={"training": training})))
    page = render(records)["models/tiny-a.md"]
    row = table(page, "Born dead by ReLU, after training").row(Arm="raw")
    word, _, mark = row["First firing ReLU"].partition("[^")
    notes = dict(line.split("]: ", 1) for line in page.splitlines() if line.startswith("[^"))
    return f"{word}: {notes['[^' + mark.rstrip(']')]}" if mark else word


@pytest.mark.parametrize("tried", [None, "published weights", "authors' code", "stand-in"])
def test_a_model_s_page_says_what_its_card_was_tried_on(tried: str | None) -> None:
    record = make_record(provenance=make_provenance(tried=tried))
    page = render([record])["models/tiny-a.md"]
    assert ("Card tried on" in page) is (tried is not None)
    assert tried is None or f"| {escape(tried)} " in page
