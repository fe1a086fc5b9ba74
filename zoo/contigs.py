"""Mixed contigs: proteins and the bases between them in one sequence, as gLM2 reads them. No torch.

A row of the OMG dataset holds the coding sequences (`CDS_*`) and the intergenic ones (`IGS_*`) of a
scaffold as lists, and the place of each. They are joined in that order: a coding sequence is `<+>`
or `<->`, its strand, and amino acids in capitals; an intergenic one is `<+>` and bases in lower
case. A separator of contigs (`<sep>`) is left out; the stop at the end of a protein is for
`zoo.sequences` to take off.

Format: the dataset's card, and scripts/tokenize.py of github.com/TattaBio/OMG.
"""

from __future__ import annotations

from typing import Any

from zoo.errors import BadCorpus
from zoo.fasta import SequenceRow

CONTIG_COLUMNS = (
    "CDS_seqs",
    "CDS_position_ids",
    "CDS_orientations",
    "IGS_seqs",
    "IGS_position_ids",
)


def is_contigs(names: list[str]) -> bool:
    """Whether a table with these columns is of mixed contigs."""
    return set(CONTIG_COLUMNS) <= set(names)


def contig_row(row: dict[str, Any], where: str) -> SequenceRow:
    """The sequence of a row, or why there is none."""
    try:
        return SequenceRow(where, contig(row, where))
    except BadCorpus as error:
        return SequenceRow(where, "", bad=error)


def contig(row: dict[str, Any], where: str) -> str:
    """The sequence of a row.

    Raises:
        BadCorpus: a list is missing, or the lists of one kind are not of one length.
    """
    cds, at, strands, igs, between = (row[name] or [] for name in CONTIG_COLUMNS)
    if not len(cds) == len(at) == len(strands) or len(igs) != len(between):
        raise BadCorpus(f"{where}: the lists of a contig are not of one length")
    parts: dict[int, str] = {}
    for place, forward, letters in zip(at, strands, cds, strict=True):
        parts[place] = ("<+>" if forward else "<->") + letters.upper()
    for place, letters in zip(between, igs, strict=True):
        if letters != "<sep>":
            parts[place] = "<+>" + letters.lower()
    if len(parts) != len(cds) + sum(letters != "<sep>" for letters in igs):
        raise BadCorpus(f"{where}: two sequences of a contig are at one place")
    return "".join(parts[place] for place in sorted(parts))
