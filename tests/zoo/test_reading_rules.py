"""What a file says otherwise than expected: passages, columns, and what is broken."""

from __future__ import annotations

import csv
import io
import itertools
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from zoo import corpora, sound
from zoo.corpora import file_corpus
from zoo.errors import BadCorpus
from zoo.pictures import read_image
from zoo.streams import StreamedCorpus, chunks, storage
from zoo.texts import LONGEST_LINE, PASSAGE


@pytest.fixture(params=["in memory", "streamed"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways in which a corpus is read; the rules are the same."""
    if request.param == "streamed":
        monkeypatch.setattr(storage, "IN_MEMORY_BYTES", -1)
    return str(request.param)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GAMMABENCH_CACHE", str(tmp_path / "cache"))


def png(seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


# ------------------------------------------------------------------------------------ passages


def test_lines_are_gathered_where_no_blank_line_divides_a_text(place: str, tmp_path: Path) -> None:
    lines = [f"line {i} {'word ' * (i % 40)}end" for i in range(400)]
    path = tmp_path / "a.txt"
    path.write_text("\n".join(lines) + "\n\n")  # a blank line at the end divides nothing
    found = list(file_corpus(path, "text").examples(0))
    assert sorted("\n".join(found).splitlines()) == sorted(lines)  # nothing is lost
    assert len(found) > 10
    shorter = [each for each in found if len(each) < PASSAGE - 1]
    assert len(shorter) == 1  # the last of them
    assert max(map(len, found)) < PASSAGE + 250


def test_blank_lines_divide_as_before(place: str, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\nmore of it\n\n" + "two " * 3000)
    assert sorted(file_corpus(path, "text").examples(0)) == [
        "one\nmore of it",
        ("two " * 3000).strip(),
    ]


@pytest.mark.parametrize("word", ["lorem ", "無"])
def test_a_line_that_never_ends_is_cut(word: str, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(word * (3 * LONGEST_LINE // len(word)), encoding="utf-8")
    corpus = file_corpus(path, "text")
    assert all(len(each) <= LONGEST_LINE for each in corpus.examples(0))
    whole = "".join(corpus.items).replace(" ", "")  # type: ignore[attr-defined]
    assert whole == path.read_text(encoding="utf-8").replace(" ", "")


# -------------------------------------------------------------------------------------- columns


def table(folder: Path, suffix: str) -> Path:
    rows = [{"title": f"t{i}", "body": f"b{i}", "stars": i} for i in range(6)]
    path = folder / f"reviews{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter="," if suffix == ".csv" else "\t")
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv", ".tsv"])
def test_columns_are_corpora_of_their_own(suffix: str, place: str, tmp_path: Path) -> None:
    path = table(tmp_path, suffix)
    found = {name: file_corpus(path, "text", column=name) for name in ("title", "body")}
    assert sorted(found["body"].examples(0)) == [f"b{i}" for i in range(6)]
    assert found["title"].fingerprint() != found["body"].fingerprint()


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
@pytest.mark.parametrize("column", [None, "author", "stars"])
def test_a_column_that_is_no_text_is_refused_naming_those_that_are(
    suffix: str, column: str | None, place: str, tmp_path: Path
) -> None:
    with pytest.raises(BadCorpus) as caught:
        list(file_corpus(table(tmp_path, suffix), "text", column=column).examples(0))
    assert repr(column or "text") in caught.value.message
    names = "title, body" if suffix == ".parquet" else "'title', 'body'"
    assert caught.value.remedy == f"Name one of these with --column: {names}."
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says", "remedy"),
    [
        (b"title,body\na,b\n", "a.csv has no column 'text'", "--column: 'title', 'body'."),
        (b"text,n,text\n", "a.csv has several columns 'text'", "a name of its own"),
        (b"", "is empty", "with examples in it"),
        (b"\r\n\r\n", "is empty", "with examples in it"),
        (b"text,n\n", "is empty", "with examples in it"),
        (b'text,n\n"one\nmore",1\ntwo\n', "a.csv, line 4: the number of cells is 1", "in quotes"),
        (b"text,n\none,1\ntwo,2,3\n", "a.csv, line 3: the number of cells is 3", "in quotes"),
        (b'text,n\none,1\n"two,2\n\n', "a.csv, line 3: unexpected end of data", "quotes doubled"),
        (b'text,n\n"one" two,1\n', "a.csv, line 2: ',' expected after '\"'", "quotes doubled"),
        (b"text,n\ncaf\xe9,1\n", "a.csv is not UTF-8 text (byte 10)", "Convert it"),
    ],
)
def test_what_is_wrong_in_a_delimited_table_is_named_by_its_line(
    content: bytes, says: str, remedy: str, place: str, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(BadCorpus) as caught:
        list(file_corpus(tmp_path / "a.csv", "text").examples(0))
    assert says in caught.value.message
    assert remedy in caught.value.remedy


def test_ragged_records_are_left_out_up_to_a_number(place: str, tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_bytes(b'n\ttext\r\n1\t"one\r\n1"\r\n2\r\n3\ta, b\r\n4\t\r\n')
    corpus = file_corpus(tmp_path / "a.tsv", "text", skip_bad=1)
    assert sorted(corpus.examples(0)) == ["a, b", "one\n1"]
    assert corpus.notes == ["1 broken, left out"]


def test_tables_beside_sequences_describe_them(place: str, tmp_path: Path) -> None:
    (tmp_path / "a.fasta").write_text(">a\nMKV\n")
    (tmp_path / "b.csv").write_text("accession,organism\na,human\n")
    assert list(file_corpus(tmp_path, "protein").examples(0)) == ["MKV"]
    (tmp_path / "a.fasta").unlink()
    (tmp_path / "c.csv").write_text("accession,sequence\na,MKL\n")
    with pytest.raises(BadCorpus, match=r"b\.csv has no column 'sequence'"):
        list(file_corpus(tmp_path, "protein").examples(0))
    assert list(file_corpus(tmp_path, "protein", glob="c*").examples(0)) == ["MKL"]


# ------------------------------------------------------------------------------------ skip bad


def proteins(folder: Path) -> Path:
    path = folder / "a.fa"
    path.write_text(
        "".join(f">p{i}\nMK{'*' if i % 4 == 1 else ''}V{'L' * i}*\n" for i in range(12))
    )
    return path


def test_broken_sequences_are_left_out_up_to_a_number(place: str, tmp_path: Path) -> None:
    path = proteins(tmp_path)
    with pytest.raises(BadCorpus, match=r"a\.fa, p1: '\*' at position 3 .* --skip-bad"):
        list(file_corpus(path, "protein").examples(0))
    corpus = file_corpus(path, "protein", skip_bad=3)
    assert sorted(corpus.examples(0), key=len) == [f"MKV{'L' * i}" for i in range(12) if i % 4 != 1]
    assert set(corpus.notes) == {"3 broken, left out", "9 with a stop at the end, taken off"}
    many = file_corpus(path, "protein", skip_bad=2)
    with pytest.raises(
        BadCorpus, match=r"more than 2 of the examples are broken; the first: .*, p\d+: "
    ):
        list(many.examples(0))


def test_what_is_read_twice_is_counted_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(storage, "IN_MEMORY_BYTES", -1)
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 64)
    corpus = file_corpus(proteins(tmp_path), "protein", skip_bad=3)
    assert isinstance(corpus, StreamedCorpus)
    first = list(corpus.examples(0))
    assert list(itertools.islice(corpus.training(0, 2), 20))[:7] == first[2:]
    assert "3 broken, left out" in corpus.notes
    sent = pickle.loads(pickle.dumps(corpus))
    assert sorted(sent.examples(1)) == sorted(first)


def test_rows_that_are_no_text_are_left_out_too(place: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n{"text": 3}\nnonsense\n{"text": "b"}\n')
    corpus = file_corpus(path, "text", skip_bad=2)
    assert sorted(corpus.examples(0)) == ["a", "b"]
    assert corpus.notes == ["2 broken, left out"]


def pictures(folder: Path, how: str) -> Path:
    """Five pictures, of which number 1 is cut off and number 3 is none."""
    data = [png(i) for i in range(5)]
    data[1], data[3] = data[1][: len(data[1]) // 2], b"no picture"
    if how == "folder":
        for number, content in enumerate(data):
            (folder / f"{number}.png").write_bytes(content)
        return folder
    if how == "tar":
        with tarfile.open(folder / "a.tar", "w") as archive:
            for number, content in enumerate(data):
                member = tarfile.TarInfo(f"{number}.png")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        return folder / "a.tar"
    rows = [{"image": {"bytes": content, "path": None}} for content in data]
    pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet")
    return folder / "a.parquet"


@pytest.mark.parametrize("how", ["folder", "tar", "parquet"])
def test_broken_pictures_are_named_or_left_out(how: str, place: str, tmp_path: Path) -> None:
    path = pictures(tmp_path, how)
    names = {
        "folder": r"[13]\.png",
        "tar": r"a\.tar, [13]\.png",
        "parquet": r"a\.parquet, row [24]",
    }
    with pytest.raises(BadCorpus, match=names[how] + " (is not an image|cannot be decoded)"):
        list(file_corpus(path, "image").examples(0))
    corpus = file_corpus(path, "image", skip_bad=2)
    corpus.fingerprint()
    assert len(list(corpus.examples(0))) == 3
    assert "2 broken, left out" in corpus.notes
    with pytest.raises(
        BadCorpus, match="more than 1 of the examples are broken; the first: .*" + names[how]
    ):
        list(file_corpus(path, "image", skip_bad=1).examples(0))


def decoding(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of pictures, as they are decoded from now on."""
    seen: list[str] = []

    def counted(path: Path) -> object:
        seen.append(path.name)
        return read_image(path)

    monkeypatch.setattr(corpora, "read_image", counted)
    return seen


def test_pictures_are_decoded_once_to_find_what_is_broken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "p").mkdir()
    folder, seen = pictures(tmp_path / "p", "folder"), decoding(monkeypatch)
    first = file_corpus(folder, "image", skip_bad=2)
    assert first.fingerprint()
    assert sorted(seen) == [f"{i}.png" for i in range(5)]
    seen.clear()
    again = file_corpus(folder, "image", skip_bad=2)
    assert again.fingerprint() == first.fingerprint()
    assert sorted(seen) == ["1.png", "3.png"]  # what could not be read may be by now
    assert again.notes == first.notes
    seen.clear()
    (folder / "0.png").write_bytes(b"no longer a picture")
    with pytest.raises(BadCorpus, match="more than 2 of the examples are broken"):
        file_corpus(folder, "image", skip_bad=2).fingerprint()
    assert "0.png" in seen


def test_an_interrupted_look_at_pictures_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "p").mkdir()
    for number in range(300):
        (tmp_path / "p" / f"{number:03}.png").write_bytes(png(number))
    seen: list[str] = []

    def stopped(path: Path) -> object:
        seen.append(path.name)
        if path.name == "040.png":
            raise KeyboardInterrupt
        return read_image(path)

    monkeypatch.setattr(corpora, "read_image", stopped)
    with pytest.raises(KeyboardInterrupt):
        file_corpus(tmp_path / "p", "image", skip_bad=1).fingerprint()
    assert len(seen) < 150  # what waits is not begun
    seen = decoding(monkeypatch)
    assert file_corpus(tmp_path / "p", "image", skip_bad=1).fingerprint()
    assert "000.png" not in seen
    assert len(seen) >= 300 - 150


def test_a_long_look_at_pictures_is_told(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sound, "_SPEAK_AFTER", 0.0)
    (tmp_path / "p").mkdir()
    folder = pictures(tmp_path / "p", "folder")
    assert file_corpus(folder, "image", skip_bad=2).fingerprint()
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1  # into a file once, onto a terminal again and again
    assert f"of 5 pictures of {folder} decoded once" in told[0]
