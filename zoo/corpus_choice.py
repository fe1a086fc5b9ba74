"""What a user asks a model to read: `--corpus`, `--column`, `--regions` and `--skip-bad`. No torch.

A corpus is named by its card, is a file or folder, or has an address that `zoo.corpus_address`
reads. Without one a model reads the corpus of its own card.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from zoo.cards import MAKES_DATA, Card, CorpusCard, CorpusKind
from zoo.corpora import file_corpus, open_corpus
from zoo.corpus import Corpus
from zoo.corpus_address import Address, parse_address
from zoo.errors import UsageError
from zoo.registry import Registry
from zoo.table_columns import column_name


@dataclass(frozen=True)
class CorpusChoice:
    """The options, with names resolved but nothing opened.

    Attributes:
        source: None is the corpus of the model's card.
        column: of the examples, where it is not the usual one; it is part of the corpus' name.
        regions: a BED file that says which parts of a genome are meant.
        skip_bad: how many broken pictures, sequences and rows may be left out.
    """

    source: Path | Address | CorpusCard | None = None
    column: str | None = None
    regions: Path | None = None
    skip_bad: int = 0

    def card(self, model: Card, registry: Registry) -> CorpusCard | None:
        """The card of the corpus that a model reads; None where the user's own has none."""
        if self.source is None:
            return registry.corpus_of(model)
        return self.source if isinstance(self.source, CorpusCard) else None

    def name(self, model: Card, registry: Registry) -> str:
        """What the corpus is called where it cannot be opened."""
        card = self.card(model, registry)
        return str(self.source) if card is None else card.id

    def open(self, model: Card, registry: Registry) -> Corpus:
        """What the model is measured on.

        Raises:
            BadCorpus: it is absent or unreadable. Unavailable: it was not downloaded, or cannot be.
            UsageError: the model takes no corpus, or no regions, or one of another kind.
        """
        if self.source is None:
            return self._of_card(model, registry)
        if registry.corpus(model.corpus).source == "none":
            raise UsageError(
                f"--corpus: model {model.id!r} is activations that are stored or made, and reads "
                "none",
                "Leave --corpus out.",
            )
        kind = model.kind
        corpus = self._opened(model, kind, registry)
        corpus.name = column_name(corpus.name, kind, self.column)
        return corpus

    def _of_card(self, model: Card, registry: Registry) -> Corpus:
        corpus = open_corpus(registry.corpus_of(model), self.skip_bad)
        if model.real_corpus is not None and corpus.name != model.real_corpus:
            wanted = registry.corpus(model.real_corpus)
            corpus.notes = [
                f"made data in place of {wanted.id}, which is real and not installed: "
                f"{wanted.install}"
            ]
        return corpus

    def _opened(self, model: Card, kind: CorpusKind, registry: Registry) -> Corpus:
        source = self.source
        assert source is not None
        if isinstance(source, Path):
            return file_corpus(
                source, kind, column=self.column, regions=self.regions, skip_bad=self.skip_bad
            )
        if not isinstance(source, CorpusCard):
            return source.open(kind, self.column, self.skip_bad)
        if source.kind != kind:
            names = [c.id for c in registry.corpora.values() if c.kind == kind]
            raise UsageError(
                f"--corpus: {source.id} is {source.kind}, and model {model.id!r} reads {kind}",
                f"There are: {', '.join(names)}.",
            )
        if self.column is None:
            return open_corpus(source, self.skip_bad)
        if source.source in MAKES_DATA:
            raise UsageError(
                f"--column: corpus {source.id} is made by a program and has no columns",
                "Leave --column out.",
            )
        return open_corpus(source.with_column(self.column), self.skip_bad)


def choose_corpus(
    registry: Registry,
    corpus: str | None,
    *,
    column: str | None = None,
    regions: Path | None = None,
    skip_bad: int = 0,
) -> CorpusChoice:
    """What the options mean: an address, a path that is there, else a corpus of that name.

    Raises:
        UsageError: it is none of these; regions are named of what is no file, or a column of
            nothing.
    """
    if corpus is None and column is not None:
        raise UsageError("--column names a column of a table", "Give the table with --corpus PATH.")
    if corpus is None and regions is not None:
        raise UsageError("--regions names parts of a genome", "Give the genome with --corpus PATH.")
    source = None if corpus is None else _source(registry, corpus)
    if regions is not None and not isinstance(source, Path):
        raise UsageError(
            "--regions names parts of a genome", "Give the genome's file with --corpus PATH."
        )
    if regions is not None and not regions.exists():
        raise UsageError(f"--regions: nothing at {regions}")
    return CorpusChoice(source, column, regions, skip_bad)


def _source(registry: Registry, asked: str) -> Path | Address | CorpusCard:
    if (address := parse_address(asked)) is not None:
        return address
    if Path(asked).exists():
        return Path(asked)
    if asked in registry.corpora:
        return registry.corpora[asked]
    near = difflib.get_close_matches(asked, registry.corpora, n=1, cutoff=0.6)
    raise UsageError(
        f"--corpus: nothing at {asked}, and no corpus has that name",
        f"Did you mean {near[0]}?" if near else "`bench list corpora` names them.",
    )
