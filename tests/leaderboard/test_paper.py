from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from bench.records.schema import Record
from leaderboard.paper import (
    INIT_QUANTITIES,
    TRAINED_QUANTITIES,
    Cell,
    PaperRow,
    cells_of_records,
    cells_of_rows,
    compare,
    gamma_correlations,
    read_table,
)
from tests.records import make_grid, make_record, write_records
from zoo.errors import UsageError

INIT_HEADER = "model,layer,hidden_dim,gamma,gamma_raw,effective_rank,dead_pct_init_topk,"
INIT_HEADER += "dead_pct_init_relu,dead_pct_init_centered,domain"
PAPER = {"n": 8192, "k": 64, "N": 100_000}


def percent(record: Record, count: int) -> float:
    return 100 * count / record.spec.protocol["n"]


def row(model: str, layer: int, **values: float) -> PaperRow:
    return PaperRow(model, layer, "language", values)


def only(comparison, column):
    (pair,) = [pair for pair in comparison.pairs if pair.column == column]
    return pair


def test_the_same_quantity_of_the_right_arm_is_compared():
    records = make_grid(models=["gpt2"], layers=[3], arms=["raw", "centered", "raw+auxk"])
    raw, centered, auxk = (r.result for r in records)
    init = compare(
        records,
        [
            row(
                "GPT-2",
                3,
                gamma=2.0,
                dead_pct_init_relu=1,
                dead_pct_init_topk=2,
                dead_pct_init_centered=3,
            )
        ],
        INIT_QUANTITIES,
    )
    assert only(init, "gamma").ours == raw.statistics.gamma
    assert only(init, "gamma").difference == raw.statistics.gamma - 2.0
    assert only(init, "dead_pct_init_relu").ours == percent(records[0], raw.death_init.dead_relu)
    assert only(init, "dead_pct_init_topk").ours == percent(records[0], raw.death_init.dead)
    assert only(init, "dead_pct_init_centered").ours == percent(
        records[1], centered.death_init.dead
    )
    assert len(init.pairs) == 4
    trained = compare(
        records,
        [row("GPT-2", 3, dead_pct_final_baseline=5, dead_pct_final_auxk=6)],
        TRAINED_QUANTITIES,
    )
    assert only(trained, "dead_pct_final_baseline").ours == percent(records[0], raw.death_end.dead)
    assert only(trained, "dead_pct_final_auxk").ours == percent(records[2], auxk.death_end.dead)


def test_seeds_are_averaged():
    records = make_grid(models=["gpt2"], layers=[0], arms=["raw"], seeds=[0, 1, 2])
    found = compare(records, [row("gpt2", 0, dead_pct_init_topk=10.0)], INIT_QUANTITIES)
    expected = [percent(r, r.result.death_init.dead) for r in records]
    assert only(found, "dead_pct_init_topk").ours == pytest.approx(sum(expected) / 3)
    assert only(found, "dead_pct_init_topk").seeds == 3


def test_protocols_are_not_mixed_and_the_papers_goes_first():
    quick = make_record(model="gpt2", arm="raw")
    full = make_record(model="gpt2", arm="raw", protocol=PAPER)
    rows = [row("gpt2", 0, dead_pct_init_topk=10.0)]
    both = compare([quick, full], rows, INIT_QUANTITIES)
    assert only(both, "dead_pct_init_topk").ours == percent(full, full.result.death_init.dead)
    assert both.notes == ()
    alone = compare([quick], rows, INIT_QUANTITIES)
    n = quick.spec.protocol["n"]
    assert f"n is {n} here and 8192 in the paper" in alone.notes


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("GPT-2", "gpt2"),
        ("Pythia 410m", "pythia-410m"),
        ("ModernBERT-Large", "modernbert-large"),
        ("modernbert", "modernbert-base"),
        ("dinov3_small", "dinov3-base"),
    ],
)
def test_names_are_matched(theirs, ours):
    records = make_grid(models=[ours, "other"], layers=[1], arms=["raw"])
    found = compare(records, [row(theirs, 1, gamma=1.0)], INIT_QUANTITIES)
    assert [(p.model, p.paper_model) for p in found.pairs] == [(ours, theirs)]


def test_names_and_layers_can_be_given():
    records = make_grid(models=["mine"], layers=[4], arms=["raw"])
    found = compare(
        records,
        [row("gpt2", 5, gamma=1.0)],
        INIT_QUANTITIES,
        names={"gpt2": "mine"},
        layer_offset=-1,
    )
    assert [(p.model, p.layer, p.paper_layer) for p in found.pairs] == [("mine", 4, 5)]
    assert found.unmatched == ()


def test_what_is_not_measured_is_named_and_failures_do_not_count():
    failed = make_record(model="gpt2", outcome=ValueError("no"))
    found = compare([failed], [row("gpt2", 0, gamma=1.0), row("esm3", 2)], INIT_QUANTITIES)
    assert found.pairs == ()
    assert found.agreements == ()
    assert found.unmatched == ("gpt2 layer 0", "esm3 layer 2")


def test_agreement_over_layers():
    records = make_grid(models=["gpt2"], layers=list(range(8)), arms=["raw"])
    rows = [row("gpt2", r.spec.layer, gamma=2 * r.result.statistics.gamma + 1) for r in records]
    (agreement,) = compare(records, rows, INIT_QUANTITIES).agreements
    ours = [r.result.statistics.gamma for r in records]
    assert agreement.layers == 8
    assert agreement.mean_difference == pytest.approx(sum(-g - 1 for g in ours) / 8)
    assert agreement.mean_absolute_difference == -agreement.mean_difference
    assert agreement.rank_correlation.value == pytest.approx(1.0)


def test_correlations_by_path_and_domain():
    draw = random.Random(0)
    cells = [
        Cell(domain, gamma, relu=draw.random(), total=2 + gamma * (1 if domain == "a" else -1))
        for domain in "ab"
        for gamma in (draw.uniform(0.1, 9) for _ in range(20))
    ]
    found = {(c.domain, c.path): c for c in gamma_correlations(cells)}
    assert found["a", "total"].estimate.value == pytest.approx(1.0)
    assert found["b", "total"].estimate.value == pytest.approx(-1.0)
    assert abs(found["all", "total"].estimate.value) < 0.9
    assert found["all", "by ReLU"].layers == 40
    assert {c.domain for c in gamma_correlations(cells[:20])} == {"all"}


def test_cells_of_records_and_rows():
    records = make_grid(models=["gpt2"], layers=[0, 1], arms=["raw", "centered"], seeds=[0, 1])
    cells = cells_of_records(records)
    assert len(cells) == 2
    raw = [r for r in records if r.spec.layer == 0 and r.spec.arm == "raw"]
    assert cells[0].gamma == pytest.approx(raw[0].result.statistics.gamma)
    expected = sum(percent(r, r.result.death_init.dead) for r in raw) / 2
    assert cells[0].total == pytest.approx(expected)
    full = row("a", 0, gamma=1.0, dead_pct_init_relu=2.0, dead_pct_init_topk=3.0)
    assert cells_of_rows([full, row("b", 0, gamma=1.0)]) == [Cell("language", 1.0, 2.0, 3.0)]


def write_table(folder: Path, *lines: str) -> Path:
    path = folder / "init_stats.csv"
    path.write_text("\n".join([INIT_HEADER, *lines]) + "\n")
    return path


def test_reading_a_table(tmp_path):
    path = write_table(tmp_path, "gpt2,1,768,0.5,0.4,300.5,1.25,0,,language")
    (read,) = read_table(path, INIT_QUANTITIES)
    assert (read.model, read.layer, read.domain) == ("gpt2", 1, "language")
    assert read.values["gamma"] == 0.5
    assert read.values["dead_pct_init_centered"] is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "is not the table that was asked for. It needs the columns model, layer"),
        ("", "is not the table that was asked for"),
        ("model,layer,gamma\ngpt2,x,1\n", "line 2: layer is 'x', not a number"),
        ("model,layer,gamma\ngpt2,1.5,1\n", "layer is '1.5', not a whole number"),
        ("model,layer,gamma\ngpt2,1,2\ngpt2,2,high\n", "line 3: gamma is 'high', not a number"),
        ("model,layer,gamma\ngpt2,1,inf\n", "gamma is 'inf', not a number"),
    ],
)
def test_a_file_that_is_no_such_table(tmp_path, text, message):
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_table(path, INIT_QUANTITIES)
    assert message in str(caught.value)


def test_a_binary_file_and_an_absent_one(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00\x9d" * 9)
    with pytest.raises(UsageError, match="is not a CSV file"):
        read_table(tmp_path / "x.csv", INIT_QUANTITIES)
    with pytest.raises(UsageError, match=r"cannot read .* \(No such file"):
        read_table(tmp_path / "y.csv", INIT_QUANTITIES)


def test_the_command(bench, tmp_path):
    records = make_grid(models=["gpt2"], layers=[1, 2, 3, 4], arms=["raw", "centered"])
    write_records(tmp_path / "runs", records)
    rows = [f"gpt2,{layer},768,{layer},0.4,300.5,12.5,0,1,language" for layer in (1, 2, 3, 4, 5)]
    table = write_table(tmp_path, *rows)
    code, out, _ = bench("compare-paper", "--init-stats", str(table))
    assert code == 0
    assert "at initialisation: 4 layers matched" in out
    assert "note: N is" in out
    assert "not measured here: 1 rows (gpt2 layer 5)" in out
    assert "0.914" in out
    assert "0.89" in out
    code, out, _ = bench("compare-paper", "--init-stats", str(table), "--json")
    document = json.loads(out)
    pairs = document["tables"]["at initialisation"]["pairs"]
    gammas = [pair for pair in pairs if pair["column"] == "gamma"]
    assert [pair["theirs"] for pair in gammas] == [1, 2, 3, 4]
    assert all(p["difference"] == p["ours"] - p["theirs"] for p in pairs)
    assert document["correlations"]["theirs"][0]["layers"] == 5


def test_both_tables(bench, tmp_path):
    write_records(tmp_path / "runs", make_grid(models=["gpt2"], layers=[6], arms=["raw"]))
    trained = tmp_path / "trained.csv"
    trained.write_text("model,layer,dead_pct_init_baseline,dead_pct_final_baseline\nGPT-2,6,4,0\n")
    table = write_table(tmp_path, "gpt2,6,768,0.5,0.4,300.5,1.25,0,,language")
    code, out, _ = bench("compare-paper", "--init-stats", str(table), "--trained", str(trained))
    assert code == 0
    assert "at initialisation: 1 layers matched" in out
    assert "trained: 1 layers matched" in out
    assert "none: fewer than three cells" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no table is given. Give --init-stats FILE, --trained FILE or both."),
        (["--init-stats", "no.csv"], "cannot read no.csv (No such file or directory)"),
        (["--init-stats", "t.csv", "--match", "gpt2"], "--match 'gpt2' is not THEIRS=OURS"),
        (["--init-stats", "t.csv", "--output", "empty"], "no records in empty"),
    ],
)
def test_bad_requests(bench, tmp_path, arguments, message):
    write_records(tmp_path / "runs", make_grid(models=["gpt2"], layers=[0], arms=["raw"]))
    code, out, err = bench("compare-paper", *arguments)
    assert code == 2
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
