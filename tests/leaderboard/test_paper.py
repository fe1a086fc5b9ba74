from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from bench.plan.protocol import load_protocol
from bench.records.schema import Record
from leaderboard.paper import (
    NOT_MEASURED,
    OTHER_ARMS,
    UNKNOWN,
    LayerDeath,
    Unmatched,
    compare_with_paper,
    gamma_correlations,
    layers_of_records,
    layers_of_rows,
    our_names,
)
from leaderboard.paper_tables import INIT_QUANTITIES, TRAINED_QUANTITIES, PaperRow, read_table
from tests.records import make_grid, make_record, write_records
from zoo.errors import UsageError
from zoo.registry import load_registry

INIT_HEADER = "model,layer,hidden_dim,gamma,gamma_raw,effective_rank,dead_pct_init_topk,"
INIT_HEADER += "dead_pct_init_relu,dead_pct_init_centered,domain"
PAPER = {"n": 8192, "k": 64, "N": 100_000}


def percent(record: Record, count: int) -> float:
    return 100 * count / record.spec.protocol["n"]


def row(model: str, layer: int, width: int | None = None, **values: float) -> PaperRow:
    return PaperRow(model, layer, "language", values, width)


def percent_born(record: Record, preset: str) -> float:
    assert record.result is not None
    assert record.result.attribution is not None
    return percent(record, record.result.attribution[preset])


def only(comparison, column):
    (pair,) = [pair for pair in comparison.pairs if pair.column == column]
    return pair


def test_the_same_quantity_of_the_right_arm_is_compared():
    """Their layer 4 is our block 3."""
    arms = ["raw", "centered", "raw+auxk", "raw+auxk-relu", "whitened"]
    records = make_grid(models=["gpt2"], layers=[3], arms=arms)
    results = {record.spec.arm: record.result for record in records}
    columns = [quantity.column for quantity in INIT_QUANTITIES]
    init = compare_with_paper(
        records, [row("GPT-2", 4, **dict.fromkeys(columns, 2.0))], INIT_QUANTITIES
    )
    raw = results["raw"]
    assert only(init, "gamma").difference == raw.statistics.gamma - 2.0
    assert only(init, "gamma_raw").ours == raw.statistics.gamma_raw
    assert only(init, "effective_rank").ours == raw.statistics.effective_rank
    n = records[0].spec.protocol["n"]
    for column, dead in (
        ("dead_pct_init_relu", raw.death_init.dead_relu),
        ("dead_pct_init_topk", raw.death_init.dead),
        ("dead_pct_init_centered", results["centered"].death_init.dead),
        ("dead_pct_init_pca", results["whitened"].death_init.dead),
    ):
        assert only(init, column).ours == pytest.approx(100 * dead / n)
    assert len(init.pairs) == 7
    assert init.empty == (("dead_pct_init_ln_centered", "geometric_median-layernorm"),)
    columns = [quantity.column for quantity in TRAINED_QUANTITIES]
    trained = compare_with_paper(
        records, [row("GPT-2", 4, **dict.fromkeys(columns, 5.0))], TRAINED_QUANTITIES
    )
    for column, arm in (("baseline", "raw"), ("auxk", "raw+auxk-relu"), ("centered", "centered")):
        for when, death in (
            ("init", results[arm].death_init),
            ("final", results[arm].death_end),
        ):
            found = only(trained, f"dead_pct_{when}_{column}")
            assert found.ours == pytest.approx(100 * death.dead / n)
    assert trained.empty == ()
    assert not any("AuxK" in note for note in trained.notes)


def test_a_record_of_any_arm_has_what_every_record_holds():
    (record,) = make_grid(models=["gpt2"], layers=[0], arms=["centered"])
    columns = [quantity.column for quantity in INIT_QUANTITIES]
    found = compare_with_paper(
        [record], [row("gpt2", 1, **dict.fromkeys(columns, 1.0))], INIT_QUANTITIES
    )
    assert only(found, "gamma").ours == record.result.statistics.gamma
    assert only(found, "dead_pct_init_topk").ours == percent_born(record, "raw")
    assert only(found, "dead_pct_init_pca").ours == percent_born(record, "whitened")
    assert ("dead_pct_init_relu", "raw") in found.empty


def test_auxk_as_published_is_known_in_older_records_and_another_one_is_noted():
    rows = [row("gpt2", 1, dead_pct_final_auxk=1.0)]
    old = make_record(model="gpt2", arm="raw+auxk", protocol={"aux_codes": "relu"})
    other = make_record(model="gpt2", arm="raw+auxk")
    found = compare_with_paper([other, old], rows, TRAINED_QUANTITIES)
    assert only(found, "dead_pct_final_auxk").ours == percent(old, old.result.death_end.dead)
    assert not any("AuxK" in note for note in found.notes)
    found = compare_with_paper([other], rows, TRAINED_QUANTITIES)
    assert only(found, "dead_pct_final_auxk").ours == percent(other, other.result.death_end.dead)
    assert any("AuxK has no ReLU on its codes here" in note for note in found.notes)


def test_an_untrained_cell_has_no_end():
    record = make_record(model="gpt2", protocol={"steps": 0})
    rows = [row("gpt2", 1, dead_pct_init_baseline=1.0, dead_pct_final_baseline=1.0)]
    found = compare_with_paper([record], rows, TRAINED_QUANTITIES)
    assert [pair.column for pair in found.pairs] == ["dead_pct_init_baseline"]
    assert found.empty == (("dead_pct_final_baseline", "raw"),)


def test_seeds_are_averaged():
    records = make_grid(models=["gpt2"], layers=[0], arms=["raw"], seeds=[0, 1, 2])
    found = compare_with_paper(records, [row("gpt2", 1, dead_pct_init_topk=10.0)], INIT_QUANTITIES)
    expected = [percent(r, r.result.death_init.dead) for r in records]
    assert only(found, "dead_pct_init_topk").ours == pytest.approx(sum(expected) / 3)
    assert only(found, "dead_pct_init_topk").seeds == 3


def test_protocols_are_not_mixed_and_the_papers_goes_first():
    quick = make_record(model="gpt2", arm="raw")
    full = make_record(model="gpt2", arm="raw", protocol=PAPER)
    rows = [row("gpt2", 1, dead_pct_init_topk=10.0)]
    both = compare_with_paper([quick, full], rows, INIT_QUANTITIES)
    assert only(both, "dead_pct_init_topk").ours == percent(full, full.result.death_init.dead)
    assert both.notes == ()
    alone = compare_with_paper([quick], rows, INIT_QUANTITIES)
    n = quick.spec.protocol["n"]
    assert f"n is {n} here and 8192 in the paper" in alone.notes


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("GPT-2", "gpt2"),
        ("Pythia 410m", "pythia-410m"),
        ("gLM2", "glm2-650m"),
        ("ESM3", "esm3-open"),
        ("modernbert", "modernbert-base"),
        ("dinov3_small", "dinov3-base"),
        ("STABLE-DIFFUSION-3-5-LARGE", "sd3.5-large"),
    ],
)
def test_names_are_matched(theirs, ours):
    records = make_grid(models=[ours, "other"], layers=[1], arms=["raw"])
    found = compare_with_paper(records, [row(theirs, 2, gamma=1.0)], INIT_QUANTITIES)
    assert [(p.model, p.paper_model) for p in found.pairs] == [(ours, theirs)]


def test_the_only_layer_of_alphafold_3_is_matched_whatever_the_offset():
    records = make_grid(models=["alphafold3"], layers=[0], arms=["raw"])
    for offset in (None, 0, -1):
        rows = [row("af3", 0, gamma=1.0)]
        (pair,) = compare_with_paper(records, rows, INIT_QUANTITIES, layer_offset=offset).pairs
        assert (pair.layer, pair.paper_layer) == (0, 0)


def test_names_and_layers_can_be_given():
    records = make_grid(models=["mine", "gpt2"], layers=[4], arms=["raw"])
    rows = [row("GPT-2", 4, gamma=1.0)]
    names = our_names([("gpt2", "mine")], rows, records)
    found = compare_with_paper(records, rows, INIT_QUANTITIES, names=names, layer_offset=0)
    assert [(p.model, p.layer, p.paper_layer) for p in found.pairs] == [("mine", 4, 4)]
    assert found.unmatched == ()


@pytest.mark.parametrize(
    ("matches", "message"),
    [
        ([("gtp2", "mine")], "unknown model of the tables 'gtp2'. Did you mean gpt2?"),
        ([("gpt2", "mien")], "unknown model of the records 'mien'. Did you mean mine?"),
        ([("gpt2", "gpt-j")], "unknown model of the records 'gpt-j'. There are mine, other."),
        ([("gpt2", "mine"), ("GPT-2", "other")], "GPT-2 is matched with mine and with other"),
    ],
)
def test_a_match_that_hits_nothing_is_refused(matches, message):
    records = make_grid(models=["mine", "other"], layers=[0], arms=["raw"])
    with pytest.raises(UsageError) as caught:
        our_names(matches, [row("gpt2", 1)], records)
    assert str(caught.value) == message


def test_every_row_is_matched_or_named():
    failed = make_record(model="gpt2", outcome=ValueError("no"))
    centered = make_record(model="esm3-open", arm="centered")
    rows = [
        row("gpt2", 1, gamma=1.0),
        row("esm3", 1, dead_pct_final_baseline=1.0),
        row("esm3", 3, dead_pct_final_baseline=1.0),
        row("gpt5", 1, gamma=1.0),
    ]
    for quantities in (INIT_QUANTITIES, TRAINED_QUANTITIES):
        found = compare_with_paper([failed, centered], rows, quantities)
        assert found.pairs == found.agreements == ()
        assert found.unmatched == (
            Unmatched("gpt2", 1, NOT_MEASURED, "gpt2"),
            Unmatched("esm3", 1, OTHER_ARMS, "esm3-open"),
            Unmatched("esm3", 3, NOT_MEASURED, "esm3-open"),
            Unmatched("gpt5", 1, UNKNOWN, None),
        )


def test_two_rows_of_one_layer_are_refused():
    records = make_grid(models=["gpt2"], layers=[0], arms=["raw"])
    for other in (row("GPT-2", 1, gamma=2.0), row("gpt2", 1, gamma=1.0)):
        with pytest.raises(UsageError, match=r"gpt2 layer 1 and .* are both gpt2 layer 0 here"):
            compare_with_paper(records, [row("gpt2", 1, gamma=1.0), other], INIT_QUANTITIES)


def published(name: str) -> Path:
    """A table of the authors', or a part of it, in a folder beside this checkout."""
    found = next(Path(__file__).parents[3].glob(f"*/paper/{name}*.csv"), None)
    if found is None:
        pytest.skip(f"the authors' {name} table is not beside this checkout")
    return found


@pytest.mark.parametrize(
    ("name", "quantities"), [("init_stats", INIT_QUANTITIES), ("trained", TRAINED_QUANTITIES)]
)
def test_every_row_of_the_published_tables_is_a_layer_of_the_paper_suite(name, quantities):
    registry = load_registry()
    suite = registry.suite("paper")
    records = [
        make_record(model=model, domain=registry.card(model).domain, layer=layer, arm=arm)
        for model in suite.models
        for layer in suite.layers_of(registry.card(model))
        for arm in load_protocol("paper").arms
    ]
    rows = read_table(published(name), quantities)
    found = compare_with_paper(records, rows, quantities)
    assert found.unmatched == ()
    places = {(pair.model, pair.layer) for pair in found.pairs}
    assert len(places) == len(rows)
    if quantities is TRAINED_QUANTITIES:
        assert found.empty == ()
        assert len(found.pairs) == 6 * len(rows)


def test_agreement_over_layers():
    models = ["gpt2", "glm2"]
    records = make_grid(models=models, layers=list(range(8)), arms=["raw"])
    rows = [
        row(r.spec.model, r.spec.layer + 1, gamma=2 * r.result.statistics.gamma + 1)
        for r in records
    ]
    (agreement,) = compare_with_paper(records, rows, INIT_QUANTITIES).agreements
    ours = [r.result.statistics.gamma for r in records]
    assert agreement.layers == 16
    assert agreement.mean_difference == pytest.approx(sum(-g - 1 for g in ours) / 16)
    assert agreement.mean_absolute_difference == -agreement.mean_difference
    assert agreement.rank_correlation.value == pytest.approx(1.0)
    assert agreement.rank_correlation.low is None


def test_correlations_by_path_and_domain():
    draw = random.Random(0)
    cells = [
        LayerDeath(
            f"{domain}{i % 5}",
            domain,
            gamma,
            relu=draw.random(),
            total=2 + gamma * (1 if domain == "a" else -1),
        )
        for domain in "ab"
        for i, gamma in enumerate(draw.uniform(0.1, 9) for _ in range(20))
    ]
    found = {(c.domain, c.path): c for c in gamma_correlations(cells)}
    assert found["a", "total"].estimate.value == pytest.approx(1.0)
    assert found["b", "total"].estimate.value == pytest.approx(-1.0)
    assert abs(found["all", "total"].estimate.value) < 0.9
    assert (found["all", "by ReLU"].layers, found["all", "by ReLU"].models) == (40, 10)
    assert {c.domain for c in gamma_correlations(cells[:20])} == {"all"}


def test_cells_of_records_and_rows():
    records = make_grid(models=["gpt2"], layers=[0, 1], arms=["raw", "centered"], seeds=[0, 1])
    cells = layers_of_records(records)
    assert len(cells) == 2
    raw = [r for r in records if r.spec.layer == 0 and r.spec.arm == "raw"]
    assert cells[0].gamma == pytest.approx(raw[0].result.statistics.gamma)
    expected = sum(percent(r, r.result.death_init.dead) for r in raw) / 2
    assert cells[0].total == pytest.approx(expected)
    full = row("a", 0, gamma=1.0, dead_pct_init_relu=2.0, dead_pct_init_topk=3.0)
    assert layers_of_rows([full, row("b", 0, gamma=1.0)]) == [
        LayerDeath("a", "language", 1.0, 2.0, 3.0)
    ]


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
        ("model,layer,gamma\n,1,2\n", "line 2: no model is named"),
    ],
)
def test_a_file_that_is_no_such_table(tmp_path, text, message):
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_table(path, INIT_QUANTITIES)
    assert message in str(caught.value)


def test_swapped_tables_are_noticed(tmp_path):
    init = write_table(tmp_path, "gpt2,1,768,0.5,0.4,300.5,1.25,0,0.1,language")
    trained = tmp_path / "trained.csv"
    header = ",".join(quantity.column for quantity in TRAINED_QUANTITIES)
    trained.write_text(f"model,layer,{header},domain\nGPT-2,6,1,2,3,4,5,6,language\n")
    assert len(read_table(init, INIT_QUANTITIES)) == len(read_table(trained, TRAINED_QUANTITIES))
    for path, quantities, option in (
        (init, TRAINED_QUANTITIES, "--init-stats"),
        (trained, INIT_QUANTITIES, "--trained"),
    ):
        with pytest.raises(UsageError) as caught:
            read_table(path, quantities)
        assert str(caught.value) == f"{path} is the table of {option}. Say {option} {path}."


def test_a_binary_file_and_an_absent_one(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00\x9d" * 9)
    with pytest.raises(UsageError, match="is not a CSV file"):
        read_table(tmp_path / "x.csv", INIT_QUANTITIES)
    with pytest.raises(UsageError, match=r"cannot read .* \(No such file"):
        read_table(tmp_path / "y.csv", INIT_QUANTITIES)


def test_the_command(bench, tmp_path):
    records = make_grid(models=["gpt2"], layers=[0, 1, 2, 3], arms=["raw", "centered"])
    write_records(tmp_path / "runs", records)
    rows = [f"gpt2,{layer},768,{layer},0.4,300.5,12.5,0,1,language" for layer in (1, 2, 3, 4, 5, 7)]
    table = write_table(tmp_path, *rows, "gpt5,0,1,1,1,1,1,1,1,language")
    code, out, _ = bench("compare-paper", "--init-stats", str(table))
    assert code == 0
    assert "at initialisation: 4 layers matched" in out
    assert "note: their layer l is read as our layer l-1" in out
    assert "note: N is" in out
    assert "not measured here: 2 rows: gpt2 5, 7" in out
    assert "unknown here: 1 rows: gpt5 0" in out
    assert "0.914" in out
    assert "0.89" in out
    assert "predicted from two numbers of a row, against the row" in out
    assert "5.65 points in-sample, and 9.75 without" in out
    code, out, _ = bench("compare-paper", "--init-stats", str(table), "--json")
    document = json.loads(out)
    found = document["tables"]["at initialisation"]
    gammas = [pair for pair in found["pairs"] if pair["column"] == "gamma"]
    assert [(p["layer"], p["paper_layer"], p["theirs"]) for p in gammas] == [
        (0, 1, 1), (1, 2, 2), (2, 3, 3), (3, 4, 4)
    ]  # fmt: skip
    assert all(p["difference"] == p["ours"] - p["theirs"] for p in found["pairs"])
    assert [row["model"] for row in found["unmatched"]] == ["gpt2", "gpt2", "gpt5"]
    assert document["correlations"]["theirs"][0]["layers"] == 7
    offset = ["--layer-offset", "0", "--match", "gpt5=gpt2"]
    code, out, _ = bench("compare-paper", "--init-stats", str(table), *offset)
    assert code == 0
    assert "note: their layer l is read as our layer l\n" in out
    assert "unknown here" not in out


def test_both_tables(bench, tmp_path):
    write_records(tmp_path / "runs", make_grid(models=["gpt2"], layers=[3], arms=["raw"]))
    trained = tmp_path / "trained.csv"
    trained.write_text("model,layer,dead_pct_init_baseline,dead_pct_final_baseline\nGPT-2,4,4,0\n")
    table = write_table(tmp_path, "gpt2,4,768,0.5,0.4,300.5,1.25,0,,language")
    code, out, _ = bench("compare-paper", "--init-stats", str(table), "--trained", str(trained))
    assert code == 0
    assert "at initialisation: 1 layer matched" in out
    assert "trained: 1 layer matched" in out
    assert "none: fewer than ten layers" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no table is given. Give --init-stats FILE, --trained FILE or both."),
        (["--init-stats", "no.csv"], "cannot read no.csv (No such file or directory)"),
        (["--init-stats", "t.csv", "--match", "gpt2"], "--match 'gpt2' is not THEIRS=OURS"),
        (["--init-stats", "t.csv", "--output", "empty"], "no records in empty"),
        (
            ["--init-stats", "table.csv", "--match", "gtp2=gpt2"],
            "unknown model of the tables 'gtp2'",
        ),
        (
            ["--init-stats", "table.csv", "--match", "gpt2=gtp2"],
            "unknown model of the records 'gtp2'",
        ),
        (["--trained", "table.csv"], "table.csv is the table of --init-stats"),
    ],
)
def test_bad_requests(bench, tmp_path, arguments, message):
    write_records(tmp_path / "runs", make_grid(models=["gpt2"], layers=[0], arms=["raw"]))
    (tmp_path / "table.csv").write_text("model,layer,gamma\ngpt2,1,0.5\n")
    code, out, err = bench("compare-paper", *arguments)
    assert code == 2
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
