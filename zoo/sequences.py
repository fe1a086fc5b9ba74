"""Biological sequences by stated rules, whatever file they come from; what a rule did is counted.

letters   White space is taken out.
proteins  Capitals. A `*` at the end, which says that the protein ends, is taken off; another one
          is an error. J (leucine or isoleucine), which no vocabulary has, is read as X. The letters
          are the twenty and X, B, Z, U, O; what becomes of these five is the model's tokenizer's to
          say.
DNA       Capitals: lower case marks repeats. U is read as T, and the letters of the IUPAC code for
          more than one base as N. A piece of which more than a tenth is N is left out.
contigs   Among proteins, a sequence with strand marks (`<+>`, `<->`) keeps its case: amino acids
          are capitals, bases lower case (gLM2). A `*` at the end of one of its proteins is
          taken off.

Any other letter is an error that names the record and the place; `--skip-bad` leaves such
sequences out, and counts them. A DNA sequence longer than
`PIECE` is cut into consecutive pieces of that length, the last one longer by what is left if that
is less than half a piece. Proteins are cut only into the model's windows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from zoo.errors import BadCorpus
from zoo.fasta import SequenceRow
from zoo.letters import DNA_LETTERS, PROTEIN_LETTERS
from zoo.tally import Tally

# Longer than what any trunk of the zoo takes at once (Borzoi: 524,288), so a piece fills a window.
PIECE = 1 << 20

# The share of N beyond which a piece of DNA is left out.
MOST_N = 0.1

_TO_PROTEIN = str.maketrans("J", "X")
_TO_DNA = str.maketrans("URYSWKMBDHV", "TNNNNNNNNNN")
_FOREIGN = {
    "protein": re.compile(f"[^{PROTEIN_LETTERS}]"),
    "dna": re.compile(f"[^{DNA_LETTERS}]"),
    "contig": re.compile(f"[^{PROTEIN_LETTERS}acgtn]"),
}
_STRANDS = re.compile(r"<[+-]>")
_STOPPED = "with a stop at the end, taken off"
_STOPS = re.compile(r"(?<=[A-Z])\*(?=<[+-]>|$)")


def read_rows(rows: Iterable[SequenceRow], kind: str, did: Tally) -> list[str]:
    """The sequences that rows of letters give; what the rules did is added to `did`.

    Args:
        kind: `protein` or `dna`.

    Raises:
        BadCorpus: a letter is none, and no more may be left out.
    """
    found = []
    for row in rows:
        try:
            if row.bad is not None:
                raise row.bad
            own: Counter[str] = Counter()
            sequence = clean(row.text, kind, row.where, own)
        except BadCorpus as error:
            did.leave_out(error)
            continue
        did.update(own)
        if row.reverse:
            from Bio.Seq import reverse_complement

            sequence = reverse_complement(sequence)
        for piece in pieces(sequence) if kind == "dna" else [sequence]:
            if _is_kept(piece, kind, did):
                found.append(piece)
    return found


def clean(raw: str, kind: str, where: str, did: Counter[str]) -> str:
    """The sequence by the rules; what they did is added to `did`.

    Raises:
        BadCorpus: naming the first letter that is none, and its place from 1 without white space.
    """
    raw = "".join(raw.split())
    if (
        not raw.isascii()
    ):  # capitals of other letters may look like these: of the German sharp s, SS
        _check(raw, kind, where, re.compile("[^\0-\x7f]"))
    contig = kind == "protein" and _STRANDS.search(raw) is not None
    sequence = raw if contig else raw.upper()
    if contig:
        # As long as before, so that the place of a letter is that in the file.
        letters = _STRANDS.sub("AAA", _STOPS.sub("A", sequence))
        _check(letters, "contig", where, _FOREIGN["contig"])
        sequence, stops = _STOPS.subn("", sequence)
        did[_STOPPED] += stops
        return sequence
    if sequence != raw:
        did["in lower case, read as capitals"] += 1
    if kind == "protein":
        if sequence.endswith("*"):
            sequence = sequence[:-1]
            did[_STOPPED] += 1
        did["letters J read as X"] += sequence.count("J")
        sequence = sequence.translate(_TO_PROTEIN)
        did["letters X, B, Z, U or O left to the tokenizer"] += sum(map(sequence.count, "XBZUO"))
    else:
        before = sequence.count("N")
        did["letters U read as T"] += sequence.count("U")
        sequence = sequence.translate(_TO_DNA)
        did["ambiguous letters read as N"] += sequence.count("N") - before
    _check(sequence, kind, where, _FOREIGN[kind])
    return sequence


_GAP = "Gaps of an alignment have to be taken out."
_STOP = "A stop within a protein: correct its reading frame, or leave such out with --skip-bad N."
_REMEDIES = {"-": _GAP, ".": _GAP, "*": _STOP}


def _check(sequence: str, kind: str, where: str, not_one: re.Pattern[str]) -> None:
    foreign = not_one.search(sequence)
    if foreign is not None:
        what = {"protein": "proteins", "dna": "DNA", "contig": "contigs"}[kind]
        raise BadCorpus(
            f"{where}: {foreign[0]!r} at position {foreign.start() + 1} is not a letter of {what}",
            _REMEDIES.get(foreign[0], ""),
        )


def pieces(sequence: str) -> list[str]:
    """A long sequence in consecutive pieces, of which none is shorter than half a piece."""
    starts = list(range(0, len(sequence) or 1, PIECE))
    if len(starts) > 1 and len(sequence) - starts[-1] < PIECE // 2:
        starts.pop()
    return [sequence[a:b] for a, b in zip(starts, [*starts[1:], len(sequence)], strict=True)]


def _is_kept(sequence: str, kind: str, did: Tally) -> bool:
    if not sequence:
        did["without letters, left out"] += 1
        return False
    if kind == "dna" and sequence.count("N") > MOST_N * len(sequence):
        did[f"more than {MOST_N:.0%} N, left out"] += 1
        return False
    return True
