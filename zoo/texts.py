"""Examples out of files: text, sequences, and columns of tables. No torch.

A file gives rows, whatever its format; `zoo.sequences` states the rules for rows of letters.
Text is taken as it is: a row of a table as a whole, of a `.txt` the passages between blank lines.
Where a `.txt` (of one that is streamed, four megabytes of it) has no blank line, lines in a row are
one passage, until it has `PASSAGE` characters or more; a line of more than `LONGEST_LINE` is cut,
at white space where there is some. Rows without a visible character are left out, and so is the
byte order mark at a file's beginning.
"""

from __future__ import annotations

import fnmatch
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Protocol, TypeVar

from zoo.cells import CELL_SUFFIXES
from zoo.contigs import CONTIG_COLUMNS, contig_row, is_contigs
from zoo.delimited import SEPARATORS, delimited_rows
from zoo.errors import BadCorpus, MissingExtra, UsageError
from zoo.fasta import FASTA_SUFFIXES, SequenceRow, open_text, read_fasta, read_regions
from zoo.files import PACKED, check_regular
from zoo.install import install_line
from zoo.sequences import read_rows
from zoo.table_columns import check_column, key_of, name_one
from zoo.tally import Tally

_TABLES, _MARKDOWN = (".jsonl", ".parquet", *SEPARATORS), ".md"
CORPUS_SUFFIXES = {
    "text": (*_TABLES, ".txt"),
    "protein": (*FASTA_SUFFIXES, *_TABLES),
    "dna": (*FASTA_SUFFIXES, *_TABLES),
    "cell": CELL_SUFFIXES,
    "image": (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".tif", ".tiff", ".webp", ".gif"),
}

# Formats that `zoo.streams` alone reads.
_ALSO_READ = {"text": (".tar",), "image": (".tar", ".parquet")}

# Formats of pictures that Pillow alone does not decode, or not the same everywhere.
_OTHER_PICTURES = (
    *(".avif", ".heic", ".heif", ".jxl", ".jp2", ".j2k", ".svg", ".psd", ".dcm", ".dng", ".cr2"),
    *(".nef", ".arw", ".tga", ".ppm", ".pgm", ".pnm", ".ico", ".exr", ".hdr"),
)

# Characters of a passage where no blank line says where it ends, and of a line that is not cut.
PASSAGE, LONGEST_LINE = 2000, 1 << 16

# JSON can say halves of UTF-16 pairs, which no encoder and no tokenizer takes.
_HALF = re.compile("[\ud800-\udfff]")


class _HasName(Protocol):
    """A path, or a file of any store."""

    @property
    def name(self) -> str: ...


Named = TypeVar("Named", bound=_HasName)


@dataclass(frozen=True)
class Examples:
    """The examples of a corpus, and what the rules of reading did, in words."""

    items: list[Any]
    notes: list[str]


def suffix_of(path: Path | str) -> str:
    """The suffix that says the format, whether or not the file is packed."""
    suffixes = [suffix.lower() for suffix in PurePath(path).suffixes if suffix not in PACKED]
    return suffixes[-1] if suffixes else ""


def files_of(path: Path, kind: str, glob: str = "*") -> list[Path]:
    """The file itself, or the files of the kind below a folder, in the order of their names.

    `glob` is matched with the path below the folder, `*` standing for folders too. What is hidden,
    in a folder such as `.git` or `.thumbs` or by itself, is no part of a corpus. Markdown is text
    where the glob names it: elsewhere it is what describes a corpus.
    So are `.csv` and `.tsv` beside files of other formats.
    """
    if not path.is_dir():
        return [path]
    suffixes = CORPUS_SUFFIXES[kind]
    if kind == "text" and glob.endswith(_MARKDOWN):
        suffixes = (*suffixes, _MARKDOWN)
    return without_companions([f for f in _below(path, glob) if suffix_of(f) in suffixes])


def files_to_read(path: Path, kind: str, glob: str = "*") -> list[Path]:
    """`files_of` a corpus, of which there are none where the folder is empty.

    Raises:
        BadCorpus: the folder holds files, and none of the kind.
    """
    files = files_of(path, kind, glob)
    if files or not (others := sum(1 for _ in _below(path, glob))):
        return files
    suffixes = sorted({*CORPUS_SUFFIXES[kind], *_ALSO_READ.get(kind, ())})
    counted = "its one file is not" if others == 1 else f"none of its {others} files is"
    raise BadCorpus(
        f"corpus {path}: {counted} read as {kind}",
        f"Give a folder of files ending in {', '.join(suffixes)}.",
    )


def without_companions(files: list[Named]) -> list[Named]:
    """The files without the `.csv` and `.tsv` beside other formats, which they describe."""
    others = [file for file in files if suffix_of(file.name) not in SEPARATORS]
    return others or files


def skipped_pictures(path: Path, glob: str = "*") -> Counter[str]:
    """The pictures below a folder that are of formats which are not read, by their suffixes."""
    files = _below(path, glob) if path.is_dir() else ()
    found = Counter(suffix_of(file) for file in files)
    return Counter({suffix: found[suffix] for suffix in _OTHER_PICTURES if found[suffix]})


def _below(path: Path, glob: str) -> Iterator[Path]:
    for file in sorted(path.rglob("*")):
        below = file.relative_to(path)
        hidden = any(part[0] == "." for part in below.parts)
        if not hidden and fnmatch.fnmatch(below.as_posix(), glob) and file.is_file():
            yield file


def patterns_of(glob: str, kind: str) -> list[str]:
    """The glob; one that says no format as those of files which are read as that kind."""
    if not glob.endswith("*"):
        return [glob]
    suffixes = dict.fromkeys([*CORPUS_SUFFIXES[kind], ".parquet", ".tar", ".tgz"])
    spelled = [spelling for each in suffixes for spelling in (each, each.upper())]
    return [f"{glob}{each}{end}" for each in spelled for end in ("", *PACKED)]


def check_suffix(path: Path, kind: str) -> None:
    """Raises `BadCorpus` where a file of this name cannot hold this kind."""
    if suffix_of(path) not in CORPUS_SUFFIXES[kind]:
        raise BadCorpus(
            f"corpus {path}: a {kind} corpus is not read from a file named like this",
            f"Give a file ending in {', '.join(sorted(CORPUS_SUFFIXES[kind]))}.",
        )


def check_options(path: Path, kind: str, column: str | None, regions: Path | None) -> None:
    """Refuses options that a corpus of this kind does not use; its files: `check_file_options`.

    Raises:
        UsageError: naming the option and why it means nothing here.
    """
    if regions is not None and kind != "dna":
        raise UsageError(
            f"regions ({regions}) are parts of a genome; corpus {path} is {kind}",
            "Leave the regions out.",
        )
    if kind == "synthetic":
        check_no_column(path, column)


def check_no_column(path: Path | str, column: str | None) -> None:
    """Raises `UsageError` where a column is named of what has none."""
    if column is not None:
        raise UsageError(
            f"column {column!r} is asked for, and corpus {path} is no table",
            "Leave --column out.",
        )


def check_file_options(files: list[Path], column: str | None, regions: Path | None) -> None:
    """Refuses options that do not apply to one of the files.

    Raises:
        UsageError: naming the file.
    """
    for file in files:
        if regions is not None and suffix_of(file) not in FASTA_SUFFIXES:
            raise UsageError(
                f"regions ({regions}) are parts of sequences with names, as FASTA has them; "
                f"{file} has none",
                "Give the genome as FASTA alone, or leave the regions out.",
            )
        if column is not None and suffix_of(file) not in _TABLES:
            raise UsageError(
                f"column {column!r} is asked for, and {file} is no table ({', '.join(_TABLES)})",
                "Leave --column out, or this file.",
            )


def read_examples(
    path: Path, kind: str, glob: str, column: str | None, regions: Path | None, skip_bad: int = 0
) -> Examples:
    """All examples of a file or folder, without up to `skip_bad` broken ones.

    Raises:
        BadCorpus: a file is broken, or holds what it should not.
        UsageError: an option does not apply to a file.
    """
    files = files_to_read(path, kind, glob)
    check_file_options(files, column, regions)
    for file in files:
        try:
            check_regular(file)
        except OSError as error:
            raise BadCorpus(f"{file} cannot be read ({error.strerror})") from None
    if regions is not None:
        rows: Iterator[SequenceRow] = iter(read_regions(files, regions))
    else:
        rows = itertools.chain.from_iterable(_rows(file, kind, column) for file in files)
    did = Tally(skip_bad)
    items = read_texts(rows, did) if kind == "text" else read_rows(rows, kind, did)
    return Examples(items, did.notes())


def read_texts(rows: Iterable[SequenceRow], did: Tally) -> list[str]:
    """The texts of rows that have one.

    Raises:
        BadCorpus: a row is broken, and no more may be left out.
    """
    found = []
    for row in rows:
        if row.bad is not None:
            did.leave_out(row.bad)
        elif row.text.strip():
            found.append(row.text)
    return found


def _rows(path: Path, kind: str, column: str | None) -> Iterator[SequenceRow]:
    key = key_of(kind, column)
    suffix = suffix_of(path)
    if suffix in FASTA_SUFFIXES:
        return read_fasta(path)
    readers: dict[str, Callable[[Path, str], Iterator[SequenceRow]]] = {
        ".txt": _read_txt,
        _MARKDOWN: _read_txt,
        ".jsonl": _read_jsonl,
        ".parquet": _read_parquet,
        **dict.fromkeys(SEPARATORS, _read_delimited),
    }
    return readers[suffix](path, key)


def _read_txt(path: Path, key: str) -> Iterator[SequenceRow]:
    with open_text(path) as file:
        text = file.read()
    yield from txt_rows(text, str(path))


def txt_rows(text: str, file: str) -> Iterator[SequenceRow]:
    """The passages of a text, as the rule above says."""
    divided = "\n\n" in text.strip()
    for number, passage in enumerate(text.split("\n\n") if divided else _gathered(text), 1):
        yield SequenceRow(f"{file}, passage {number}", passage.strip())


def _gathered(text: str) -> Iterator[str]:
    """Passages of lines in a row, each no longer than it must be."""
    lines: list[str] = []
    size = 0
    for line in itertools.chain.from_iterable(map(_cut, text.splitlines(keepends=True))):
        lines.append(line)
        size += len(line)
        if size >= PASSAGE:
            yield "".join(lines)
            lines, size = [], 0
    yield "".join(lines)


def _cut(line: str) -> Iterator[str]:
    """The line in pieces of at most `LONGEST_LINE` characters."""
    start = 0
    while len(line) - start > LONGEST_LINE:
        stop = line.rfind(" ", start, start + LONGEST_LINE) + 1 or start + LONGEST_LINE
        yield line[start:stop]
        start = stop
    yield line[start:]


def _read_jsonl(path: Path, key: str) -> Iterator[SequenceRow]:
    with open_text(path) as file:
        yield from jsonl_rows(file, str(path), key)


def jsonl_rows(lines: Iterable[str], file: str, key: str) -> Iterator[SequenceRow]:
    """The texts at a key of JSON lines; `bad` where a line is no object with a text there."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        try:
            yield SequenceRow(where, _text_at(key, line, where))
        except BadCorpus as error:
            yield SequenceRow(where, "", bad=error)


def _read_delimited(path: Path, key: str) -> Iterator[SequenceRow]:
    with open_text(path) as file:
        yield from delimited_rows(file, SEPARATORS[suffix_of(path)], str(path), key)


def _text_at(key: str, line: str, where: str) -> str:
    """Raises `BadCorpus` where the line is no object with a text at the key."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    value = found.get(key, ...) if isinstance(found, dict) else ...
    if value is not None and not isinstance(value, str):
        known = [k for k, v in found.items() if isinstance(v, str)] if found else []
        raise BadCorpus(
            f"{where}: not a JSON object with a text at the key {key!r}",
            name_one(map(ascii, known), "text") if isinstance(found, dict) else "",
        )
    if value and _HALF.search(value):
        raise BadCorpus(
            f"{where}: half a character (\\ud800 to \\udfff) is no text",
            "Write the file with whole characters.",
        )
    return value or ""


def _read_parquet(path: Path, key: str) -> Iterator[SequenceRow]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtra(
            "reading .parquet needs the package pyarrow, which is not installed",
            install_line("parquet"),
        ) from None
    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
        if key not in names and is_contigs(names):
            number = 0
            for batch in file.iter_batches(columns=list(CONTIG_COLUMNS)):
                for row in batch.to_pylist():
                    number += 1
                    yield contig_row(row, f"{path}, row {number}")
            return
        check_column(file.schema_arrow, key, "text", str(path))
        number = 0
        for batch in file.iter_batches(columns=[key]):
            for value in batch.column(0).to_pylist():
                number += 1
                yield SequenceRow(f"{path}, row {number}", value or "")
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise BadCorpus(f"{path} cannot be read ({' '.join(str(error).split())[:200]})") from None
