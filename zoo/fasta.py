"""FASTA files, the parts of them that a BED file names, and how text files are opened.

A BED line names a sequence, a start from 0, an end that is not included, and as its sixth field a
strand: `+`, `-` (the region is read as its reverse complement) or `.`. Regions must not overlap,
and their sequences must be in the reference exactly once.
"""

from __future__ import annotations

import io
import re
import zlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from zoo.errors import BadCorpus
from zoo.files import check_regular, unpacked

FASTA_SUFFIXES = (".fa", ".fasta", ".faa", ".fna", ".ffn", ".fas")

_NUMBER = re.compile(r"[0-9]{1,18}")


class SequenceRow(NamedTuple):
    """What a file gives as one example: where it stands, for messages, and its characters.

    `reverse`: the other strand is meant. `bad`: why it cannot be read.
    """

    where: str
    text: str
    reverse: bool = False
    bad: BadCorpus | None = None


def read_fasta(path: Path) -> Iterator[SequenceRow]:
    """The records of a FASTA file, packed or not.

    Raises:
        BadCorpus: the file is not FASTA, cannot be read, or is not text.
    """
    for name, letters in _records(path):
        yield SequenceRow(f"{path}, {name or 'a record without a name'}", letters)


def _records(path: Path) -> Iterator[tuple[str, str]]:
    """Name and letters of each record, one at a time."""
    from Bio.SeqIO.FastaIO import SimpleFastaParser

    with open_text(path) as file:
        first = next((line for line in file if line.strip()), "")
        if first and not first.startswith(">"):
            # The parser would skip everything in front of the first '>' without a word.
            raise BadCorpus(f"{path} is not FASTA", "Records begin with '>'.")
    with open_text(path) as file:
        for title, sequence in SimpleFastaParser(file):
            yield next(iter(title.split()), ""), sequence


class open_text:  # noqa: N801 (used like a function)
    """A context with the file's lines; what is wrong with it is raised as `BadCorpus`.

    UTF-8, or UTF-16 where a byte order mark says so; the mark is not part of the text.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> IO[str]:
        try:
            encoding = self._encoding()
            self._file: IO[str] = io.TextIOWrapper(self._open(), encoding=encoding)
        except (OSError, EOFError, zlib.error) as error:
            raise BadCorpus(f"{self.path} cannot be read ({error})") from None
        return self._file

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._file.close()
        if isinstance(error, UnicodeDecodeError):
            raise BadCorpus(
                f"{self.path} is not UTF-8 text (byte {error.start})",
                "Convert it, for instance with iconv.",
            ) from None
        if isinstance(error, OSError | EOFError | zlib.error):
            raise BadCorpus(f"{self.path} cannot be read ({error})") from None

    def _open(self) -> IO[bytes]:
        check_regular(self.path)
        return unpacked(self.path.open("rb"), self.path.name)

    def _encoding(self) -> str:
        with self._open() as file:
            marked = file.read(2) in (b"\xff\xfe", b"\xfe\xff")
        return "utf-16" if marked else "utf-8-sig"


# ---------------------------------------------------------------------------------------- BED


class _Region(NamedTuple):
    name: str
    start: int
    stop: int
    strand: str

    def __str__(self) -> str:
        return f"{self.name}:{self.start}-{self.stop}"


def read_regions(files: Iterable[Path], bed: Path) -> list[SequenceRow]:
    """The regions of a BED file, in its order, out of a genome in one or several FASTA files.

    Raises:
        BadCorpus: a region is not in the genome, or its sequence is there twice.
    """
    wanted = _read_bed(bed)
    by_name: dict[str, list[int]] = {}
    for number, region in enumerate(wanted):
        by_name.setdefault(region.name, []).append(number)
    rows: dict[int, SequenceRow] = {}
    found: dict[str, Path] = {}
    for path in files:
        for name, letters in _records(path):
            if name not in by_name:
                continue
            if name in found:
                raise BadCorpus(
                    f"{bed}: {name!r} is in {found[name]} and again in {path}",
                    "Which is meant cannot be told; give a genome that has it once.",
                )
            found[name] = path
            rows |= {i: _row(wanted[i], letters, path, bed) for i in by_name[name]}
    absent = [name for name in by_name if name not in found]
    if absent:
        raise BadCorpus(
            f"{bed}: the genome has no sequence {absent[0]!r}",
            "Names must agree: chr1 and 1 are two.",
        )
    return [rows[number] for number in sorted(rows)]


def _row(region: _Region, letters: str, path: Path, bed: Path) -> SequenceRow:
    if region.stop > len(letters):
        raise BadCorpus(
            f"{bed}: {region} is after the end of {region.name}, {len(letters)}",
            "Give the reference that the regions are of.",
        )
    text = letters[region.start : region.stop]
    return SequenceRow(f"{path}, {region}", text, reverse=region.strand == "-")


def _read_bed(path: Path) -> list[_Region]:
    """Raises `BadCorpus` where a line is none, or two regions overlap: tokens would count twice."""
    regions = []
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            first = next(iter(line.split()), "#")
            if first.startswith("#") or (first in ("track", "browser") and "\t" not in line):
                continue
            regions.append(_region(line.rstrip("\r\n").split("\t"), f"{path}, line {number}"))
    if not regions:
        raise BadCorpus(f"{path} names no region", "A line is a name, a start and an end.")
    _check_overlaps(path, regions)
    return regions


def _region(fields: list[str], where: str) -> _Region:
    numbers = [int(field) for field in fields[1:3] if _NUMBER.fullmatch(field)]
    if len(numbers) != 2 or not numbers[0] < numbers[1] or not fields[0]:
        raise BadCorpus(
            f"{where}: not a region", "A line of BED is a name, a start and an end, tabs between."
        )
    strand = fields[5] if len(fields) > 5 else "."
    if strand not in ("+", "-", "."):
        raise BadCorpus(
            f"{where}: {strand!r} is not a strand", "The sixth field of BED is '+', '-' or '.'."
        )
    return _Region(fields[0], numbers[0], numbers[1], strand)


def _check_overlaps(path: Path, regions: list[_Region]) -> None:
    ordered: dict[str, list[tuple[int, int]]] = {}
    for region in regions:
        span = (region.start, region.stop)
        spans = ordered.setdefault(region.name, [])
        place = bisect_left(spans, span)
        before = spans[place - 1] if place else (0, 0)
        after = spans[place] if place < len(spans) else (region.stop, region.stop)
        if before[1] > region.start or after[0] < region.stop:
            raise BadCorpus(
                f"{path}: {region} overlaps another region",
                "Merge them, for instance with bedtools merge.",
            )
        spans.insert(place, span)
