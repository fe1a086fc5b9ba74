"""Alphabets of biological sequences."""

from __future__ import annotations

from zoo.errors import BadCorpus

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
BASES = "ACGT"  # in this order the complement of base b is 3 - b

# What a corpus may hold: also unknown, two ambiguous ones, selenocysteine and pyrrolysine; and the
# unknown base.
PROTEIN_LETTERS = AMINO_ACIDS + "XBZUO"
DNA_LETTERS = BASES + "N"


def check_letters(sequence: str, alphabet: str, kind: str) -> None:
    """Refuses a sequence with a letter outside the alphabet, naming it and its place (from 1).

    Raises:
        BadCorpus: there is one.
    """
    known = frozenset(alphabet)
    if known.issuperset(sequence):
        return
    place, letter = next((i, c) for i, c in enumerate(sequence, 1) if c not in known)
    raise BadCorpus(
        f"{letter!r} at position {place} is not a letter of {kind}",
        f"Letters are {''.join(sorted(alphabet))}.",
    )
