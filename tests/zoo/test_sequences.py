"""Sequences are read by stated rules, which are counted, and what is none is refused."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from zoo import sequences
from zoo.cards import CorpusCard
from zoo.corpora import file_corpus, open_corpus
from zoo.errors import BadCorpus
from zoo.fasta import SequenceRow, read_fasta
from zoo.sequences import pieces, read_rows
from zoo.tally import Tally


def read_sequences(rows: Iterable[SequenceRow], kind: str) -> tuple[list[str], list[str]]:
    """The sequences, and what the rules did, in words."""
    did = Tally()
    return read_rows(rows, kind, did), did.notes()


def _fasta(path: Path, *records: str) -> Path:
    path.write_text("".join(f">s{i} of something\n{r}\n" for i, r in enumerate(records)))
    return path


def test_proteins_are_read_by_the_rules_and_counted(tmp_path: Path) -> None:
    path = _fasta(tmp_path / "a.fa", "MKVJ*", "mkX\nBZ", "")
    found, told = read_sequences(read_fasta(path), "protein")
    assert found == ["MKVX", "MKXBZ"]
    assert told == [
        "1 with a stop at the end, taken off",
        "1 letters J read as X",
        "4 letters X, B, Z, U or O left to the tokenizer",
        "1 in lower case, read as capitals",
        "1 without letters, left out",
    ]


def test_dna_is_read_by_the_rules_and_counted(tmp_path: Path) -> None:
    path = _fasta(tmp_path / "a.fa", "ACGTRYACGTACGTACGTAC", "acguACGTAC", "ANNNACGT")
    found, told = read_sequences(read_fasta(path), "dna")
    assert found == ["ACGTNNACGTACGTACGTAC", "ACGTACGTAC"]
    assert told == [
        "1 letters U read as T",
        "2 ambiguous letters read as N",
        "1 in lower case, read as capitals",
        "1 more than 10% N, left out",
    ]


def test_contigs_keep_their_case(tmp_path: Path) -> None:
    path = _fasta(tmp_path / "a.fa", "<+>MKV*<->acgtn<+>LL*")
    assert read_sequences(read_fasta(path), "protein") == (
        ["<+>MKV<->acgtn<+>LL"],
        ["2 with a stop at the end, taken off"],
    )
    inside = _fasta(tmp_path / "c.fa", "<+>MK*V*<->acg")
    with pytest.raises(
        BadCorpus, match=r"c\.fa, s0: '\*' at position 6 is not a letter of contigs"
    ):
        read_sequences(read_fasta(inside), "protein")
    bad = _fasta(tmp_path / "b.fa", "<+>MKV<->acgz")
    with pytest.raises(BadCorpus, match=r"s0: 'z' at position 13 is not a letter of contigs"):
        read_sequences(read_fasta(bad), "protein")


@pytest.mark.parametrize(
    ("kind", "sequence", "says"),
    [
        ("protein", "MK-V", "s0: '-' at position 3 is not a letter of proteins. Gaps of an align"),
        ("protein", "MK*V", "s0: '*' at position 3 is not a letter of proteins. A stop within"),
        ("dna", "ACGEF", "s0: 'E' at position 4 is not a letter of DNA"),
        ("protein", "MKß", "s0: 'ß' at position 3"),
        ("protein", "Mﬁ", "s0: 'ﬁ' at position 2"),
    ],
)
def test_a_letter_that_is_none_is_named(
    kind: str, sequence: str, says: str, tmp_path: Path
) -> None:
    with pytest.raises(BadCorpus) as caught:
        read_sequences(read_fasta(_fasta(tmp_path / "a.fa", sequence)), kind)
    assert says in str(caught.value)


def test_long_sequences_are_cut_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequences, "PIECE", 10)
    for length in (1, 9, 10, 11, 14, 15, 20, 24, 25, 34):
        sequence = "".join("ACGT"[i % 4] for i in range(length))
        cut = pieces(sequence)
        assert "".join(cut) == sequence
        assert all(5 <= len(piece) < 15 for piece in cut) or len(cut) == 1


def test_regions_of_a_genome(tmp_path: Path) -> None:
    genome = tmp_path / "genome.fa.gz"
    with gzip.open(genome, "wt") as file:
        file.write(">chr1 first\nACGTAC\nGTTT\n>chr2\nGGGAAACCC\n")
    bed = tmp_path / "r.bed"
    bed.write_text("track x\nchr2\t3\t7\tn\t0\t-\nchr1\t0\t5\n\nchr1\t5\t10\n")
    corpus = file_corpus(genome, "dna", regions=bed)
    assert corpus.items == ["GTTT", "ACGTA", "CGTTT"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("chr3\t0\t4", "the genome has no sequence 'chr3'. Names must agree"),
        ("chr1\t0\t40", "chr1:0-40 is after the end of chr1, 10"),
        ("chr1 0 4", "line 1: not a region"),
        ("chr1\t4\t4", "line 1: not a region"),
        ("chr1\t0\t4\nchr1\t3\t6", "chr1:3-6 overlaps another region"),
        ("chr1\t1_0\t4", "line 1: not a region"),
        ("chr1\t-1\t4", "line 1: not a region"),
        ("\t0\t4", "line 1: not a region"),
        ("chr1\t0\t4\tn\t0\t- ", "line 1: '- ' is not a strand. The sixth field of BED is"),
        ("chr1\t0\t4\tn\t0\t-1", "'-1' is not a strand"),
        ("chr1\t0\t4\tn\t0\tminus", "'minus' is not a strand"),
        ("chr1\t0\t4\tn\t0\tfoo", "'foo' is not a strand"),
        ("chr1\t0\t4\tn\t0\t", "'' is not a strand"),
        ("# nothing", "names no region"),
    ],
)
def test_a_bad_region_is_named(line: str, says: str, tmp_path: Path) -> None:
    genome = tmp_path / "g.fa"
    genome.write_text(">chr1\nACGTACGTTT\n")
    (tmp_path / "r.bed").write_text(line + "\n")
    with pytest.raises(BadCorpus) as caught:
        next(file_corpus(genome, "dna", regions=tmp_path / "r.bed").examples(0))
    assert says in str(caught.value)


def test_what_the_rules_did_is_known_when_the_corpus_was_read(tmp_path: Path) -> None:
    corpus = file_corpus(_fasta(tmp_path / "a.fa", "MKVJ", "AAA"), "protein")
    assert corpus.notes == []
    corpus.fingerprint()
    assert corpus.notes == [
        "1 letters J read as X",
        "1 letters X, B, Z, U or O left to the tokenizer",
    ]


def test_columns_and_folders(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": ["one", None, "two"], "n": [1, 2, 3]}), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": "three"}) + "\n")
    assert sorted(file_corpus(tmp_path, "text").examples(0)) == ["one", "three", "two"]
    for column, says in (
        ("x", "has no column 'x'. Name one of these with --column: text."),
        ("n", "not text"),
    ):
        with pytest.raises(BadCorpus) as caught:
            next(file_corpus(tmp_path / "a.parquet", "text", column=column).examples(0))
        assert says in str(caught.value)
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(BadCorpus, match=r"a\.parquet cannot be read"):
        next(file_corpus(tmp_path / "a.parquet", "text").examples(0))


def test_sequences_in_a_column_follow_the_same_rules(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"sequence": "mkv*"}\n{"sequence": "M1"}\n')
    with pytest.raises(BadCorpus, match=r"a\.jsonl, line 2: '1' at position 2 is not a letter"):
        next(file_corpus(path, "protein").examples(0))


def test_a_corpus_card_is_relative_to_its_folder(tmp_path: Path) -> None:
    card = CorpusCard(id="mine", summary="x", kind="protein", source="file", path="a.fa")
    card._folder = tmp_path
    _fasta(tmp_path / "a.fa", "MKV")
    assert list(open_corpus(card).examples(0)) == ["MKV"]
    with pytest.raises(ValueError, match="source 'hub' needs the key 'revision'"):
        CorpusCard(id="x", summary="x", kind="text", source="hub", hub="a/b", path="*.parquet")
