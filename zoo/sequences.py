"""Biological sequences out of FASTA and BED files, by stated rules; what a rule did is counted.

proteins  Capitals. A `*` at the end, which says that the protein ends, is taken off. J (leucine or
          isoleucine), which no vocabulary has, is read as X. The letters are the twenty and X, B,
          Z, U, O; what becomes of these five is the model's tokenizer's to say.
DNA       Capitals: lower case marks repeats. U is read as T, and the letters of the IUPAC code for
          more than one base as N. A piece of which more than a tenth is N is left out.
contigs   Among proteins, a sequence with strand marks (`<+>`, `<->`) keeps its case: amino acids
          are capitals, bases lower case (gLM2).

Any other letter is an error that names the record and the place. A DNA sequence longer than
`PIECE` is cut into consecutive pieces of that length, the last one longer by what is left if that
is less than half a piece. Proteins are cut by nobody but the model's own windows.
"""

from __future__ import annotations

import gzip
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from zoo.errors import BadCorpus

# Longer than what any trunk of the zoo takes at once (Borzoi: 524,288), so a piece fills a window.
PIECE = 1 << 20

# The share of N beyond which a piece of DNA is left out.
MOST_N = 0.1

_AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWYXBZUO"
_TO_PROTEIN = str.maketrans("J", "X")
_TO_DNA = str.maketrans("URYSWKMBDHV", "TNNNNNNNNNN")
_FOREIGN = {
    "protein": re.compile(f"[^{_AMINO_ACIDS}]"),
    "dna": re.compile("[^ACGTN]"),
    "contig": re.compile(f"[^{_AMINO_ACIDS}acgtn]"),
}
_STRANDS = re.compile(r"<[+-]>")


def read_fasta(path: Path, kind: str, regions: Path | None = None) -> tuple[list[str], list[str]]:
    """The sequences of a FASTA file, gzipped or not, and what the rules did, in words.

    Args:
        kind: `protein` or `dna`.
        regions: a BED file; the sequences are then those of its lines, in its order.

    Raises:
        BadCorpus: the file is not FASTA, a letter is none, or a region is not in the reference.
    """
    did: Counter[str] = Counter()
    if regions is not None:
        return _regions(path, regions, did), notes(did)
    found = []
    for name, raw in records(path):
        sequence = clean(raw, kind, f"{path}, {name}", did)
        for piece in pieces(sequence) if kind == "dna" else [sequence]:
            if _is_kept(piece, kind, did):
                found.append(piece)
    return found, notes(did)


def records(path: Path) -> Iterator[tuple[str, str]]:
    """Name and letters of each record, one at a time.

    Raises:
        BadCorpus: the file is not FASTA, cannot be read, or is not text.
    """
    from Bio.SeqIO.FastaIO import SimpleFastaParser

    with open_text(path) as file:
        first = next((line for line in file if line.strip()), "")
        if first and not first.startswith(">"):
            # The parser would skip everything in front of the first '>' without a word.
            raise BadCorpus(f"{path} is not FASTA", "Records begin with '>'.")
    with open_text(path) as file:
        for title, sequence in SimpleFastaParser(file):
            yield title.split()[0] if title.split() else "a record without a name", sequence


class open_text:  # noqa: N801 (used like a function)
    """A context with the file's lines; what is wrong with it is raised as `BadCorpus`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> IO[str]:
        try:
            if self.path.suffix == ".gz":
                self._file: IO[str] = gzip.open(self.path, "rt", encoding="utf-8")
            else:
                self._file = self.path.open(encoding="utf-8")
        except OSError as error:
            raise BadCorpus(f"{self.path} cannot be read ({error})") from None
        return self._file

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._file.close()
        if isinstance(error, UnicodeDecodeError):
            raise BadCorpus(
                f"{self.path} is not UTF-8 text (byte {error.start})",
                "Convert it, for instance with iconv.",
            ) from None
        if isinstance(error, OSError | EOFError):
            raise BadCorpus(f"{self.path} cannot be read ({error})") from None


def clean(raw: str, kind: str, where: str, did: Counter[str]) -> str:
    """The sequence by the rules; what they did is added to `did`.

    Raises:
        BadCorpus: naming the first letter that is none, and its place from 1.
    """
    contig = kind == "protein" and _STRANDS.search(raw) is not None
    sequence = raw if contig else raw.upper()
    if contig:
        letters = _STRANDS.sub("   ", sequence).replace(" ", "A")
        _check(letters, "contig", where)
        return sequence
    if sequence != raw:
        did["in lower case, read as capitals"] += 1
    if kind == "protein":
        if sequence.endswith("*"):
            sequence = sequence[:-1]
            did["with a stop at the end, taken off"] += 1
        did["letters J read as X"] += sequence.count("J")
        sequence = sequence.translate(_TO_PROTEIN)
        did["letters X, B, Z, U or O left to the tokenizer"] += sum(map(sequence.count, "XBZUO"))
    else:
        before = sequence.count("N")
        did["letters U read as T"] += sequence.count("U")
        sequence = sequence.translate(_TO_DNA)
        did["ambiguous letters read as N"] += sequence.count("N") - before
    _check(sequence, kind, where)
    return sequence


def _check(sequence: str, kind: str, where: str) -> None:
    foreign = _FOREIGN[kind].search(sequence)
    if foreign is not None:
        what = {"protein": "proteins", "dna": "DNA", "contig": "contigs"}[kind]
        raise BadCorpus(
            f"{where}: {foreign[0]!r} at position {foreign.start() + 1} is not a letter of {what}",
            "Gaps of an alignment have to be taken out." if foreign[0] in "-." else "",
        )


def pieces(sequence: str) -> list[str]:
    """A long sequence in consecutive pieces, of which none is shorter than half a piece."""
    starts = list(range(0, len(sequence), PIECE))
    if len(starts) > 1 and len(sequence) - starts[-1] < PIECE // 2:
        starts.pop()
    return [sequence[a:b] for a, b in zip(starts, [*starts[1:], len(sequence)], strict=True)]


def _is_kept(sequence: str, kind: str, did: Counter[str]) -> bool:
    if not sequence:
        did["without letters, left out"] += 1
        return False
    if kind == "dna" and sequence.count("N") > MOST_N * len(sequence):
        did[f"more than {MOST_N:.0%} N, left out"] += 1
        return False
    return True


def notes(did: Counter[str]) -> list[str]:
    """What the rules did, in words, without what they did not do."""
    return [f"{count:,} {what}" for what, count in did.items() if count]


# ---------------------------------------------------------------------------------------- BED


def _regions(path: Path, regions: Path, did: Counter[str]) -> list[str]:
    """The sequences of a BED file's lines, on the strand they say, one chromosome at a time."""
    wanted = _bed(regions)
    by_name: dict[str, list[int]] = {}
    for number, (name, _, _, _) in enumerate(wanted):
        by_name.setdefault(name, []).append(number)
    found: dict[int, str] = {}
    for name, raw in records(path):
        for number in by_name.pop(name, ()):
            _, start, stop, strand = wanted[number]
            if stop > len(raw):
                raise BadCorpus(
                    f"{regions}: {name}:{start}-{stop} is after the end of {name}, {len(raw)}",
                    "Give the reference that the regions are of.",
                )
            where = f"{path}, {name}:{start}-{stop}"
            sequence = clean(raw[start:stop], "dna", where, did)
            if strand == "-":
                from Bio.Seq import reverse_complement

                sequence = reverse_complement(sequence)
            if _is_kept(sequence, "dna", did):
                found[number] = sequence
    if by_name:
        raise BadCorpus(
            f"{regions}: {path} has no sequence {next(iter(by_name))!r}",
            "Names must agree: chr1 and 1 are two.",
        )
    return [found[number] for number in sorted(found)]


def _bed(path: Path) -> list[tuple[str, int, int, str]]:
    """Name, start, end (from 0, the end excluded) and strand of each line of a BED file.

    Raises:
        BadCorpus: a line is none, or two regions overlap: tokens would be counted twice.
    """
    lines = []
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip() or line.startswith(("#", "track", "browser")):
                continue
            fields = line.rstrip("\n").split("\t")
            try:
                start, stop = int(fields[1]), int(fields[2])
            except (IndexError, ValueError):
                start = stop = -1
            if not 0 <= start < stop:
                raise BadCorpus(
                    f"{path}, line {number}: not a region",
                    "A line of BED is a name, a start and an end with tabs between.",
                )
            strand = fields[5] if len(fields) > 5 else "."
            lines.append((fields[0], start, stop, strand))
    _check_overlaps(path, lines)
    return lines


def _check_overlaps(path: Path, lines: list[tuple[str, int, int, str]]) -> None:
    ordered: dict[str, list[tuple[int, int]]] = {}
    for name, start, stop, _ in lines:
        spans = ordered.setdefault(name, [])
        place = bisect_left(spans, (start, stop))
        before = spans[place - 1] if place else (0, 0)
        after = spans[place] if place < len(spans) else (stop, stop)
        if before[1] > start or after[0] < stop:
            raise BadCorpus(
                f"{path}: {name}:{start}-{stop} overlaps another region",
                "Merge them, for instance with bedtools merge.",
            )
        spans.insert(place, (start, stop))
