"""Finds cards, corpora and suites: in this package, in a user's folder, in other distributions.

A folder of cards holds `*.yaml` (one model each), and may hold `corpora/*.yaml`, `saes/*.yaml` and
`suites/*.yaml`. Another distribution offers its folder through the entry-point group
`gammabench.cards`, whose value is the name of the package that holds the folder; the package is
located, not imported.
"""

from __future__ import annotations

import fnmatch
import importlib.metadata
import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel

from zoo.cards import DOMAINS, Card, CorpusCard, read_model
from zoo.errors import BadCard, UnknownName, UsageError
from zoo.saes import SaeCard
from zoo.suites import Suite

_ENTRY_POINTS = "gammabench.cards"
DEFAULT_SUITE = "embedded"


@dataclass
class Registry:
    """Everything that is known, by id. `origin` says where each was found."""

    cards: dict[str, Card] = field(default_factory=dict)
    corpora: dict[str, CorpusCard] = field(default_factory=dict)
    suites: dict[str, Suite] = field(default_factory=dict)
    saes: dict[str, SaeCard] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)

    def card(self, name: str) -> Card:
        """The card of that id. Raises `UnknownName`, with near names."""
        if name not in self.cards:
            raise UnknownName("model", name, self.cards, "`bench list` names them all.")
        return self.cards[name]

    def corpus(self, name: str) -> CorpusCard:
        """The corpus of that id. Raises `UnknownName`."""
        if name not in self.corpora:
            raise UnknownName("corpus", name, self.corpora, "`bench list corpora` names them all.")
        return self.corpora[name]

    def corpus_of(self, card: Card) -> CorpusCard:
        """What a model reads where nothing else is asked for: real data that comes with a package,
        where the card names some and the package is installed."""
        return self.real_corpus_of(card) or self.corpus(card.corpus)

    def real_corpus_of(self, card: Card) -> CorpusCard | None:
        """The installed corpus that a card names; None where there is none, or it is not here."""
        if card.real_corpus is None:
            return None
        from zoo.installed import is_installed

        found = self.corpus(card.real_corpus)
        return found if is_installed(found) else None

    def suite(self, name: str) -> Suite:
        """The suite of that id. Raises `UnknownName`."""
        if name not in self.suites:
            raise UnknownName("suite", name, self.suites, _choices(self.suites))
        return self.suites[name]

    def sae(self, name: str) -> SaeCard:
        """The published SAEs of that id. Raises `UnknownName`."""
        if name not in self.saes:
            raise UnknownName("SAE", name, self.saes, "`bench list saes` names them all.")
        return self.saes[name]

    def published_layers(self, card: Card) -> dict[int, int]:
        """The numbers of a card's layers in the published tables of any suite, by our numbers."""
        found = (suite.published_layers(card) for suite in self.suites.values())
        return next((numbers for numbers in found if numbers), {})

    def select(
        self,
        *,
        suite: str | None = None,
        models: Sequence[str] = (),
        domains: Sequence[str] = (),
    ) -> list[Card]:
        """The cards a request means, in the order of the suite or of the registry.

        Model globs range over the whole registry unless a suite is named; without globs the
        default suite is meant. Domains narrow either.

        Raises:
            UnknownName: a suite, a domain, or a glob that matches nothing.
            UsageError: the names are right but nothing is left of their combination.
        """
        for domain in domains:
            if domain not in DOMAINS:
                raise UnknownName("domain", domain, DOMAINS, _choices(DOMAINS))
        if suite is None and models:
            pool = list(self.cards.values())
        else:
            pool = [self.card(name) for name in self.suite(suite or DEFAULT_SUITE).models]
        for pattern in models:
            if not any(fnmatch.fnmatchcase(card.id, pattern) for card in pool):
                if pattern in self.suites:
                    raise UsageError(
                        f"{pattern!r} is a suite, not a model", f"Say --suite {pattern}."
                    )
                if pattern in self.corpora:
                    raise UsageError(
                        f"{pattern!r} is a corpus, not a model",
                        f"Say --corpus {pattern}; `bench list corpora {pattern}` tells of it.",
                    )
                names = [*(card.id for card in pool), *DOMAINS]
                raise UnknownName("model", pattern, names, "`bench list` names them all.")
        chosen = [
            card
            for card in pool
            if (not domains or card.domain in domains)
            and (not models or any(fnmatch.fnmatchcase(card.id, glob) for glob in models))
        ]
        if not chosen:
            where = f"suite {suite or DEFAULT_SUITE!r}" if not models else "the models named"
            raise UsageError(f"no model of domain {', '.join(domains)} in {where}")
        return chosen

    def add_folder(self, folder: Path, origin: str) -> None:
        """Reads one folder of cards into the registry.

        Raises:
            BadCard: a file does not validate, or an id is taken.
        """
        for path in sorted(folder.glob("*.yaml")):
            card = read_model(Card, path)
            card._folder = folder
            self._put(self.cards, card, "model", origin)
        for path in sorted((folder / "corpora").glob("*.yaml")):
            corpus = read_model(CorpusCard, path)
            corpus._folder = folder
            self._put(self.corpora, corpus, "corpus", origin)
        for path in sorted((folder / "saes").glob("*.yaml")):
            self._put(self.saes, read_model(SaeCard, path), "SAE", origin)
        for path in sorted((folder / "suites").glob("*.yaml")):
            self._put(self.suites, read_model(Suite, path), "suite", origin)

    def check_references(self) -> None:
        """Raises `BadCard` where a card names no known corpus or a suite no known card."""
        for card in self.cards.values():
            for name in filter(None, (card.corpus, card.real_corpus)):
                if name not in self.corpora:
                    raise BadCard(f"card {card.id!r} names the unknown corpus {name!r}")
            if card.real_corpus and self.corpora[card.real_corpus].source != "installed":
                raise BadCard(f"card {card.id!r}: real_corpus comes with no package")
        for sae in self.saes.values():
            if sae.model not in self.cards:
                raise BadCard(f"SAE {sae.id!r} names the unknown model {sae.model!r}")
            if beyond := set(sae.paths) - set(self.cards[sae.model].layers):
                raise BadCard(f"SAE {sae.id!r}: {sae.model!r} has no layer {min(beyond)}")
        for suite in self.suites.values():
            for name in suite.models:
                if name not in self.cards:
                    raise BadCard(f"suite {suite.id!r} names the unknown model {name!r}")
            for name in suite.layers:
                beyond = set(suite.layers_of(self.cards[name])) - set(self.cards[name].layers)
                if beyond:
                    raise BadCard(f"suite {suite.id!r}: {name!r} has no layer {min(beyond)}")

    def _put(self, table: dict, entry: BaseModel, kind: str, origin: str) -> None:
        name: str = entry.id  # type: ignore[attr-defined]
        if name in table:
            first = self.origin[f"{kind} {name}"]
            raise BadCard(
                f"{kind} {name!r} of {origin} is already defined by {first}", "Give it another id."
            )
        table[name] = entry
        self.origin[f"{kind} {name}"] = origin


def load_registry(folders: Iterable[Path] = ()) -> Registry:
    """The registry of this package, of other distributions and of the user's folders.

    Raises:
        UsageError: a folder does not exist.
        BadCard: a file does not validate, an id is defined twice, or a reference leads nowhere.
    """
    registry = Registry()
    registry.add_folder(Path(__file__).parent / "cards", "gammabench")
    for origin, folder in _distributed():
        registry.add_folder(folder, origin)
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"no folder of cards at {folder}")
        registry.add_folder(folder, str(folder))
    registry.check_references()
    return registry


def _distributed() -> Iterator[tuple[str, Path]]:
    """The folders that other installed distributions offer, without importing them."""
    for entry in importlib.metadata.entry_points(group=_ENTRY_POINTS):
        spec = importlib.util.find_spec(entry.module)
        for location in (spec and spec.submodule_search_locations) or ():
            yield f"entry point {entry.name!r}", Path(location)


def _choices(names: Iterable[str]) -> str:
    return f"There are: {', '.join(names)}."
