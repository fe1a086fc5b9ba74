"""The same sequences give the same corpus, whatever file they come in."""

from __future__ import annotations

import csv
import gzip
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo import sequences
from zoo.corpora import Corpus, file_corpus
from zoo.errors import BadCorpus, UsageError

# Letters and what stands among them, runs of N in particular, and what is no letter.
BASES = st.text("ACGTacgtuRyNn", min_size=1, max_size=40) | st.sampled_from(
    ["N" * 25, "ACGT" * 9, "ACGT" * 5 + "N" * 20 + "ACGT" * 5]
)
DNA = BASES | st.text("ACGTNn \t\r", max_size=30) | st.sampled_from(["", " ", "AC-GT", "ACß"])
PROTEINS = st.text("ACDEFGHIJKLMNPQRSTVWYXBZUOacx \r", max_size=20) | st.sampled_from(
    ["MKV*", "*", "M*V", "", "<+>MKV<->acgtn", "<+>MKz", "MK\u017f", "X" * 30]
)


def _fasta(path: Path, rows: list[str], encoding: str = "utf-8") -> None:
    # A record's letters are divided into lines, none of which begins like a record.
    lines = (f">s{i}\n{row[:7]}\n{row[7:]}\n" for i, row in enumerate(rows))
    path.write_text("".join(lines), encoding=encoding)


def _gzipped(path: Path, rows: list[str]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("".join(f">s{i}\n{row}\n" for i, row in enumerate(rows)))


def _jsonl(path: Path, rows: list[str], encoding: str = "utf-8") -> None:
    path.write_text(
        "".join(json.dumps({"sequence": row or None}) + "\n\n" for row in rows), encoding=encoding
    )


def _csv(path: Path, rows: list[str], encoding: str = "utf-8") -> None:
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file).writerows([("n", "sequence"), *enumerate(rows)])


def _parquet(path: Path, rows: list[str], kind: Any = None) -> None:
    column = pa.array([row or None for row in rows], kind or pa.string())
    pq.write_table(pa.table({"n": range(len(rows)), "sequence": column}), path)


WRITERS: dict[str, Callable[[Path, list[str]], None]] = {
    "a.fa": _fasta,
    "a.fa.gz": _gzipped,
    "bom.fasta": lambda path, rows: _fasta(path, rows, "utf-8-sig"),
    "wide.fasta": lambda path, rows: _fasta(path, rows, "utf-16"),
    "a.jsonl": _jsonl,
    "bom.jsonl": lambda path, rows: _jsonl(path, rows, "utf-8-sig"),
    "a.csv": _csv,
    "wide.csv": lambda path, rows: _csv(path, rows, "utf-16"),
    "a.parquet": _parquet,
    "large.parquet": lambda path, rows: _parquet(path, rows, pa.large_string()),
    "codes.parquet": lambda path, rows: _parquet(
        path, rows, pa.dictionary(pa.int32(), pa.string())
    ),
}


def _found(corpus: Callable[[], Corpus]) -> tuple[Any, Any]:
    """The examples and notes, or that it is refused."""
    try:
        opened = corpus()
        items = opened.items  # type: ignore[attr-defined]
    except BadCorpus as error:
        _, _, what = error.message.partition(": ")
        return what, None
    return items, opened.notes


@given(data=st.data(), kind=st.sampled_from(["dna", "protein"]))
def test_the_format_of_a_file_changes_nothing(data: st.DataObject, kind: str) -> None:
    rows = data.draw(st.lists(DNA if kind == "dna" else PROTEINS, min_size=1, max_size=6))
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(sequences, "PIECE", 16)
        found = {}
        for name, write in WRITERS.items():
            path = Path(folder) / name.replace(".", "-")
            path.mkdir()
            write(path / name, rows)
            found[name] = _found(lambda path=path: file_corpus(path, kind, "the corpus"))  # type: ignore[misc]
        first = found["a.fa"]
        assert all(other == first for other in found.values()), found


@given(rows=st.lists(BASES, min_size=1, max_size=5), split=st.booleans(), turned=st.booleans())
def test_regions_of_whole_sequences_are_the_sequences(
    rows: list[str], split: bool, turned: bool
) -> None:
    strand = "-" if turned else "+"
    bed = "".join(f"s{i}\t0\t{len(row)}\tx\t0\t{strand}\n" for i, row in enumerate(rows))
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(sequences, "PIECE", 16)
        genome = Path(folder) / "genome"
        genome.mkdir()
        names = [f">s{i}\n{row}\n" for i, row in enumerate(rows)]
        half = len(names) // 2 if split else 0
        (genome / "a.fa").write_text("".join(names[:half]), encoding="utf-8")
        (genome / "b.fa").write_text("".join(names[half:]), encoding="utf-8")
        (Path(folder) / "r.bed").write_text(bed)
        table = Path(folder) / "a.jsonl"
        _jsonl(table, [_turned(row) for row in rows] if turned else rows)
        regions = Path(folder) / "r.bed"
        by_region = _found(lambda: file_corpus(genome, "dna", "c", regions=regions))
        assert by_region[0] == _found(lambda: file_corpus(table, "dna", "c"))[0]


def _turned(row: str) -> str:
    return row.upper().translate(str.maketrans("ACGTURY", "TGCAAYR"))[::-1]


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    genome, bed = tmp_path / "g.fa", tmp_path / "r.bed"
    genome.write_text(">chr1\nAAAA\n>chr2\nCC\n>chr2\nGG\n>chr1\nTTTT\n")
    bed.write_text("chr1\t0\t2\n")
    with pytest.raises(BadCorpus, match=r"'chr1' is in .*g\.fa and again in .*g\.fa"):
        file_corpus(genome, "dna", regions=bed).fingerprint()


def test_rows_are_counted_from_the_file_they_stand_in(tmp_path: Path) -> None:
    rows = ["MKV", "", "", "MKV", "MK!"]
    _parquet(tmp_path / "a.parquet", rows)
    with pytest.raises(BadCorpus, match=r"a\.parquet, row 5: '!' at position 3"):
        file_corpus(tmp_path / "a.parquet", "protein").fingerprint()
    _jsonl(tmp_path / "a.jsonl", rows)
    with pytest.raises(BadCorpus, match=r"a\.jsonl, line 9: '!' at position 3"):
        file_corpus(tmp_path / "a.jsonl", "protein").fingerprint()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.txt").write_text("hello\n\nw\u00f6rld\n", encoding=encoding)
    assert file_corpus(tmp_path / "a.txt", "text").items == ["hello", "w\u00f6rld"]  # type: ignore[attr-defined]
    (tmp_path / "a.jsonl").write_text('{"text": "hello"}\n', encoding=encoding)
    assert file_corpus(tmp_path / "a.jsonl", "text").items == ["hello"]  # type: ignore[attr-defined]


# ---------------------------------------------------------------- options x kinds of corpus

FILES: dict[str, tuple[str, dict[str, str]]] = {
    "text.txt": ("text", {"a.txt": "words"}),
    "text.jsonl": ("text", {"a.jsonl": '{"text": "words", "other": "more"}'}),
    "protein.fa": ("protein", {"a.fa": ">chr1\nMKV\n"}),
    "protein.jsonl": ("protein", {"a.jsonl": '{"sequence": "MKV", "other": "LL"}'}),
    "dna.fa": ("dna", {"a.fa": ">chr1\nACGT\n"}),
    "dna.jsonl": ("dna", {"a.jsonl": '{"sequence": "ACGT", "other": "GG"}'}),
    "dna mixed": ("dna", {"a.fa": ">chr1\nACGT\n", "b.jsonl": '{"sequence": "A", "other": "G"}'}),
    "image": ("image", {"a.png": ""}),
}
HEARD = {
    ("text.jsonl", "column"): ["more"],
    ("protein.jsonl", "column"): ["LL"],
    ("dna.jsonl", "column"): ["GG"],
    ("dna.fa", "regions"): ["CG"],
    **{(name, "glob"): [] for name in FILES},
}


@pytest.mark.parametrize("option", ["column", "regions", "glob"])
@pytest.mark.parametrize("corpus", FILES)
def test_each_option_is_heard_or_refused(corpus: str, option: str, tmp_path: Path) -> None:
    kind, files = FILES[corpus]
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_text(content)
    (tmp_path / "r.bed").write_text("chr1\t1\t3\n")
    values = {"column": "other", "regions": tmp_path / "r.bed", "glob": "*.none"}
    options = {option: values[option]}
    if (corpus, option) not in HEARD:
        with pytest.raises(UsageError, match=f"^{option} "):
            file_corpus(folder, kind, **options).fingerprint()  # type: ignore[arg-type]
    elif HEARD[corpus, option]:
        opened: Any = file_corpus(folder, kind, **options)  # type: ignore[arg-type]
        assert opened.items == HEARD[corpus, option]
    else:
        with pytest.raises(BadCorpus, match="is empty"):
            file_corpus(folder, kind, **options).fingerprint()  # type: ignore[arg-type]
