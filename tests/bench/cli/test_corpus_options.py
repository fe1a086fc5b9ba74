"""`--corpus` with `--column` and `--skip-bad`, as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.cli.functions import run_cells
from bench.plan.blocks import Request, make_plan
from bench.plan.protocol import load_protocol
from bench.records.store import RecordStore
from bench.runner.run import todo
from tests.records import make_record
from zoo.corpus_choice import CorpusChoice
from zoo.errors import BadCorpus, BadWeights
from zoo.registry import Registry

Bench = Callable[..., tuple[int, str, str]]


def test_broken_sequences_are_left_out_and_counted_in_the_record(
    bench: Bench, tiny: list[str], tmp_path: Path
) -> None:
    lines = (f">p{i}\n{'MK*L' if i in (3, 70) else 'MKVLAYGT' * (3 + i % 5)}*\n" for i in range(90))
    (tmp_path / "a.fa").write_text("".join(lines))
    run = ("run", "tiny-esm2", "--layer", "0", "--arm", "raw", "--corpus", "a.fa", *tiny)
    code, _, err = bench(*run)
    assert code == 2
    assert "a.fa, p3: '*' at position 3 is not a letter of proteins. A stop within" in err
    code, _, err = bench(*run, "--skip-bad", "1")
    assert code == 2
    assert "more than 1 of the examples are broken; the first: a.fa, p3: '*' at position 3" in err
    settings = dict(setting.split("=") for setting in tiny[1::2])
    run_cells(
        models="tiny-esm2", layers=0, arms="raw", corpus="a.fa", skip_bad=2, settings=settings
    )
    (path,) = Path("runs/records").rglob("*.json")
    provenance = json.loads(path.read_text())["provenance"]
    assert provenance["data"] == "real"
    notes = provenance["notes"]
    assert "corpus a.fa: 2 broken, left out" in notes
    assert "corpus a.fa: 88 with a stop at the end, taken off" in notes


def test_the_columns_of_a_table_are_cells_of_their_own(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = ({"text": f"a{i}", "title": f"b{i}", "same": f"a{i}"} for i in range(9))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    hashes, names = set(), []
    for column in (None, "text", "title", "same"):
        request = Request(
            [registry.card("tiny-gpt2")],
            load_protocol("quick"),
            [0],
            corpus=CorpusChoice(path, column),
        )
        (block,) = make_plan(request, registry)
        hashes.add(block.specs[0].hash)
        names.append(block.specs[0].corpus)
    assert names == ["a.jsonl", "a.jsonl", "a.jsonl:title", "a.jsonl:same"]
    assert len(hashes) == 3  # the usual column is the same, named or not


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--column body", "--column names a column of a table. Give the table with --corpus PATH."),
        ("--corpus python-topics --column body", "made by a program and has no columns. Leave"),
        (
            "--corpus a.txt --column body",
            "column 'body' is asked for, and a.txt is no table (.jsonl, .parquet, .csv, .tsv).",
        ),
        ("--skip-bad none", "not a whole number"),
    ],
)
def test_a_column_of_nothing_is_refused(
    arguments: str, says: str, bench: Bench, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo")
    code, _, err = bench("plan", "tiny-gpt2", *arguments.split())
    assert (code, says in err) == (2, True), err


def test_cells_that_failed_for_their_corpus_are_tried_again_without_what_is_broken(
    registry: Registry, tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n' * 9)
    request = Request(
        *([registry.card("tiny-gpt2")], load_protocol("quick"), [0, 1]),
        corpus=CorpusChoice(tmp_path / "a.jsonl"),
    )
    (block,) = make_plan(request, registry)
    store = RecordStore(tmp_path / "runs")
    errors = {0: BadCorpus("broken"), 1: BadWeights("broken")}
    for spec in block.specs:
        store.save(make_record(spec, errors[spec.layer]))
    assert todo([block], store)[0].pending == ()
    (again,) = todo([block], store, bad_corpus=True)
    assert {spec.layer for spec in again.pending} == {0}
