"""The record batches of an `.arrow` file as chunks, as the `datasets` library saves them.

`Dataset.save_to_disk` writes Arrow's stream format, whose batches stand in a row: to go on at one,
those before it are passed over. Arrow's file format is read too.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from zoo.errors import BadCorpus, MissingExtra
from zoo.install import install_line
from zoo.streams import chunks
from zoo.streams.chunks import Chunk, Unit
from zoo.streams.storage import StoredFile
from zoo.table_columns import check_column


@dataclass(frozen=True)
class Batches(Unit):
    """One column of an .arrow file. A place is the number of a record batch."""

    file: StoredFile
    column: str

    def chunks(self, place: int = 0) -> Iterator[Chunk]:
        with _opened(self.file) as (_, batches):
            first = 0
            for number, batch in enumerate(batches):
                if number >= place and batch.num_rows:
                    values = batch.column(self.column).to_pylist()
                    rows = [
                        (f"{self.file}, row {first + row}", value)
                        for row, value in enumerate(values, 1)
                    ]
                    yield Chunk(number, number + 1, first, rows)
                first += batch.num_rows


def batch_units(file: StoredFile, column: str, kind: str) -> list[Unit]:
    """The one chain of an .arrow file.

    Raises:
        BadCorpus: it is none, or has no such column. MissingExtra: pyarrow is absent.
    """
    with _opened(file) as (schema, _):
        check_column(schema, column, kind, str(file))
    return [Batches(file, column)]


@contextmanager
def _opened(file: StoredFile) -> Iterator[tuple[Any, Iterator[Any]]]:
    """The file's schema and its record batches in order."""
    try:
        import pyarrow as pa
    except ImportError:
        raise MissingExtra(
            "reading .arrow needs the package pyarrow, which is not installed",
            install_line("parquet"),
        ) from None
    try:
        with chunks.open_unpacked(file, whole=True) as (opened, seekable):
            if seekable and opened.read(6) == b"ARROW1":
                reader = pa.ipc.open_file(opened)
                numbers = range(reader.num_record_batches)
                yield reader.schema, (reader.get_batch(number) for number in numbers)
                return
            if seekable:
                opened.seek(0, io.SEEK_SET)
            stream = pa.ipc.open_stream(opened)
            yield stream.schema, iter(stream)
    except pa.ArrowException as error:
        reason = " ".join(str(error).split())[:200]
        raise BadCorpus(f"{file} cannot be read ({reason})") from None
