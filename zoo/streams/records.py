"""The records of a .csv or .tsv as one chain of chunks, which goes on at any record."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from zoo.delimited import TableHeader, header_of, records, row_of
from zoo.errors import BadCorpus
from zoo.streams import chunks
from zoo.streams.chunks import Chunk, Unit
from zoo.streams.storage import StoredFile


class _Lines:
    """The lines of a file from a place on; `place` is where the next one begins."""

    def __init__(self, opened: IO[bytes], file: StoredFile, place: int) -> None:
        self._opened, self._file, self.place = opened, file, place

    def __iter__(self) -> Iterator[str]:
        while line := self._opened.readline(chunks.LONGEST_RECORD + 1):
            if len(line) > chunks.LONGEST_RECORD:
                raise BadCorpus(
                    f"{self._file}: the line at byte {self.place} is longer than "
                    f"{chunks.LONGEST_RECORD:,} bytes",
                    "Divide it into several.",
                )
            text = chunks.utf8(self._file, line, self.place)
            self.place += len(line)
            yield text.replace("\r\n", "\n")


@dataclass(frozen=True)
class Records(Unit):
    """The records of a .csv or .tsv after its header. A place is a byte, unpacked."""

    file: StoredFile
    separator: str
    header: TableHeader

    def chunks(self, place: int = 0) -> Iterator[Chunk]:
        where = f"{self.file}, from byte {place}" if place else str(self.file)
        with chunks.open_unpacked(self.file, whole=True) as (opened, seekable):
            chunks.go_to(opened, place, seekable)
            lines = _Lines(opened, self.file, place)
            found = records(lines, self.separator, where)
            if place == 0:
                next(found, None)
            begin, rows = place, []
            for number, cells in found:
                rows.append(row_of(cells, self.header, f"{where}, line {number}"))
                if lines.place - begin >= chunks.CHUNK_BYTES:
                    yield Chunk(begin, lines.place, begin, rows)
                    begin, rows = lines.place, []
            if rows:
                yield Chunk(begin, lines.place, begin, rows)


def record_units(file: StoredFile, separator: str, column: str) -> list[Unit]:
    """The one chain of a .csv or .tsv; none where it is empty.

    Raises:
        BadCorpus: it has no such column, or is not text.
    """
    with chunks.open_unpacked(file) as (opened, _):
        for _, cells in records(_Lines(opened, file, 0), separator, str(file)):
            return [Records(file, separator, header_of(cells, column, str(file)))]
    return []
