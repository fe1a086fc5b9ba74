"""Corpora: named streams of examples, the raw input of models. No torch.

An example is a `str` for text, protein and dna, a uint8 array (height, width, 3) for images, and
a draw number for synthetic activations. A corpus is read twice in a measurement: `examples` gives
the evaluation sample first, `training` goes on after it and never gives an evaluation example.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import itertools
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from zoo.cards import CorpusCard
from zoo.errors import BadCorpus
from zoo.pictures import look, read_image
from zoo.sequences import notes
from zoo.texts import (
    Examples,
    check_no_column,
    check_options,
    check_suffix,
    files_of,
    read_examples,
    skipped_pictures,
)

# Draws below this seed belong to the training of the embedded models, never to a measurement.
FIRST_SEED = 1000


class Corpus(ABC):
    """A named stream of examples. `fingerprint` identifies its content."""

    def __init__(self, name: str, kind: str) -> None:
        self.name = name
        self.kind = kind
        # What the rules of reading did (`zoo.sequences`, `zoo.pictures`), once it has been read.
        self.notes: list[str] = []

    @abstractmethod
    def fingerprint(self) -> str:
        """`sha256:<hex>` that changes whenever the examples do."""

    def examples(self, seed: int, start: int = 0) -> Iterator[Any]:
        """The examples once, in the order of the seed, from number `start` on; may be endless."""
        return map(self.read, self.drawn(seed, start))

    def training(self, seed: int, skip: int, start: int = 0) -> Iterator[Any]:
        """Endless examples for training, without the first `skip` ones of `examples(seed)`.

        A finite corpus is repeated in a new order each time. `start` goes on at that number of
        the training examples, without reading those before it.

        Raises:
            BadCorpus: nothing is left after the first `skip` examples.
        """
        return map(self.read, self.drawn_for_training(seed, skip, start))

    @property
    def count(self) -> int | None:
        """How many examples there are; None where there is no end, or they were not read yet."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """What saves a run that goes on elsewhere from reading again."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027 (nothing, by default)
        """Takes what `state_dict` gave for the same content."""

    @abstractmethod
    def drawn(self, seed: int, start: int = 0) -> Iterator[Any]:
        """What `read` makes the examples of, as `examples`."""

    @abstractmethod
    def drawn_for_training(self, seed: int, skip: int, start: int = 0) -> Iterator[Any]:
        """What `read` makes the examples of, as `training`."""

    def read(self, item: Any) -> Any:
        """The example of an item: what takes time, and may be done in any thread."""
        return item


class FiniteCorpus(Corpus):
    """Examples that can be counted: `items` names them, `read` makes an example of an item."""

    def __init__(
        self,
        name: str,
        kind: str,
        items: Callable[[], list[Any] | Examples],
        read: Callable[[Any], Any] | None = None,
        *,
        fingerprint: str | None = None,
    ) -> None:
        super().__init__(name, kind)
        self._find = items
        self._read_item = read
        self._fingerprint = fingerprint

    def __getstate__(self) -> dict[str, Any]:
        # A process that a corpus is sent to reads the items itself.
        return {key: value for key, value in vars(self).items() if key != "items"}

    def read(self, item: Any) -> Any:
        return item if self._read_item is None else self._read_item(item)

    @functools.cached_property
    def items(self) -> list[Any]:
        found = self._find()
        if isinstance(found, Examples):
            self.notes = found.notes
        items = found.items if isinstance(found, Examples) else found
        if not items:
            raise BadCorpus(f"corpus {self.name!r} is empty", "Give one with examples in it.")
        return items

    @property
    def count(self) -> int:
        return len(self.items)

    def fingerprint(self) -> str:
        if self._fingerprint is not None:
            return self._fingerprint
        digest = hashlib.sha256()
        for item in self.items:
            content = item.read_bytes() if isinstance(item, Path) else str(item).encode()
            digest.update(len(content).to_bytes(8, "big") + content)
        return f"sha256:{digest.hexdigest()}"

    def drawn(self, seed: int, start: int = 0) -> Iterator[Any]:
        return (self.items[i] for i in _order(len(self.items), seed, epoch=0)[start:])

    def drawn_for_training(self, seed: int, skip: int, start: int = 0) -> Iterator[Any]:
        rest = _order(len(self.items), seed, epoch=0)[skip:]
        if not rest:
            raise none_left(self.name, len(self.items))
        first, start = divmod(start, len(rest))
        for epoch in itertools.count(first):
            order = range(len(rest)) if epoch == 0 else _order(len(rest), seed, epoch)
            for i in order[start:]:
                yield self.items[rest[i]]
            start = 0


class PictureCorpus(FiniteCorpus):
    """A folder of pictures, decoded one at a time by the rules of `zoo.pictures`."""

    def __init__(self, path: Path, name: str, glob: str, *, fingerprint: str | None = None) -> None:
        self._skipped = functools.partial(skipped_pictures, path, glob)
        find = functools.partial(files_of, path, "image", glob)
        super().__init__(name, "image", find, read_image, fingerprint=fingerprint)

    def fingerprint(self) -> str:
        # Every byte is read for it, so a look at the headers costs little more.
        if self._fingerprint is None:
            self._fingerprint = super().fingerprint()
            did: Counter[str] = Counter()
            for suffix, count in self._skipped().items():
                did[f"{suffix} pictures left out: their format is not read"] = count
            for path in self.items:
                look(path, did)
            self.notes = notes(did)
        return self._fingerprint


class EndlessCorpus(Corpus):
    """Examples drawn by a generator: every seed gives new ones."""

    def __init__(
        self, name: str, kind: str, draw: Callable[[int], Iterable[Any]], definition: dict[str, Any]
    ) -> None:
        super().__init__(name, kind)
        self._draw = draw
        self._definition = definition

    def fingerprint(self) -> str:
        text = json.dumps(self._definition, sort_keys=True)
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"

    def drawn(self, seed: int, start: int = 0) -> Iterator[Any]:
        return itertools.islice(self._all(seed), start, None)

    def drawn_for_training(self, seed: int, skip: int, start: int = 0) -> Iterator[Any]:
        return self.drawn(seed, skip + start)

    def _all(self, seed: int) -> Iterator[Any]:
        # Each measurement's seed has a million draws of its own.
        first = FIRST_SEED + seed * 1_000_000
        for draw in range(first, first + 1_000_000):
            yield from self._draw(draw)


def none_left(name: str, examples: int) -> BadCorpus:
    """Nothing is left to train on."""
    return BadCorpus(
        f"corpus {name!r} has {examples} examples, all of them needed for the "
        "evaluation sample; none is left to train on",
        "Give a longer corpus, a smaller sample with --set N=..., or, as a sample takes "
        "whole forward passes, fewer tokens in each with --set forward_tokens=...",
    )


def open_corpus(card: CorpusCard) -> Corpus:
    """The corpus of a card.

    Raises:
        BadCorpus: its file is absent, unreadable or of the wrong kind.
    """
    if card.source == "file":
        regions = None if card.regions is None else card.beside(card.regions)
        path = card.beside(str(card.path))
        return file_corpus(path, card.kind, card.id, column=card.column, regions=regions)
    if card.source == "hub":
        return hub_corpus(card)
    if card.source == "none":
        return EndlessCorpus(card.id, card.kind, _draw_number, {"generator": None})
    module_name, function_name = str(card.generator).split(":")
    module = importlib.import_module(f"zoo.generators.{module_name}")
    function = functools.partial(getattr(module, function_name), **card.parameters)
    if not card.endless:
        return FiniteCorpus(card.id, card.kind, functools.partial(_all_of, function))
    definition = {
        "generator": card.generator,
        "version": module.VERSION,
        "parameters": card.parameters,
    }
    return EndlessCorpus(card.id, card.kind, functools.partial(_draw, function), definition)


def hub_corpus(card: CorpusCard) -> Corpus:
    """A dataset of the hub, at its pinned revision.

    Its files are fetched when it is opened; what is large is not, but streamed from the hub, if the
    files are not in the cache already.

    Raises:
        ModelUnavailable: it is unavailable. BadCorpus: no file of it has the card's name.
    """
    from zoo import hub
    from zoo.streams import is_streamed_place, stored_corpus

    repository = hub.HubRepository(
        card.id, str(card.hub), card.revision, keys=("hub", "revision"), kind="dataset"
    )
    facts = card.model_dump(mode="json", include={"hub", "revision", "path", "kind", "column"})
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    fingerprint, glob = f"sha256:{digest}", str(card.path)
    if not hub.has_dataset(repository, glob):
        place = f"hf://datasets/{card.hub}@{card.revision}"
        with hub.hub_errors(repository):
            large = is_streamed_place(place, card.kind, glob)
        if large:
            return stored_corpus(
                place, card.kind, card.id, column=card.column, glob=glob, fingerprint=fingerprint
            )
    folder = hub.dataset(repository, glob)
    if not any(folder.glob(glob)):
        raise BadCorpus(
            f"corpus {card.id!r}: {card.hub} has no file {card.path} at {card.revision}",
            "Correct path in the corpus card.",
        )
    return file_corpus(
        folder, card.kind, card.id, column=card.column, glob=glob, fingerprint=fingerprint
    )


def _draw_number(seed: int) -> list[int]:
    return [seed]


def _draw(function: Callable[..., Iterable[Any]], seed: int) -> Iterable[Any]:
    return function(seed=seed)


def _all_of(function: Callable[..., Iterable[Any]]) -> list[Any]:
    return list(function(seed=FIRST_SEED))


def file_corpus(
    path: Path,
    kind: str,
    name: str | None = None,
    *,
    column: str | None = None,
    regions: Path | None = None,
    glob: str = "*",
    fingerprint: str | None = None,
) -> Corpus:
    """The user's own file or folder as a corpus of that kind.

    text: `.txt` (passages separated by blank lines), `.jsonl` or `.parquet`, packed as `.gz` or
    `.zst` too (not parquet), or a folder of these; or a `.tar` of `.txt` or `.json`. protein, dna:
    FASTA, packed too, or a column of `.jsonl` or `.parquet`; `zoo.sequences` states the rules.
    image: a folder of images, a `.tar` of them, or a column of `.parquet`; read as `zoo.pictures`
    says. What is larger than `zoo.streams.storage.IN_MEMORY_BYTES` is not read as a whole but
    streamed (`zoo.streams`); a genome of which regions are meant is read one sequence at a time.

    Args:
        column: the key or column of the examples; `text`, `image`, or `sequence` for proteins and
            DNA.
        regions: a BED file that says which parts of a FASTA reference are meant.
        glob: which files of a folder.
        fingerprint: what identifies the content, where that is known without reading it.

    Raises:
        BadCorpus: it does not exist, or a file of this name cannot hold this kind.
        UsageError: an option means nothing for this kind.
    """
    from zoo.streams import is_streamed_place, stored_corpus

    check_options(path, kind, column, regions)
    if not path.exists():
        raise BadCorpus(f"no corpus at {path}", "Give the path of a file or folder.")
    name = name or path.name
    if regions is None and kind != "synthetic" and is_streamed_place(str(path), kind, glob):
        return stored_corpus(
            str(path), kind, name, column=column, glob=glob, fingerprint=fingerprint
        )
    if kind == "image":
        if not path.is_dir():
            raise BadCorpus(
                f"corpus {path} is a file", "Images are read from a folder, .tar or .parquet."
            )
        check_no_column(path, column)
        return PictureCorpus(path, name, glob, fingerprint=fingerprint)
    if kind == "synthetic":
        raise BadCorpus(f"corpus {path}: synthetic activations are not read from files")
    find = functools.partial(read_examples, path, kind, glob, column, regions)
    corpus = FiniteCorpus(name, kind, find, fingerprint=fingerprint)
    if path.is_file():
        check_suffix(path, kind)
    return corpus


def _order(count: int, seed: int, epoch: int) -> list[int]:
    import numpy as np

    return np.random.default_rng([seed, epoch]).permutation(count).tolist()
