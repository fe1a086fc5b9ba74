"""How a file is cut into chunks that can be read without what is before them.

    lines     .jsonl, FASTA: the records that begin in a range of bytes. Records of DNA are cut
              where a range ends, at the end of a line, or in the middle of a very long line;
              .txt likewise, after a blank line where there is one near by
    records   .csv, .tsv: records in a row, from the byte of one on; whether the end of a line ends
              a record depends on the quotes before it, so they are one chain
    rows      .parquet: a row group, or a part of one that is large; .arrow: a record batch
    members   .tar: members in a row, from the place of a member on
    packed    .gz, .zst, .tar.gz: what is inside is cut alike, but reading begins at the
              beginning of that file, and only unpacks what is before the chunk

A unit is a chunk, or a chain of chunks that are read in a row: a packed file, a .csv, a tar.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, NamedTuple, Self

from zoo.contigs import CONTIG_COLUMNS, is_contigs
from zoo.errors import BadCorpus, MissingExtra
from zoo.files import PACKED, unpacked
from zoo.install import install_line
from zoo.streams.storage import StoredFile
from zoo.table_columns import check_column

# Bytes of a chunk, before what is left of its last record.
CHUNK_BYTES = 1 << 22

# No record is longer: it would be held in memory as a whole. (DNA is cut, and may be.)
LONGEST_RECORD = 1 << 26

# How far the end of a line is looked for where a line may be cut.
_LOOK = 1 << 16

_BOMS = (b"\xff\xfe", b"\xfe\xff")

PACKED_TARS = (*PACKED, ".tgz")


class Chunk(NamedTuple):
    """What a unit gives at a time. `place`, `after`: where it begins, and where the next one does.

    content: bytes of a range at byte `offset`; or rows, members, as (where, value).
    """

    place: int
    after: int
    offset: int
    content: Any


class Unit(ABC):
    """A chunk, or a chain of chunks that are read one after the other."""

    file: StoredFile

    @abstractmethod
    def chunks(self, place: int = 0) -> Iterator[Chunk]:
        """The chunks from a place on: 0, or the `after` of a chunk."""


# ------------------------------------------------------------------------------------- packed


@contextmanager
def open_unpacked(file: StoredFile, *, whole: bool = False) -> Iterator[tuple[IO[bytes], bool]]:
    """What the file holds, and whether it can be read from any place on."""
    packed = file.name.endswith(PACKED_TARS)
    with file.open(whole=whole or packed) as opened:
        name = f"{file.name}.gz" if file.name.endswith(".tgz") else file.name
        yield unpacked(opened, name), not packed


def go_to(file: IO[bytes], place: int, seekable: bool) -> None:
    """Reads on from that byte: what is before it is read where the file is not seekable."""
    if seekable:
        file.seek(place)
        return
    while place > 0:
        skipped = len(file.read(min(place, 1 << 20)))
        if not skipped:
            return
        place -= skipped


# -------------------------------------------------------------------------------------- lines


class Boundary(NamedTuple):
    """Records begin where a match of one of `marks` ends; of the first that is found near by.

    cuts: a record may also begin where there is no mark near by.
    """

    marks: tuple[re.Pattern[bytes], ...]
    cuts: bool = False


LINES = Boundary((re.compile(rb"\n"),))
RECORDS = Boundary((re.compile(rb"\n(?=>)"),))
LETTERS = Boundary((re.compile(rb"\n"),), cuts=True)
PASSAGES = Boundary((re.compile(rb"\n\r?\n"), re.compile(rb"\n")), cuts=True)


def split(file: IO[bytes], name: str, rule: Boundary, number: int) -> Iterator[tuple[int, bytes]]:
    """The chunks of a file from `number` on: the byte each begins at, and its bytes.

    Chunk k is what begins in the bytes from k to k + 1 times `CHUNK_BYTES`. `file` stands at the
    byte before, or at the beginning.

    Raises:
        BadCorpus: a record is longer than `LONGEST_RECORD`.
    """
    window = _Window(file, name, rule, max(0, number * CHUNK_BYTES - 1))
    start = window.begin(number * CHUNK_BYTES)
    while True:
        number += 1
        end = window.begin(number * CHUNK_BYTES)
        yield start, window.take(start, end)
        if window.ended and end == window.end:
            return
        start = end


class _Window:
    """The part of a file that is held: from a byte of it on, as far as it was read."""

    def __init__(self, file: IO[bytes], name: str, rule: Boundary, base: int) -> None:
        self._file, self._name, self._rule = file, name, rule
        self._base = base
        self._data = bytearray()
        self.ended = False

    @property
    def end(self) -> int:
        return self._base + len(self._data)

    def begin(self, place: int) -> int:
        """The first byte from `place` on at which a record begins; the end where none does."""
        if place == 0:
            return 0
        return self._cut(place) if self._rule.cuts else self._next(place)

    def _next(self, place: int) -> int:
        look = max(place - 1, self._base)
        while True:
            self._fill(look + _LOOK)
            found = self._rule.marks[0].search(self._data, look - self._base)
            if found:
                return self._base + found.end()
            if self.ended:
                return self.end
            if self.end - place > LONGEST_RECORD:
                raise BadCorpus(
                    f"{self._name}: the record before byte {self.end} is longer than "
                    f"{LONGEST_RECORD:,} bytes",
                    "Divide it into several.",
                )
            look = max(look, self.end - 1)

    def _cut(self, place: int) -> int:
        # Shorter than a chunk, so that where one begins depends on nothing before it.
        stop = place + min(_LOOK, CHUNK_BYTES // 2)
        self._fill(stop)
        for mark in self._rule.marks:
            found = mark.search(self._data, place - 1 - self._base, stop - self._base)
            if found:
                return self._base + found.end()
        place = min(place, self.end)
        while place < self.end and self._data[place - self._base] & 0xC0 == 0x80:
            place += 1  # not within a character of UTF-8
        return place

    def take(self, start: int, end: int) -> bytes:
        """The bytes from start to end; what is before their last one is forgotten."""
        found = bytes(self._data[start - self._base : end - self._base])
        keep = max(self._base, end - 1)
        del self._data[: keep - self._base]
        self._base = keep
        return found

    def _fill(self, until: int) -> None:
        while not self.ended and self.end < until:
            new = self._file.read(max(1 << 16, until - self.end))
            self._data += new
            self.ended = not new


@dataclass(frozen=True)
class Range(Unit):
    """Chunk `number` of a file that can be read from any place on."""

    file: StoredFile
    rule: Boundary
    number: int

    def chunks(self, place: int = 0) -> Iterator[Chunk]:
        if place:
            return
        with self.file.open() as opened:
            opened.seek(max(0, self.number * CHUNK_BYTES - 1))
            offset, data = next(split(opened, str(self.file), self.rule, self.number))
        yield Chunk(0, 1, offset, data)


@dataclass(frozen=True)
class PackedLines(Unit):
    """A packed file of records. A place is the number of a chunk."""

    file: StoredFile
    rule: Boundary

    def chunks(self, place: int = 0) -> Iterator[Chunk]:
        with open_unpacked(self.file) as (opened, seekable):
            go_to(opened, max(0, place * CHUNK_BYTES - 1), seekable)
            found = split(opened, str(self.file), self.rule, place)
            for number, (offset, data) in enumerate(found, place):
                yield Chunk(number, number + 1, offset, data)


def line_units(file: StoredFile, rule: Boundary) -> list[Unit]:
    """The units of a file of records: its chunks, or one chain where it is packed."""
    if file.name.endswith(PACKED):
        return [PackedLines(file, rule)]
    return [Range(file, rule, number) for number in range(-(-file.size // CHUNK_BYTES))]


def utf8(file: StoredFile, data: bytes, offset: int) -> str:
    """The text of bytes that begin at `offset` of the file, without its byte order mark.

    Raises:
        BadCorpus: they are not UTF-8.
    """
    if offset == 0 and data[:2] in _BOMS:
        raise BadCorpus(
            f"{file} is UTF-16; a file as large as this, or not of this machine, has to be UTF-8",
            "Convert it, for instance with iconv.",
        )
    try:
        return data.decode("utf-8-sig" if offset == 0 else "utf-8")
    except UnicodeDecodeError as error:
        raise BadCorpus(
            f"{file} is not UTF-8 text (byte {offset + error.start})",
            "Convert it, for instance with iconv.",
        ) from None


# ---------------------------------------------------------------------------------------- tar


@dataclass(frozen=True)
class Members(Unit):
    """The members of a tar that have one of the suffixes. A place is a byte of the archive."""

    file: StoredFile
    suffixes: tuple[str, ...]

    def chunks(self, place: int = 0) -> Iterator[Chunk]:
        with open_unpacked(self.file, whole=True) as (opened, seekable):
            if seekable and place >= self.file.size:
                return
            go_to(opened, place, seekable)
            begin, after, size, found = place, place, 0, []
            how: dict[str, Any] = {"mode": "r|", "bufsize": 1 << 18, "tarinfo": _Header}
            with tarfile.open(fileobj=opened, **how) as archive:
                for member in archive:
                    vars(archive)["members"] = []  # else it remembers every one
                    after = place + member.offset_data + -(-member.size // 512) * 512
                    if self._is_meant(member):
                        found.append((f"{self.file}, {member.name}", _content(archive, member)))
                        size += member.size
                    if size >= CHUNK_BYTES:
                        yield Chunk(begin, after, begin, found)
                        begin, size, found = after, 0, []
            if found:
                yield Chunk(begin, after, begin, found)

    def _is_meant(self, member: tarfile.TarInfo) -> bool:
        hidden = any(part.startswith(".") and part != "." for part in member.name.split("/"))
        return member.isfile() and not hidden and member.name.lower().endswith(self.suffixes)


# Not among the names that the module makes public.
_BROKEN_HEADERS: tuple[type[tarfile.TarError], ...] = (
    tarfile.TruncatedHeaderError,  # type: ignore[attr-defined]
    tarfile.InvalidHeaderError,  # type: ignore[attr-defined]
)
_NOTHING_LEFT: type[tarfile.TarError] = tarfile.EmptyHeaderError  # type: ignore[attr-defined]


class _Header(tarfile.TarInfo):
    """A member's header. tarfile takes one that is cut off or broken, other than the first, for the
    end of the archive, and would leave out what comes after; and a file that ends without the
    empty block that ends an archive, as one does that was cut between two members, for a whole
    one."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except _BROKEN_HEADERS as error:
            raise tarfile.ReadError(f"a member's header: {error}") from None
        except _NOTHING_LEFT:
            if not archive.offset:
                raise
            raise tarfile.ReadError("it ends after a member, without an end of archive") from None


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > LONGEST_RECORD:
        raise BadCorpus(f"{member.name} has more than {LONGEST_RECORD:,} bytes", "Leave it out.")
    opened = archive.extractfile(member)
    assert opened is not None
    return opened.read()


# ------------------------------------------------------------------------------------ parquet


@dataclass(frozen=True)
class Rows(Unit):
    """Rows `start` to `stop` of a row group; the group's first row is `first` of the file's.

    Of one column, or a mapping of the columns that make a contig.
    """

    file: StoredFile
    columns: tuple[str, ...]
    group: int
    first: int
    start: int
    stop: int

    def chunks(self, place: int = 0) -> Iterator[Chunk]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if place:
            return
        found: list[tuple[str, Any]] = []
        try:
            with self.file.open() as opened:
                table = pq.ParquetFile(opened, metadata=_metadata(self.file))
                row = 0
                size = max(1, min(self.stop - self.start, 1024))
                for batch in table.iter_batches(size, [self.group], list(self.columns)):
                    rows = range(max(self.start, row), min(self.stop, row + len(batch)))
                    for number in rows:
                        where = f"{self.file}, row {self.first + number + 1}"
                        found.append((where, self._value(batch, number - row)))
                    row += len(batch)
                    if row >= self.stop:
                        break
        except pa.ArrowException as error:
            raise _broken(self.file, error) from None
        yield Chunk(0, 1, self.first + self.start, found)

    def _value(self, batch: Any, row: int) -> Any:
        values = {name: batch.column(name)[row].as_py() for name in self.columns}
        return values if len(values) > 1 else values.popitem()[1]


def row_units(file: StoredFile, column: str, kind: str) -> list[Unit]:
    """The row groups of a parquet file, divided so that none is much larger than a chunk.

    Raises:
        BadCorpus: it is none, or has no such column. MissingExtra: pyarrow is absent.
    """
    try:
        import pyarrow as pa
    except ImportError:
        raise MissingExtra(
            "reading .parquet needs the package pyarrow, which is not installed",
            install_line("parquet"),
        ) from None
    try:
        metadata = _metadata(file)
        schema = metadata.schema.to_arrow_schema()
    except pa.ArrowException as error:
        raise _broken(file, error) from None
    columns: tuple[str, ...] = (column,)
    if column not in schema.names and is_contigs(schema.names):
        columns = CONTIG_COLUMNS
    else:
        check_column(schema, column, kind, str(file))
    units: list[Unit] = []
    first = 0
    for group in range(metadata.num_row_groups):
        found = metadata.row_group(group)
        stored = [found.column(i) for i in range(found.num_columns)]
        size = sum(c.total_uncompressed_size for c in stored for name in columns if _is_of(c, name))
        parts = min(max(1, math.ceil(size / CHUNK_BYTES)), max(1, found.num_rows))
        cuts = [found.num_rows * part // parts for part in range(parts + 1)]
        units += [Rows(file, columns, group, first, a, b) for a, b in itertools.pairwise(cuts)]
        first += found.num_rows
    return units


def _is_of(part: Any, column: str) -> bool:
    return bool(part.path_in_schema == column or part.path_in_schema.startswith(f"{column}."))


@functools.lru_cache(maxsize=64)
def _metadata(file: StoredFile) -> Any:
    import pyarrow.parquet as pq

    with file.open() as opened:
        return pq.read_metadata(opened)


def _broken(file: StoredFile, error: Exception) -> BadCorpus:
    return BadCorpus(f"{file} cannot be read ({' '.join(str(error).split())[:200]})")
