"""Examples out of files: text, and columns of tables; FASTA by way of `zoo.sequences`. No torch."""

from __future__ import annotations

import fnmatch
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import BadCorpus, MissingExtra
from zoo.sequences import clean, notes, open_text, read_fasta

FASTA_SUFFIXES = (".fa", ".fasta", ".faa", ".fna", ".ffn", ".fas")
_TABLES = (".jsonl", ".parquet")
SUFFIXES = {
    "text": (*_TABLES, ".txt"),
    "protein": (*FASTA_SUFFIXES, *_TABLES),
    "dna": (*FASTA_SUFFIXES, *_TABLES),
    "image": (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif"),
}


@dataclass(frozen=True)
class Examples:
    """The examples of a corpus, and what the rules of reading did, in words."""

    items: list[str]
    notes: list[str]


def suffix_of(path: Path) -> str:
    """The suffix that says the format, whether or not the file is gzipped."""
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix != ".gz"]
    return suffixes[-1] if suffixes else ""


def files_of(path: Path, kind: str, glob: str = "*") -> list[Path]:
    """The file itself, or the files of the kind below a folder, in the order of their names.

    `glob` is matched with the path below the folder, `*` standing for folders too.
    """
    if not path.is_dir():
        return [path]
    return [
        file
        for file in sorted(path.rglob("*"))
        if suffix_of(file) in SUFFIXES[kind]
        and file.is_file()
        and file.name[0] != "."
        and fnmatch.fnmatch(file.relative_to(path).as_posix(), glob)
    ]


def check_suffix(path: Path, kind: str) -> None:
    """Raises `BadCorpus` where a file of this name cannot hold this kind."""
    if suffix_of(path) not in SUFFIXES[kind]:
        raise BadCorpus(
            f"corpus {path}: a {kind} corpus is not read from a file named like this",
            f"Give a file ending in {', '.join(sorted(SUFFIXES[kind]))}.",
        )


def read_examples(
    path: Path, kind: str, glob: str, column: str | None, regions: Path | None
) -> Examples:
    """All examples of a file or folder.

    Raises:
        BadCorpus: a file is broken, or holds what it should not.
    """
    items: list[str] = []
    told: list[str] = []
    for file in files_of(path, kind, glob):
        found, did = _examples(file, kind, column, regions)
        items += found
        told += did
    return Examples(items, told)


def _examples(
    path: Path, kind: str, column: str | None, regions: Path | None
) -> tuple[list[str], list[str]]:
    suffix = suffix_of(path)
    if suffix in FASTA_SUFFIXES:
        return read_fasta(path, kind, regions)
    if suffix == ".txt":
        return _read_txt(path), []
    key = column or ("text" if kind == "text" else "sequence")
    rows = _read_jsonl(path, key) if suffix == ".jsonl" else _read_parquet(path, key)
    if kind == "text":
        return [text for text in rows if text.strip()], []
    did: Counter[str] = Counter()
    cleaned = [clean(raw, kind, f"{path}, row {i}", did) for i, raw in enumerate(rows, 1)]
    return [sequence for sequence in cleaned if sequence], notes(did)


def _read_txt(path: Path) -> list[str]:
    with open_text(path) as file:
        text = file.read()
    return [passage.strip() for passage in text.split("\n\n") if passage.strip()]


def _read_jsonl(path: Path, key: str) -> Iterator[str]:
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)[key]
            except (ValueError, KeyError, TypeError):
                value = None
            if not isinstance(value, str):
                raise BadCorpus(
                    f"{path}, line {number}: not a JSON object with a text at the key {key!r}"
                )
            yield value


def _read_parquet(path: Path, key: str) -> Iterator[str]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtra(
            "reading .parquet needs the package pyarrow, which is not installed",
            'pip install "gammabench[parquet]"',
        ) from None
    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
        if key not in names:
            raise BadCorpus(
                f"{path} has no column {key!r}", f"Its columns are {', '.join(names[:12])}."
            )
        kind = file.schema_arrow.field(key).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise BadCorpus(f"{path}: the column {key!r} holds {kind}, not text")
        for batch in file.iter_batches(columns=[key]):
            yield from (value for value in batch.column(0).to_pylist() if value)
    except (pa.ArrowException, OSError) as error:
        raise BadCorpus(f"{path} cannot be read ({' '.join(str(error).split())[:200]})") from None
