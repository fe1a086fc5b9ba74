"""Nobody takes made data for real: each cell says which it is, wherever it is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

import tests.records
from bench.records.data_kind import data_of_record
from bench.records.schema import Record
from bench.records.store import RecordStore
from leaderboard import summary
from leaderboard.export import dictionary, flat_cells
from leaderboard.figures.pictures import pictures
from leaderboard.findings import sentences
from leaderboard.groups import group_records
from leaderboard.web.page import page_data
from tests.leaderboard.tables import render, tables
from zoo.cards import CorpusCard, data_of
from zoo.errors import BadCard
from zoo.registry import load_registry

REGISTRY = load_registry()
RESULTS = Path(__file__).parents[2] / "results"


def cells(model: str, said: str | None = None, **spec: object) -> list[Record]:
    provenance = tests.records.make_provenance(data=said)
    return tests.records.make_grid(models=[model], layers=[0], provenance=provenance, **spec)


@pytest.mark.parametrize(
    ("model", "corpus", "data"),
    [
        ("synthetic-gamma40", "draws", "made"),
        ("tiny-gpt2", "python-topics", "made"),
        ("tiny-gpt2", "openwebtext", "real"),
        ("tiny-gpt2", None, "real"),  # a file of the user's
    ],
)
def test_a_corpus_is_real_or_made_as_its_card_says(
    model: str, corpus: str | None, data: str
) -> None:
    card = None if corpus is None else REGISTRY.corpus(corpus)
    assert data_of(REGISTRY.card(model), card) == data


def test_a_card_of_files_may_say_that_they_were_made_and_no_generator_that_it_is_real() -> None:
    from zoo.cards import validate

    facts = {"id": "x", "summary": "x", "kind": "protein", "source": "file", "path": "a.fa"}
    assert validate(CorpusCard, facts, "x").data == "real"
    assert validate(CorpusCard, facts | {"data": "made"}, "x").data == "made"
    drawn = {**facts, "source": "generator", "generator": "proteins:families", "data": "real"}
    with pytest.raises(BadCard, match="source 'generator' makes its data; it is not real"):
        validate(CorpusCard, {k: v for k, v in drawn.items() if k != "path"}, "x")


@pytest.mark.parametrize(
    ("said", "spec", "data"),
    [
        ("real", {"corpus": "genomes"}, "real"),
        ("made", {"corpus": "my.fasta"}, "made"),
        (None, {"corpus": "genomes"}, "made"),
        (None, {"corpus": "my.fasta"}, "real"),
        (None, {"corpus": "draws", "domain": "synthetic"}, "made"),
        (None, {"corpus": "draws", "domain": "protein"}, "real"),  # activations of the user's
    ],
)
def test_a_record_says_it_or_its_spec_does(
    said: str | None, spec: dict[str, str], data: str
) -> None:
    record = tests.records.make_record(provenance=tests.records.make_provenance(data=said), **spec)
    assert data_of_record(record) == data


def test_committed_records_are_marked_as_the_registry_says() -> None:
    for record in RecordStore(RESULTS):
        card, corpus = REGISTRY.card(record.spec.model), REGISTRY.corpus(record.spec.corpus)
        assert data_of_record(record) == data_of(card, corpus), record.hash


def test_every_place_that_shows_a_model_says_it() -> None:
    records = [*cells("tiny-a", "made"), *cells("tiny-b", "real")]
    groups = group_records(records)
    pages = render(records)
    for table in (*tables(pages["README.md"]), *tables(pages["language.md"])):
        if "Model" in table.headers:
            shown = {row[table.headers.index("Model")]: row for row in table.rows}
            for name, row in shown.items():
                data = "made" if "tiny-a" in name else "real"
                assert row[table.headers.index("Data")] == data, table.heading
    assert "2 models on real data (1) and made data (1)" in pages["README.md"]
    assert "The model read **made data**: sample-text." in pages["models/tiny-a.md"]
    assert [model["data"] for model in page_data(groups)["models"]] == ["made", "real"]
    assert {row["spec.model"]: row["data"] for row in flat_cells(records)} == {
        "tiny-a": "made",
        "tiny-b": "real",
    }
    assert "| `data` " in dictionary()
    rows = [line.split()[:2] for line in summary(records, told=False).splitlines()[4:]]
    assert rows == [["tiny-a", "made"], ["tiny-b", "real"]]
    for text in sentences(groups):
        assert ("made data" in text) == ("tiny-a" in text)
        assert ("real data" in text) == ("tiny-b" in text)
    captions = {each.caption.rpartition("; ")[2] for each in pictures(groups)}
    assert captions == {"real data (1) and made data (1).", "made data.", "real data."}
