"""The examples of a chunk, by the rules that a file which is read whole follows too."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from zoo.cells import CellRow, cell_lines, read_cells
from zoo.contigs import contig_row
from zoo.delimited import SEPARATORS
from zoo.errors import BadCorpus
from zoo.fasta import FASTA_SUFFIXES, SequenceRow
from zoo.pictures import PackedPicture, read_image
from zoo.sequences import read_rows
from zoo.streams import chunks
from zoo.streams.arrow import batch_units
from zoo.streams.chunks import Chunk, Unit
from zoo.streams.records import record_units
from zoo.streams.storage import StoredFile
from zoo.table_columns import key_of
from zoo.tally import Tally, without_broken
from zoo.texts import CORPUS_SUFFIXES, jsonl_rows, read_texts, suffix_of, txt_rows

_TARS = (".tar", ".tgz")


class Reader(NamedTuple):
    """How one file's chunks become examples."""

    units: list[Unit]
    rows: Callable[[StoredFile, Chunk], Iterator[SequenceRow | PackedPicture | CellRow]]


def is_streamed(file: StoredFile, kind: str) -> bool:
    """Whether a corpus of that kind is read from a file of this name, chunk by chunk."""
    suffix = suffix_of(file.name)
    if kind == "image":
        return suffix in (*_TARS, ".parquet")
    if suffix == ".arrow" and file.name.rpartition("/")[2].startswith("cache-"):
        return False  # beside a dataset the datasets library keeps what was made of it
    return suffix in CORPUS_SUFFIXES[kind] or (kind == "text" and suffix in _TARS)


def is_only_streamed(file: StoredFile, kind: str) -> bool:
    """Whether small files of this name are read here too, and nowhere else."""
    return kind in ("image", "cell") or suffix_of(file.name) in _TARS


def is_picture(file: StoredFile) -> bool:
    """Whether the file is a picture by its name."""
    return suffix_of(file.name) in CORPUS_SUFFIXES["image"]


def read_picture(file: StoredFile) -> Any:
    """The picture in a file of its own."""
    with file.open(whole=True) as opened:
        return read_image(PackedPicture(str(file), opened.read()))


def reader_of(file: StoredFile, kind: str, column: str | None) -> Reader:
    """How that file is read.

    Raises:
        BadCorpus: a table is broken, or has no such column.
    """
    suffix, key = suffix_of(file.name), key_of(kind, column)
    if suffix in _TARS:
        members = CORPUS_SUFFIXES["image"] if kind == "image" else (".txt", ".json")
        unit = chunks.Members(file, members)
        return Reader([unit], _pictures if kind == "image" else _Documents(key))
    if suffix == ".arrow":
        return Reader(batch_units(file, key, kind), _lists)
    if suffix == ".parquet":
        return Reader(chunks.row_units(file, key, kind), _ROWS.get(kind, _strings))
    if suffix in FASTA_SUFFIXES:
        rule = chunks.LETTERS if kind == "dna" else chunks.RECORDS
        return Reader(chunks.line_units(file, rule), _fasta)
    if suffix in SEPARATORS:
        return Reader(record_units(file, SEPARATORS[suffix], key), _records)
    if suffix == ".jsonl":
        lines = _ListLines(key) if kind == "cell" else _Lines(key)
        return Reader(chunks.line_units(file, chunks.LINES), lines)
    return Reader(chunks.line_units(file, chunks.PASSAGES), _passages)


def examples(rows: Iterator[Any], kind: str, did: Tally) -> list[Any]:
    """What the rules make of rows; what they did is added to `did`."""
    if kind == "image":
        return without_broken(with_data(rows, did), read_image, did)
    if kind == "text":
        return read_texts(rows, did)
    if kind == "cell":
        return read_cells(rows, did)
    return read_rows(rows, kind, did)


def with_data(rows: Iterator[Any], did: Tally) -> Iterator[PackedPicture]:
    """The pictures of rows that hold something.

    Raises:
        BadCorpus: as `Tally.leave_out`.
    """
    for row in rows:
        if row.data:
            yield row
        else:
            did.leave_out(BadCorpus(f"{row} holds no picture", "Leave the row out."))


def decoded(item: Any) -> Any:
    """The example of an item: pictures are kept as they are in the file until they are needed."""
    return read_image(item) if isinstance(item, PackedPicture) else item


def _text(file: StoredFile, chunk: Chunk) -> io.StringIO:
    # Line breaks of every kind are read as \n, as in a file that is read whole.
    return io.StringIO(chunks.utf8(file, chunk.content, chunk.offset), newline=None)


def _passages(file: StoredFile, chunk: Chunk) -> Iterator[SequenceRow]:
    return txt_rows(_text(file, chunk).read(), f"{file}, from byte {chunk.offset}")


class _Lines:
    """Rows of JSON lines."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, file: StoredFile, chunk: Chunk) -> Iterator[SequenceRow]:
        where = f"{file}, from byte {chunk.offset}"
        return jsonl_rows(_text(file, chunk), where, self._key)


class _ListLines:
    """Cells in JSON lines."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, file: StoredFile, chunk: Chunk) -> Iterator[CellRow]:
        where = f"{file}, from byte {chunk.offset}"
        return cell_lines(_text(file, chunk), where, self._key)


class _Documents:
    """Texts out of a tar: a `.txt` as a whole, a `.json` at its key."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, file: StoredFile, chunk: Chunk) -> Iterator[SequenceRow]:
        for where, data in chunk.content:
            try:
                yield from self._rows(where, data)
            except BadCorpus as error:
                yield SequenceRow(where, "", bad=error)

    def _rows(self, where: str, data: bytes) -> Iterator[SequenceRow]:
        if where.lower().endswith(".json"):
            text = json.dumps(_parsed(where, data))
            yield from jsonl_rows([text], where, self._key)
        else:
            whole = Chunk(0, 0, 0, data)
            yield SequenceRow(where, _text(StoredFile(where, where, 0), whole).read().strip())


def _parsed(where: str, data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        raise BadCorpus(f"{where} is not JSON") from None


def _lists(file: StoredFile, chunk: Chunk) -> Iterator[CellRow]:
    for where, value in chunk.content:
        yield CellRow(where, value)


def _strings(file: StoredFile, chunk: Chunk) -> Iterator[SequenceRow]:
    for where, value in chunk.content:
        is_contig = isinstance(value, dict)
        yield contig_row(value, where) if is_contig else SequenceRow(where, value or "")


def _records(file: StoredFile, chunk: Chunk) -> Iterator[SequenceRow]:
    yield from chunk.content


def _pictures(file: StoredFile, chunk: Chunk) -> Iterator[PackedPicture]:
    for where, value in chunk.content:
        data = value.get("bytes") if isinstance(value, dict) else value
        yield PackedPicture(where, data or b"")


_ROWS: dict[str, Callable[[StoredFile, Chunk], Iterator[Any]]] = {
    "image": _pictures,
    "cell": _lists,
}


def _fasta(file: StoredFile, chunk: Chunk) -> Iterator[SequenceRow]:
    from Bio.SeqIO.FastaIO import SimpleFastaParser

    text = _text(file, chunk).getvalue()
    head, rest = _before_first(text)
    if head.strip():
        if chunk.offset == 0:
            raise BadCorpus(f"{file} is not FASTA", "Records begin with '>'.")
        # The record began in the chunk before; it was cut.
        yield SequenceRow(f"{file}, the record at byte {chunk.offset}", head)
    for title, sequence in SimpleFastaParser(io.StringIO(rest)):
        name = next(iter(title.split()), "") or "a record without a name"
        yield SequenceRow(f"{file}, {name}", sequence)


def _before_first(text: str) -> tuple[str, str]:
    """What is before the first record of FASTA, and the rest."""
    if text.startswith(">"):
        return "", text
    place = text.find("\n>")
    return (text, "") if place < 0 else (text[:place], text[place + 1 :])
