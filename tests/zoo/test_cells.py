"""Cells as lists of token ids: one reader for all formats, and clear words for what is none."""

from __future__ import annotations

import gzip
import json
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zoo.corpora import Corpus, file_corpus
from zoo.corpus_choice import choose_corpus
from zoo.errors import BadCorpus, UsageError
from zoo.registry import load_registry
from zoo.streams import StreamedCorpus, chunks, storage

RANDOM = np.random.default_rng()
CELLS = [RANDOM.integers(4, 20275, RANDOM.integers(1, 40)).tolist() for _ in range(60)]


def _lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps({"n": 1, "input_ids": row}) + "\n" for row in rows).encode()


def _table(rows: list[Any], ids: Any = None) -> pa.Table:
    column = pa.array(rows, ids or pa.list_(pa.int64()))
    return pa.table({"input_ids": column, "length": [len(row or ()) for row in rows]})


def _stream(path: Path, table: pa.Table, rows: int = 7) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)


def _file(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)


WRITERS: dict[str, Callable[[Path, list[Any]], Any]] = {
    "a.jsonl": lambda path, rows: path.write_bytes(_lines(rows)),
    "a.jsonl.gz": lambda path, rows: path.write_bytes(gzip.compress(_lines(rows))),
    "a.parquet": lambda path, rows: pq.write_table(_table(rows), path, row_group_size=25),
    "large.parquet": lambda path, rows: pq.write_table(
        _table(rows, pa.large_list(pa.int32())), path
    ),
    "data-00000-of-00001.arrow": lambda path, rows: _stream(path, _table(rows)),
    "file.arrow": lambda path, rows: _file(path, _table(rows, pa.list_(pa.uint16()))),
}


@pytest.fixture(params=WRITERS)
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[list[Any]], Path]:
    """Writes rows in one of the formats, and gives the folder as the `datasets` library has it."""

    def write(rows: list[Any]) -> Path:
        folder = tmp_path / "cells.dataset"
        folder.mkdir()
        (folder / "state.json").write_text("{}")
        _stream(folder / "cache-1.arrow", _table([[9, 9]]))
        WRITERS[request.param](folder / request.param, rows)
        return folder

    return write


def _read(corpus: Corpus) -> list[list[int]]:
    return sorted(list(cell) for cell in corpus.examples(seed=0))


def test_every_format_gives_the_same_cells(written: Callable[[list[Any]], Path]) -> None:
    corpus = file_corpus(written([*CELLS, [], *CELLS[:2]]), "cell")
    assert _read(corpus) == sorted([*CELLS, *CELLS[:2]])
    assert corpus.notes == ["1 cells without genes, left out"]
    assert all(type(cell) is array for cell in corpus.examples(seed=0))


def test_what_is_large_is_streamed_and_goes_on_anywhere(
    written: Callable[[list[Any]], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "IN_MEMORY_BYTES", -1)
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 1 << 10)
    monkeypatch.setattr("zoo.streams.corpus.DRAW_CHUNKS", 2)
    folder = written(CELLS)
    corpus = file_corpus(folder, "cell")
    assert isinstance(corpus, StreamedCorpus)
    assert _read(corpus) == sorted(CELLS)
    whole = list(corpus.examples(seed=3))
    fresh = file_corpus(folder, "cell")
    fresh.load_state_dict(corpus.state_dict())
    assert list(fresh.examples(seed=3, start=41)) == whole[41:]


BAD: dict[str, tuple[Any, str]] = {
    "genes by name": (["ENSG00000000003"], r'"ENSG00000000003" at position 1 is not a token id'),
    "a string": ("5 6", r"a list of token ids is needed, not str"),
    "a fraction": ([5, 2.5], r"2\.5 at position 2 is not a token id\. Ids are whole numbers"),
    "below 0": ([5, 6, -1], r"-1 at position 3 is not a token id"),
    "a truth value": ([True], r"true at position 1 is not a token id"),
    "nothing": ([5, None], r"null at position 2 is not a token id"),
    "a list": ([[5]], r"\[5\] at position 1 is not a token id"),
    "too large": ([2**31], r"2147483648 at position 1 is not a token id"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_list_of_ids_is_named_with_its_place(name: str, tmp_path: Path) -> None:
    row, words = BAD[name]
    path = tmp_path / "a.jsonl"
    path.write_bytes(_lines([[5], row]))
    with pytest.raises(BadCorpus, match=rf"a\.jsonl, .*line 2: {words}"):
        _read(file_corpus(path, "cell"))
    left = file_corpus(path, "cell", skip_bad=1)
    assert _read(left) == [[5]]
    assert left.notes == ["1 broken, left out"]


def test_a_table_without_the_column_names_those_that_hold_lists(tmp_path: Path) -> None:
    table = pa.table({"input_ids": ["a"], "genes": [[1]], "scores": [[0.5]]})
    _stream(tmp_path / "a.arrow", table)
    pq.write_table(table.drop_columns(["input_ids"]), tmp_path / "a.parquet")
    with pytest.raises(
        BadCorpus, match=r"holds string, not lists of token ids\. .*column: genes\."
    ):
        _read(file_corpus(tmp_path / "a.arrow", "cell"))
    with pytest.raises(BadCorpus, match=r"has no column 'input_ids'\. .*column: genes\."):
        _read(file_corpus(tmp_path / "a.parquet", "cell"))
    assert _read(file_corpus(tmp_path / "a.parquet", "cell", column="genes")) == [[1]]
    (tmp_path / "a.jsonl").write_text('{"genes": [1]}\n')
    with pytest.raises(BadCorpus, match=r"list of token ids at the key 'input_ids'\. --column"):
        _read(file_corpus(tmp_path / "a.jsonl", "cell"))


def test_a_broken_file_and_one_of_another_format_are_refused(tmp_path: Path) -> None:
    _stream(tmp_path / "a.arrow", _table(CELLS))
    whole = (tmp_path / "a.arrow").read_bytes()
    for broken in (b"", b"no Arrow file at all", whole[: len(whole) // 2]):
        (tmp_path / "a.arrow").write_bytes(broken)
        with pytest.raises(BadCorpus, match=r"a\.arrow cannot be read"):
            _read(file_corpus(tmp_path / "a.arrow", "cell"))
    (tmp_path / "a.csv").write_text('input_ids\n"5 6"\n')
    with pytest.raises(BadCorpus, match=r"Give a file ending in \.arrow, \.jsonl, \.parquet"):
        _read(file_corpus(tmp_path / "a.csv", "cell"))


def test_models_of_dna_and_of_cells_do_not_read_each_others_corpora() -> None:
    registry = load_registry()
    for model, corpus, words in (
        ("nt-v2-500m", "cell-types", "cell-types is cell, and model 'nt-v2-500m' reads dna"),
        ("geneformer-v2-316m", "genomes", "genomes is dna, and model 'geneformer-v2-316m' reads"),
    ):
        with pytest.raises(UsageError, match=words):
            choose_corpus(registry, corpus).open(registry.card(model), registry)
