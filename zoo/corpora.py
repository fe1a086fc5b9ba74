"""Corpora: named streams of examples, the raw input of models. No torch.

An example is a `str` for text, protein and dna, a uint8 array (height, width, 3) for images, an
array of token ids for cells, and a draw number for synthetic activations. A corpus is read twice in
a measurement: `examples` gives the evaluation sample first, `training` goes on after it and never
gives an evaluation example.

Files, or folders of these; all but `.parquet` may be packed as `.gz` or `.zst`:
    text           `.txt` (passages, as `zoo.texts` says), `.jsonl`, `.parquet`, `.csv`, `.tsv`,
                   or a `.tar` of `.txt` or `.json`
    protein, dna   FASTA, or a column of a table (`.jsonl`, ...); `zoo.sequences` states the rules
    cell           a column of lists in `.arrow`, `.parquet` or `.jsonl`, as `zoo.cells` says
    image          pictures, a `.tar` of them, or a column of `.parquet`, as `zoo.pictures` says
"""

from __future__ import annotations

import fnmatch
import functools
import hashlib
import importlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cards import CorpusCard
from zoo.corpus import Corpus
from zoo.errors import BadCorpus
from zoo.finite import FiniteCorpus
from zoo.installed import installed_folder, read_translated
from zoo.pictures import look, read_image
from zoo.sound import sound_pictures
from zoo.streams import is_read_by_streams, list_files, stored_corpus
from zoo.tally import Tally
from zoo.texts import (
    Examples,
    check_no_column,
    check_options,
    check_suffix,
    files_to_read,
    patterns_of,
    read_examples,
    skipped_pictures,
)

if TYPE_CHECKING:
    from zoo.hub import HubRepository

# Draws below this seed belong to the training of the embedded models, never to a measurement.
FIRST_SEED = 1000


class PictureCorpus(FiniteCorpus):
    """A folder of pictures, decoded one at a time by the rules of `zoo.pictures`."""

    def __init__(
        self,
        path: Path,
        name: str,
        glob: str,
        *,
        fingerprint: str | None = None,
        skip_bad: int = 0,
    ) -> None:
        self._skipped = functools.partial(skipped_pictures, path, glob)
        find = functools.partial(_sound_pictures, path, glob, skip_bad)
        super().__init__(name, "image", find, read_image, fingerprint=fingerprint)

    def fingerprint(self) -> str:
        # Every byte is read for it, so a look at the headers costs little more.
        if self._fingerprint is None:
            self._fingerprint = super().fingerprint()
            did = Tally()
            for suffix, count in self._skipped().items():
                did[f"{suffix} pictures left out: their format is not read"] = count
            for path in self.items:
                look(path, did)
            self.notes = [*self.notes, *did.notes()]
        return self._fingerprint


def _sound_pictures(path: Path, glob: str, skip_bad: int) -> Examples:
    """The pictures of a folder; each is decoded first where some may be broken."""
    did = Tally(skip_bad)
    found = sound_pictures(files_to_read(path, "image", glob), read_image, did, str(path.resolve()))
    return Examples(found, did.notes())


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


def open_corpus(card: CorpusCard, skip_bad: int = 0) -> Corpus:
    """The corpus of a card, without up to `skip_bad` broken examples.

    Raises:
        BadCorpus: its file is absent, unreadable or of the wrong kind.
        CorpusUnavailable: it has to be downloaded or installed first.
    """
    if card.source == "file":
        regions = None if card.regions is None else card.beside(card.regions)
        path = card.beside(str(card.path))
        return file_corpus(
            path, card.kind, card.id, column=card.column, regions=regions, skip_bad=skip_bad
        )
    if card.source == "hub":
        return hub_corpus(card, skip_bad)
    if card.source == "url":
        return url_corpus(card, skip_bad)
    if card.source == "installed":
        return installed_corpus(card, skip_bad)
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


def hub_corpus(card: CorpusCard, skip_bad: int = 0) -> Corpus:
    """A dataset of the hub, at its pinned revision.

    Its files are fetched when it is opened; what is large is not, but streamed from the hub, if the
    files are not in the cache already.

    Raises:
        ModelUnavailable: it is unavailable. BadCorpus: no file of it has the card's name.
    """
    from zoo import hub

    repository = repository_of(card)
    facts = card.model_dump(mode="json", include={"hub", "revision", "path", "kind", "column"})
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    fingerprint, glob = f"sha256:{digest}", str(card.path)
    options: dict[str, Any] = {
        "column": card.column,
        "glob": glob,
        "fingerprint": fingerprint,
        "skip_bad": skip_bad,
    }
    wanted = patterns_of(glob, card.kind)
    if not hub.has_dataset(repository, wanted):
        place = f"hf://datasets/{card.hub}@{card.revision}"
        with hub.hub_errors(repository):
            files = list_files(place, glob)
            if is_read_by_streams(files, card.kind):
                # Who may not read it is told so before a model is loaded.
                with files[0].open() as opened:
                    opened.read(1)
                return stored_corpus(place, card.kind, card.id, files=files, **options)
    folder = hub.dataset(repository, wanted)
    if not any(fnmatch.fnmatch(name, glob) for name in _below(folder)):
        what = f"file {glob}" if wanted == [glob] else f"file in {glob} that is read as {card.kind}"
        raise BadCorpus(
            f"corpus {card.id!r}: {card.hub} has no {what} at {card.revision}", "Correct its path."
        )
    return file_corpus(folder, card.kind, card.id, **options)


def _below(folder: Path) -> list[str]:
    return [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]


def repository_of(card: CorpusCard) -> HubRepository:
    """Where the dataset of a card is."""
    from zoo.hub import HubRepository

    return HubRepository(
        card.id,
        str(card.hub),
        card.revision,
        gated=card.gated,
        licence_page=card.licence_page,
        keys=("hub", "revision"),
        instead="a local copy with --corpus PATH, or another with --corpus NAME",
        holds="corpus",
        kind="dataset",
    )


def url_corpus(card: CorpusCard, skip_bad: int = 0) -> Corpus:
    """A file that `bench fetch --corpus` downloaded.

    Raises:
        CorpusUnavailable: it was not downloaded.
    """
    from zoo.downloads import downloaded

    regions = None if card.regions is None else card.beside(card.regions)
    known = None
    if card.sha256 is not None:
        facts = card.model_dump(mode="json", include={"sha256", "kind", "column"})
        facts["regions"] = None if regions is None else regions.read_text(encoding="utf-8")
        known = f"sha256:{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()}"
    path = downloaded(card)
    return file_corpus(
        path,
        card.kind,
        card.id,
        column=card.column,
        regions=regions,
        fingerprint=known,
        skip_bad=skip_bad,
    )


def installed_corpus(card: CorpusCard, skip_bad: int = 0) -> Corpus:
    """A corpus in another package's files; its content identifies it, whatever the version.

    Raises:
        CorpusUnavailable: the package is not installed.
    """
    folder, glob = installed_folder(card), str(card.path)
    if card.translate:
        find = functools.partial(read_translated, folder, glob, skip_bad)
        return FiniteCorpus(card.id, card.kind, find)
    regions = None if card.regions is None else card.beside(card.regions)
    return file_corpus(
        folder,
        card.kind,
        card.id,
        column=card.column,
        regions=regions,
        glob=glob,
        skip_bad=skip_bad,
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
    skip_bad: int = 0,
) -> Corpus:
    """The user's own file or folder as a corpus of that kind.

    The formats are those above. What is larger than `zoo.streams.storage.IN_MEMORY_BYTES` is not
    read as a whole but streamed (`zoo.streams`); a genome of which regions are meant is read one
    sequence at a time.

    Args:
        column: the key or column of the examples, where it is not as `zoo.table_columns` says.
        regions: a BED file that says which parts of a FASTA reference are meant.
        glob: which files of a folder.
        fingerprint: what identifies the content, where that is known without reading it.
        skip_bad: how many broken pictures, sequences and rows may be left out. Pictures are then
            decoded once more, before the first is used.

    Raises:
        BadCorpus: it does not exist, or a file of this name cannot hold this kind.
        UsageError: an option means nothing for this kind.
    """
    check_options(path, kind, column, regions)
    if not path.exists():
        raise BadCorpus(f"no corpus at {path}", "Give the path of a file or folder.")
    name = name or path.name
    if regions is None and kind != "synthetic":
        files = list_files(str(path), glob)
        if is_read_by_streams(files, kind):
            return stored_corpus(
                str(path),
                kind,
                name,
                column=column,
                fingerprint=fingerprint,
                skip_bad=skip_bad,
                files=files,
            )
    if kind == "image":
        if not path.is_dir():
            raise BadCorpus(
                f"corpus {path} is a file", "Images are read from a folder, .tar or .parquet."
            )
        check_no_column(path, column)
        return PictureCorpus(path, name, glob, fingerprint=fingerprint, skip_bad=skip_bad)
    if kind == "synthetic":
        raise BadCorpus(f"corpus {path}: synthetic activations are not read from files")
    find = functools.partial(read_examples, path, kind, glob, column, regions, skip_bad)
    corpus = FiniteCorpus(name, kind, find, fingerprint=fingerprint)
    if path.is_file():
        check_suffix(path, kind)
    return corpus
