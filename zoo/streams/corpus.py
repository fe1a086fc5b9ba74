"""A corpus that is read chunk by chunk, in an order that can be begun anywhere.

The order of a seed and an epoch: the units (`zoo.streams.chunks`) are permuted by
numpy's `default_rng([seed, epoch])` and their chunks follow each other; `DRAW_CHUNKS` chunks in a
row are a draw, which is held in memory, and whose examples are permuted by
`default_rng([seed, epoch, draw])`. So a draw mixes places of the whole corpus, or, of a packed file
or a tar, what stands in a row.

Bookmarks say at which example a draw begins, and where in the files that is. They are made on the
way, and are part of a checkpoint: with them nothing before a draw is read again. Without them the
draws before are read to be counted, and the examples come out the same.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from zoo.ahead import prefetched
from zoo.corpus import Corpus, none_left
from zoo.errors import BadCorpus
from zoo.files import PACKED
from zoo.finite import FiniteCorpus
from zoo.pictures import read_image
from zoo.sound import sound_pictures
from zoo.streams import storage
from zoo.streams.chunks import Unit
from zoo.streams.readers import (
    Reader,
    decoded,
    examples,
    is_only_streamed,
    is_picture,
    is_streamed,
    read_picture,
    reader_of,
    with_data,
)
from zoo.streams.storage import StoredFile, digest, list_files
from zoo.tally import Tally
from zoo.texts import Examples, check_no_column, suffix_of, without_companions

# Chunks that are held in memory and shuffled together.
DRAW_CHUNKS = 8

# Files whose footers are read at once.
_FOOTERS = 8

_READ = (
    ".txt, .jsonl, .parquet, .arrow, .csv, .tsv, FASTA, a .tar or pictures, also packed as .gz or "
    ".zst"
)

# Raised where the order of the examples changes: part of the fingerprint.
VERSION = 1

# Raised where what the passages of a .txt are changes: part of the fingerprint of text.
_PASSAGES = 2

# Text and sequences are some four times as large as they are packed.
_INFLATION = 4

# What tells an example from all others: unit, place of the chunk, number in it.
ExampleKey = tuple[int, int, int]


class Bookmark(NamedTuple):
    """The draw `draw` begins with example `examples`: at a place of the unit at that rank."""

    examples: int = 0
    draw: int = 0
    rank: int = 0
    place: int = 0


class StreamedCorpus(Corpus):
    """Examples that are never all in memory.

    One reader reads all of it: a block has one stream of examples, whatever runs beside it, and
    what is read ahead in threads keeps the order (`zoo.ahead`). Nothing deals it to several.

    Args:
        readers: finds the files and says how each is read.
        fingerprint: what identifies the content.
        skip_bad: how many broken examples may be left out of what is read.
    """

    def __init__(
        self,
        name: str,
        kind: str,
        readers: Callable[[], list[Reader]],
        fingerprint: str,
        skip_bad: int = 0,
    ) -> None:
        super().__init__(name, kind)
        self._find = readers
        self._fingerprint = fingerprint
        self._count: int | None = None
        # By seed, examples left out and epoch.
        self._bookmarks: dict[tuple[int, int, int], list[Bookmark]] = {}
        self._did = Tally(skip_bad)
        # Chunks that were read, by unit and place, and which of their pictures are broken: each is
        # counted once, and decoded once to find that out.
        self._broken: dict[tuple[int, int], frozenset[int]] = {}

    def __getstate__(self) -> dict[str, Any]:
        # A process that a corpus is sent to looks at the files itself.
        return {key: value for key, value in vars(self).items() if key != "_units"}

    @functools.cached_property
    def _units(self) -> list[tuple[Unit, Reader]]:
        units = [(unit, reader) for reader in self._find() for unit in reader.units]
        if not units:
            raise BadCorpus(f"corpus {self.name!r} is empty", "Give one with examples in it.")
        return units

    @property
    def count(self) -> int | None:
        return self._count

    def fingerprint(self) -> str:
        return self._fingerprint

    def read(self, item: Any) -> Any:
        return decoded(item)

    def drawn(self, seed: int, start: int = 0) -> Iterator[Any]:
        return (item for _, item in self._epoch(seed, 0, start))

    def drawn_for_training(self, seed: int, skip: int, start: int = 0) -> Iterator[Any]:
        if self._count is None or skip + start < self._count:
            given = 0
            for _, item in self._epoch(seed, 0, skip + start):
                given += 1
                yield item
            start += given
        assert self._count is not None  # the epoch was read to its end
        size = self._count - skip
        if size < 1:
            raise none_left(self.name, self._count)
        held = {key for key, _ in itertools.islice(self._epoch(seed, 0, 0), skip)}
        first, start = divmod(start, size)
        for epoch in itertools.count(first):
            for _, item in self._epoch(seed, epoch, start, held):
                yield item
            start = 0

    def state_dict(self) -> dict[str, Any]:
        """What saves a resumed run from reading again."""
        marks = [
            (key, [tuple(mark) for mark in found]) for key, found in list(self._bookmarks.items())
        ]
        return {"count": self._count, "bookmarks": marks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` gave for the same content."""
        self._count = state["count"]
        self._bookmarks = {
            tuple(key): [Bookmark(*mark) for mark in found] for key, found in state["bookmarks"]
        }

    def _epoch(
        self, seed: int, epoch: int, start: int, held: set[ExampleKey] | None = None
    ) -> Iterator[tuple[ExampleKey, Any]]:
        """The examples of an epoch from number `start` on, without those held out."""
        import numpy as np

        marks = self._bookmarks.setdefault((seed, len(held or ()), epoch), [Bookmark()])
        mark = max(m for m in marks if m.examples <= start)
        for begin, rows in prefetched(self._draws(seed, epoch, mark)):
            kept = rows if held is None else [row for row in rows if row[0] not in held]
            begin = begin._replace(examples=mark.examples)
            if begin.draw > marks[-1].draw:
                marks.append(begin)
            mark = begin._replace(examples=begin.examples + len(kept))
            order = np.random.default_rng([seed, epoch, begin.draw]).permutation(len(kept))
            for i in order[max(0, start - begin.examples) :]:
                yield kept[i]
        if epoch == 0:
            self._count = mark.examples
            if not self._count:
                raise BadCorpus(f"corpus {self.name!r} is empty", "Give one with examples in it.")

    def _draws(
        self, seed: int, epoch: int, mark: Bookmark
    ) -> Iterator[tuple[Bookmark, list[tuple[ExampleKey, Any]]]]:
        """Where each draw begins, its examples not counted yet, and what is in it."""
        import numpy as np

        order = np.random.default_rng([seed, epoch]).permutation(len(self._units)).tolist()
        draw, begin, chunks = mark.draw, mark, 0
        found: list[tuple[ExampleKey, Any]] = []
        for number in range(mark.rank, len(order)):
            unit, reader = self._units[order[number]]
            first = mark.place if number == mark.rank else 0
            for chunk in unit.chunks(first):
                if chunks == DRAW_CHUNKS:
                    self.notes = self._did.notes()
                    yield begin, found
                    draw += 1
                    begin, found, chunks = Bookmark(0, draw, number, chunk.place), [], 0
                items = self._examples((order[number], chunk.place), reader.rows(unit.file, chunk))
                found += [((order[number], chunk.place, i), item) for i, item in enumerate(items)]
                chunks += 1
        self.notes = self._did.notes()
        if chunks:
            yield begin, found

    def _examples(self, chunk: tuple[int, int], rows: Iterator[Any]) -> list[Any]:
        """The examples of a chunk, whose rows are these. What the rules do is counted once, however
        often it is read, and pictures are decoded once to find those that are broken."""
        again = chunk in self._broken
        if self.kind != "image":
            self._broken[chunk] = frozenset()
            return examples(rows, self.kind, Tally(self._did.skip_bad) if again else self._did)
        found = list(rows)
        if again:
            return [row for i, row in enumerate(found) if i not in self._broken[chunk]]
        sound = examples(iter(found), self.kind, self._did)
        kept = {id(row) for row in sound}
        self._broken[chunk] = frozenset(i for i, row in enumerate(found) if id(row) not in kept)
        return sound


# ------------------------------------------------------------------------------------ opening


def stored_corpus(
    place: str,
    kind: str,
    name: str,
    *,
    column: str | None = None,
    glob: str = "*",
    fingerprint: str | None = None,
    skip_bad: int = 0,
    files: Sequence[StoredFile] | None = None,
) -> Corpus:
    """The files at a path or URL as a corpus: in memory where they are small, else streamed.

    Args:
        fingerprint: what identifies the content, where that is known without reading it.
        skip_bad: how many broken examples may be left out.
        files: what `list_files` finds there, where that was done already.

    Raises:
        BadCorpus: nothing is there that can be read as this kind.
    """
    found = list_files(place, glob) if files is None else files
    read = without_companions([file for file in found if is_streamed(file, kind)])
    pictures = [file for file in found if kind == "image" and is_picture(file)]
    if not read and not pictures:
        raise BadCorpus(f"corpus {name}: no file there is read as {kind}", f"It may be {_READ}.")
    if read and pictures:
        raise BadCorpus(
            f"corpus {name} has pictures beside {read[0].name}", "Which is meant? Give one."
        )
    facts: dict[str, Any] = {"kind": kind, "column": column, "streamed": VERSION}
    if kind == "text" and any(suffix_of(file.name) == ".txt" for file in read):
        facts["passages"] = _PASSAGES
    given = fingerprint or digest([*read, *pictures], facts)
    if pictures:
        check_no_column(name, column)
        find = functools.partial(_sound_pictures, pictures, skip_bad, place)
        return FiniteCorpus(name, kind, find, read_picture, fingerprint=given)
    readers = functools.partial(_readers, read, kind, column)
    if is_large(read):
        return StreamedCorpus(name, kind, readers, given, skip_bad)
    find = functools.partial(_whole, readers, kind, skip_bad, place)
    return FiniteCorpus(name, kind, find, decoded, fingerprint=given)


def is_read_by_streams(files: Sequence[StoredFile], kind: str) -> bool:
    """Whether files are read by this module, by their names and sizes."""
    streamed = without_companions([file for file in files if is_streamed(file, kind)])
    if is_large(streamed or [file for file in files if kind == "image" and is_picture(file)]):
        return True
    return any(is_only_streamed(file, kind) for file in streamed)


def is_large(files: Sequence[StoredFile]) -> bool:
    """Whether files are streamed, or read as a whole."""
    packed = (*PACKED, ".tgz", ".parquet")
    sizes = (file.size * (_INFLATION if file.name.endswith(packed) else 1) for file in files)
    return sum(sizes) > storage.IN_MEMORY_BYTES


def _readers(files: Sequence[StoredFile], kind: str, column: str | None) -> list[Reader]:
    # The footers of parquet files far away are waited for together.
    with ThreadPoolExecutor(_FOOTERS) as pool:
        return list(pool.map(lambda file: reader_of(file, kind, column), files))


def _whole(readers: Callable[[], list[Reader]], kind: str, skip_bad: int, place: str) -> Examples:
    """All examples in the order of the files; which pictures can be read is remembered."""
    did = Tally(skip_bad)
    items: list[Any] = []
    for reader in readers():
        for unit in reader.units:
            for chunk in unit.chunks():
                rows = reader.rows(unit.file, chunk)
                items += with_data(rows, did) if kind == "image" else examples(rows, kind, did)
    if kind == "image":
        items = sound_pictures(items, read_image, did, place)
    return Examples(items, did.notes())


def _sound_pictures(pictures: list[StoredFile], skip_bad: int, place: str) -> Examples:
    """Pictures in files of their own; each is read first where some may be broken."""
    did = Tally(skip_bad)
    return Examples(sound_pictures(pictures, read_picture, did, place), did.notes())
