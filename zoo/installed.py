"""Corpora that other packages bring onto a machine: pip's and Debian's. No torch.

Nothing of them comes with gammabench. A card says the command that installs its package, and where
the files then are: below a module's folder, or below a folder of the system.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from zoo.cards import CorpusCard
from zoo.errors import BadCorpus, CorpusUnavailable
from zoo.fasta import SequenceRow, read_fasta
from zoo.sequences import clean, read_rows
from zoo.tally import Tally
from zoo.texts import Examples, files_of


def is_installed(card: CorpusCard) -> bool:
    """Whether the files of an installed corpus are on this machine."""
    folder = _folder(card)
    return folder is not None and bool(files_of(folder, card.kind, str(card.path)))


def installed_folder(card: CorpusCard) -> Path:
    """The folder that the card's `path` is a glob below.

    Raises:
        CorpusUnavailable: the package is not installed.
    """
    folder = _folder(card)
    if folder is None or not is_installed(card):
        raise CorpusUnavailable(f"corpus {card.id!r} is not installed", f"Say {card.install}.")
    return folder


def _folder(card: CorpusCard) -> Path | None:
    """The folder that `path` is below; None where it is not there."""
    if card.module is None:
        folder = Path(str(card.folder))
        return folder if folder.is_dir() else None
    # Found without importing the module.
    spec = find_spec(card.module)
    return next((Path(place) for place in (spec and spec.submodule_search_locations) or ()), None)


def read_translated(folder: Path, glob: str, skip_bad: int) -> Examples:
    """The proteins that the genes or transcripts of FASTA files code for, each once."""
    did = Tally(skip_bad)
    rows = (row for file in files_of(folder, "protein", glob) for row in read_fasta(file))
    found = read_rows(_proteins(rows), "protein", did)
    distinct = list(dict.fromkeys(found))
    did["the same as another, left out"] += len(found) - len(distinct)
    return Examples(distinct, did.notes())


def _proteins(rows: Iterator[SequenceRow]) -> Iterator[SequenceRow]:
    for row in rows:
        try:
            dna = clean(row.text, "dna", row.where, Tally())
        except BadCorpus as error:
            yield row._replace(bad=error)
        else:
            yield SequenceRow(row.where, longest_open_frame(dna))


def longest_open_frame(dna: str) -> str:
    """The longest protein without a stop in any of the six reading frames; the first of several.

    dna: capitals; a codon with an N is X. It need not begin at a start codon: reads of antibodies
    are of a part of a transcript.
    """
    from Bio.Seq import reverse_complement, translate

    frames = [strand[shift:] for strand in (dna, reverse_complement(dna)) for shift in range(3)]
    whole = (frame[: len(frame) // 3 * 3] for frame in frames)
    return max((part for each in whole for part in translate(each).split("*")), key=len)
