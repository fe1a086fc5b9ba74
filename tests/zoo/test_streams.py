"""A corpus that is streamed: every format alike, resumed anywhere, each example once."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import tarfile
import tempfile
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from zoo.corpora import Corpus, FiniteCorpus, file_corpus
from zoo.errors import BadCorpus, UsageError
from zoo.pictures import PackedPicture, read_image
from zoo.streams import StreamedCorpus, chunks, readers, storage
from zoo.streams import corpus as corpus_of_streams

ROWS = [f"passage {i} {'é' * (i % 40)}." for i in range(120)]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing fits in memory, and a chunk is 256 bytes."""
    monkeypatch.setattr(storage, "IN_MEMORY_BYTES", -1)
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 256)


def _lines(rows: list[str], key: str = "text") -> bytes:
    return "".join(json.dumps({key: row}, ensure_ascii=False) + "\n" for row in rows).encode()


def _zst(path: Path, data: bytes) -> None:
    with pa.CompressedOutputStream(str(path), "zstd") as file:
        file.write(data)


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    """Writes a tar, packed if its name says so."""
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def _documents(path: Path, rows: list[str]) -> None:
    write_tar(path, {f"{i:04}.txt": row.encode() for i, row in enumerate(rows)})


def _jsons(path: Path, rows: list[str]) -> None:
    write_tar(path, {f"{i:04}.json": _lines([row]) for i, row in enumerate(rows)})


def _table(path: Path, rows: list[str]) -> None:
    pq.write_table(pa.table({"text": rows}), path, row_group_size=50)


def _delimited(rows: list[str], separator: str = ",") -> bytes:
    """A table whose first column holds what has to be in quotes."""
    file = io.StringIO(newline="")
    cells = [["n\n1", "text"], *([f'{i}"\n{separator}', row] for i, row in enumerate(rows))]
    csv.writer(file, delimiter=separator).writerows(cells)
    return file.getvalue().encode()


WRITERS: dict[str, Callable[[Path, list[str]], Any]] = {
    "a.jsonl": lambda path, rows: path.write_bytes(_lines(rows)),
    "bom.jsonl": lambda path, rows: path.write_bytes(b"\xef\xbb\xbf" + _lines(rows)),
    "a.jsonl.gz": lambda path, rows: path.write_bytes(gzip.compress(_lines(rows))),
    "a.jsonl.zst": lambda path, rows: _zst(path, _lines(rows)),
    "a.txt": lambda path, rows: path.write_text("\n\n".join(rows), encoding="utf-8"),
    "a.csv": lambda path, rows: path.write_bytes(_delimited(rows)),
    "bom.csv": lambda path, rows: path.write_bytes(b"\xef\xbb\xbf" + _delimited(rows)),
    "a.tsv.gz": lambda path, rows: path.write_bytes(gzip.compress(_delimited(rows, "\t"))),
    "a.csv.zst": lambda path, rows: _zst(path, _delimited(rows)),
    "a.parquet": _table,
    "a.tar": _documents,
    "a.tar.gz": _documents,
    "json.tar": _jsons,
}


def _streamed(path: Path, kind: str = "text") -> StreamedCorpus:
    corpus = file_corpus(path, kind)
    assert isinstance(corpus, StreamedCorpus)
    return corpus


def _take(items: Iterator[Any], count: int) -> list[Any]:
    return list(itertools.islice(items, count))


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_every_example_once_and_goes_on_anywhere(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    WRITERS[name](path, ROWS)
    corpus = _streamed(path)
    order = list(corpus.examples(seed=3))
    assert Counter(order) == Counter(ROWS)
    assert order != ROWS
    assert order != list(corpus.examples(seed=4))
    training = _take(corpus.training(3, skip=20), 250)
    assert training[:100] == order[20:]
    # The next epochs leave out the evaluated examples too, in orders of their own.
    assert Counter(training[:100]) == Counter(training[100:200])
    assert training[:100] != training[100:200]
    for start in (0, 1, 57, 99, 100, 101, 180, 230):
        assert _take(corpus.training(3, 20, start), 9) == training[start : start + 9]
        assert _take(_streamed(path).training(3, 20, start), 9) == training[start : start + 9]


def test_going_on_reads_nothing_of_what_was_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        WRITERS["a.jsonl"](tmp_path / f"{number}.jsonl", [f"{number} {row}" for row in ROWS[:5]])
    corpus = _streamed(tmp_path)
    training = _take(corpus.training(0, 10), 190)
    state = json.loads(json.dumps(corpus.state_dict()))
    opened = []
    chunks_of = chunks.Range.chunks

    def watched(self: chunks.Range, place: int = 0) -> Any:
        opened.append((self.file.name, self.number))
        return chunks_of(self, place)

    monkeypatch.setattr(chunks.Range, "chunks", watched)
    again = _streamed(tmp_path)
    again.load_state_dict(state)
    assert _take(again.training(0, 10, 150), 4) == training[150:154]
    units = sum(len(reader.units) for reader in again._find())
    assert len(opened) < units / 2


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=5),
    seed=st.integers(0, 5),
    start=st.integers(0, 60),
    packed=st.booleans(),
)
def test_each_example_is_read_once_from_any_start(
    sizes: list[int], seed: int, start: int, packed: bool
) -> None:
    rows = [[f"{file}/{i}" for i in range(size)] for file, size in enumerate(sizes)]
    with tempfile.TemporaryDirectory() as folder:
        for number, content in enumerate(rows):
            name = f"{number}.jsonl.gz" if packed else f"{number}.jsonl"
            WRITERS["a.jsonl.gz" if packed else "a.jsonl"](Path(folder) / name, content)
        corpus = _streamed(Path(folder))
        everything = list(itertools.chain(*rows))
        if not everything:
            return
        found = list(corpus.examples(seed))
        assert Counter(found) == Counter(everything)
        assert list(corpus.examples(seed, start)) == found[start:]


# ----------------------------------------------------------------------------------- sequences


def _fasta(rows: list[str], width: int = 30) -> str:
    def lines(row: str) -> str:
        return "\n".join(row[i : i + width] for i in range(0, len(row), width))

    return "".join(f">s{i} of many\n{lines(row)}\n" for i, row in enumerate(rows))


@pytest.mark.parametrize("packed", [False, True])
def test_proteins_are_whole_however_a_file_is_cut(packed: bool, tmp_path: Path) -> None:
    rows = ["MKV" * (1 + i % 200) for i in range(60)] + ["MKVJ*"]
    data = _fasta(rows).encode()
    path = tmp_path / ("a.fasta.gz" if packed else "a.fasta")
    path.write_bytes(gzip.compress(data) if packed else data)
    corpus = _streamed(path, "protein")
    assert Counter(corpus.examples(0)) == Counter([*rows[:-1], "MKVX"])
    assert sorted(corpus.notes) == [
        "1 letters J read as X",
        "1 letters X, B, Z, U or O left to the tokenizer",
        "1 with a stop at the end, taken off",
    ]


@pytest.mark.parametrize("width", [30, 10**6])
def test_a_genome_is_cut_into_parts_that_are_all_of_it(width: int, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = ["".join(random.choice(list("ACGTacgt"), size)) for size in (2000, 3, 900)]
    (tmp_path / "a.fa").write_text(_fasta(rows, width))
    corpus = _streamed(tmp_path / "a.fa", "dna")
    keys = sorted(corpus._epoch(0, 0, 0))
    assert "".join(item for _, item in keys) == "".join(rows).upper()
    assert max(len(item) for _, item in keys) < 2 * 256


def test_what_is_wrong_is_named_by_its_place(tmp_path: Path) -> None:
    (tmp_path / "a.fa").write_text(_fasta(["ACGT" * 100, "AC-GT"]))
    with pytest.raises(BadCorpus, match=r"a\.fa, s1: '-' at position 3 is not a letter of DNA"):
        list(_streamed(tmp_path / "a.fa", "dna").examples(0))
    (tmp_path / "b.fa").write_text("ACGT\n")
    with pytest.raises(BadCorpus, match=r"b\.fa is not FASTA"):
        list(_streamed(tmp_path / "b.fa", "dna").examples(0))
    (tmp_path / "a.jsonl").write_bytes(_lines(ROWS) + b'{"other": 1}\n')
    with pytest.raises(BadCorpus, match=r"a\.jsonl, from byte \d+, line \d+: not a JSON object"):
        list(_streamed(tmp_path / "a.jsonl").examples(0))
    (tmp_path / "wide.jsonl").write_text('{"text": "a"}', encoding="utf-16")
    with pytest.raises(BadCorpus, match="is UTF-16; a file as large as this"):
        list(_streamed(tmp_path / "wide.jsonl").examples(0))
    (tmp_path / "bad.jsonl").write_bytes(b'{"text": "a"}\n{"text": "\xff"}\n')
    with pytest.raises(BadCorpus, match=r"bad\.jsonl is not UTF-8 text \(byte 24\)"):
        list(_streamed(tmp_path / "bad.jsonl").examples(0))
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(_lines(ROWS))[:-30])
    with pytest.raises(BadCorpus, match=r"cut\.jsonl\.gz cannot be read"):
        list(_streamed(tmp_path / "cut.jsonl.gz").examples(0))
    packed = pa.compress(_lines(ROWS), "zstd", asbytes=True)
    for name, data in {"cut": packed[:-3], "more": packed + b"rest", "plain": _lines(ROWS)}.items():
        (tmp_path / f"{name}.jsonl.zst").write_bytes(data)
        with pytest.raises(BadCorpus, match=rf"{name}\.jsonl\.zst cannot be read"):
            list(_streamed(tmp_path / f"{name}.jsonl.zst").examples(0))


@pytest.mark.parametrize("broken", [slice(1124, None), slice(1024, 1536)])
def test_a_tar_whose_later_header_is_cut_or_broken_is_no_shorter_corpus(
    broken: slice, tmp_path: Path
) -> None:
    write_tar(tmp_path / "a.tar", {f"{i}.txt": b"a passage" for i in range(4)})
    data = bytearray((tmp_path / "a.tar").read_bytes())
    data[broken] = b"" if broken.stop is None else b"x" * 512
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(BadCorpus, match=r"a\.tar cannot be read \(a member's header: "):
        list(_streamed(tmp_path / "a.tar").examples(0))


@pytest.mark.parametrize("packed", [False, True])
def test_a_tar_that_is_cut_between_two_members_is_no_shorter_corpus(
    packed: bool, tmp_path: Path
) -> None:
    whole, path = tmp_path / "whole.tar", tmp_path / ("a.tar.gz" if packed else "a.tar")
    write_tar(whole, {f"{i}.txt": b"a passage" for i in range(4)})
    data = whole.read_bytes()[: 2 * 1024]  # of a header and the content's block each
    path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(BadCorpus, match=r"it ends after a member, without an end of archive"):
        list(_streamed(path).examples(0))
    # One empty block is an end; some writers leave the second out.
    path.write_bytes(gzip.compress(data + bytes(512)) if packed else data + bytes(512))
    assert sorted(_streamed(path).examples(0)) == ["a passage"] * 2


def test_broken_documents_of_a_tar_are_left_out(tmp_path: Path) -> None:
    members = {"a.json": b"{no", "b.txt": b"\xff\xfea", "c.txt": b"a passage"}
    write_tar(tmp_path / "a.tar", members)
    with pytest.raises(BadCorpus, match=r"a\.json is not JSON"):
        list(_streamed(tmp_path / "a.tar").examples(0))
    corpus = file_corpus(tmp_path / "a.tar", "text", skip_bad=2)
    assert list(corpus.examples(0)) == ["a passage"]
    assert corpus.notes == ["2 broken, left out"]


def test_a_record_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "LONGEST_RECORD", 1 << 17)
    (tmp_path / "a.jsonl").write_text('{"text": "' + "a" * (1 << 19))
    with pytest.raises(BadCorpus, match="longer than 131,072 bytes"):
        list(_streamed(tmp_path / "a.jsonl").examples(0))


# ------------------------------------------------------------------------------------ pictures


def _png(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((4, 5, 3), number, np.uint8)).save(file, "PNG")
    return file.getvalue()


def _write_pictures(folder: Path, form: str, broken: tuple[int, ...] = ()) -> None:
    pictures = {f"{i:02}.png": b"broken" if i in broken else _png(i) for i in range(30)}
    if form == "tar":
        write_tar(folder / "a.tar", pictures | {"00.cls": b"3", "._00.png": b"no picture"})
    elif form == "parquet":
        column = [{"bytes": data, "path": name} for name, data in pictures.items()]
        pq.write_table(pa.table({"image": column}), folder / "a.parquet", row_group_size=7)
    else:
        for name, data in pictures.items():
            (folder / name).write_bytes(data)


@pytest.mark.parametrize("large", [True, False])
@pytest.mark.parametrize("form", ["tar", "parquet", "folder"])
def test_pictures_are_read_from(
    form: str, large: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not large:
        monkeypatch.setattr(storage, "IN_MEMORY_BYTES", 1 << 20)
    _write_pictures(tmp_path, form)
    corpus = file_corpus(tmp_path, "image")
    assert isinstance(corpus, StreamedCorpus) == (large and form != "folder")
    found = list(corpus.examples(1))
    assert {picture.shape for picture in found} == {(4, 5, 3)}
    assert sorted(int(picture[0, 0, 0]) for picture in found) == list(range(30))
    assert corpus.fingerprint() == file_corpus(tmp_path, "image").fingerprint()


@pytest.mark.parametrize("form", ["tar", "parquet"])
def test_pictures_are_decoded_once_to_find_what_is_broken(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_pictures(tmp_path, form, broken=(3,))
    seen: list[str] = []

    def counted(picture: PackedPicture) -> Any:
        seen.append(picture.where)
        return read_image(picture)

    for module in (readers, corpus_of_streams):
        monkeypatch.setattr(module, "read_image", counted)
    streamed = file_corpus(tmp_path, "image", skip_bad=1)
    assert sum(1 for _ in streamed.drawn(0)) == 29
    assert len(seen) == 30
    assert sum(1 for _ in streamed.drawn(0)) == 29
    assert (len(seen), streamed.notes) == (30, ["1 broken, left out"])
    monkeypatch.setattr(storage, "IN_MEMORY_BYTES", 1 << 20)
    seen.clear()
    for decoded in (30, 31):  # only what is broken is looked at again
        small = file_corpus(tmp_path, "image", skip_bad=1)
        assert sum(1 for _ in small.drawn(0)) == 29
        assert (len(seen), small.notes) == (decoded, ["1 broken, left out"])


def test_a_column_of_pictures_is_refused_where_there_are_only_files(tmp_path: Path) -> None:
    _write_pictures(tmp_path, "folder")
    with pytest.raises(UsageError, match="column 'x' is asked for"):
        file_corpus(tmp_path, "image", column="x")


# -------------------------------------------------------------------- memory and fingerprints


@pytest.mark.parametrize("kind", ["text", "dna"])
def test_memory_does_not_grow_with_the_corpus(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 1 << 14)
    peaks = []
    for size in (1, 4):
        path = tmp_path / f"{size}{'.jsonl' if kind == 'text' else '.fa'}"
        if kind == "text":
            path.write_bytes(_lines(["word " * 100]) * 2000 * size)
        else:
            path.write_text(_fasta(["ACGT" * 200_000] * size, 80))
        corpus = _streamed(path, kind)
        tracemalloc.start()
        assert sum(len(example) for example in corpus.examples(0)) > size * 700_000
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0] + 200_000
    assert peaks[1] < 3_000_000


def test_a_digest_of_large_data_follows_names_sizes_and_sampled_content(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(_lines(ROWS))
    first = _streamed(tmp_path).fingerprint()
    path.touch()
    assert _streamed(tmp_path).fingerprint() == first
    path.write_bytes(_lines([*ROWS[:-1], ROWS[-1].replace("passage", "message")]))
    changed = _streamed(tmp_path).fingerprint()
    path.rename(tmp_path / "b.jsonl")
    assert len({first, changed, _streamed(tmp_path).fingerprint()}) == 3


def test_small_corpora_are_read_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "IN_MEMORY_BYTES", 1 << 20)
    for name in ("a.jsonl", "a.jsonl.zst", "a.csv", "a.tsv.gz", "a.csv.zst", "a.tar"):
        WRITERS[name](tmp_path / name, ROWS)
        corpus: Corpus = file_corpus(tmp_path / name, "text")
        assert isinstance(corpus, FiniteCorpus)
        assert corpus.items == ROWS
