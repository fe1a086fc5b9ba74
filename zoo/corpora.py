"""Corpora: named streams of examples, the raw input of models. No torch.

An example is a `str` for text, protein and dna, a uint8 array (height, width, 3) for images, and
a draw number for synthetic activations. A corpus is read twice in a measurement: `examples` gives
the evaluation sample first, `training` goes on behind it and never gives an evaluation example.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import importlib
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from zoo.cards import CorpusCard, Domain
from zoo.errors import BadCorpus

KIND_OF_DOMAIN: dict[Domain, str] = {
    "language": "text",
    "vision": "image",
    "protein": "protein",
    "genomic": "dna",
    "synthetic": "synthetic",
}
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif"}
FASTA_SUFFIXES = {".fa", ".fasta", ".faa", ".fna", ".ffn"}

# Draws below this seed belong to the training of the embedded models, never to a measurement.
FIRST_SEED = 1000


class Corpus(ABC):
    """A named stream of examples. `fingerprint` identifies its content."""

    def __init__(self, name: str, kind: str) -> None:
        self.name = name
        self.kind = kind

    @abstractmethod
    def fingerprint(self) -> str:
        """`sha256:<hex>` that changes whenever the examples do."""

    @abstractmethod
    def examples(self, seed: int) -> Iterator[Any]:
        """The examples once, in the order of the seed; may be endless."""

    @abstractmethod
    def training(self, seed: int, skip: int, start: int = 0) -> Iterator[Any]:
        """Endless examples for training, without the first `skip` ones of `examples(seed)`.

        A finite corpus is repeated in a new order each time. `start` goes on at that number of
        the training examples, without reading those before it.

        Raises:
            BadCorpus: nothing is left behind the first `skip` examples.
        """


class FiniteCorpus(Corpus):
    """Examples that can be counted: `items` names them, `read` makes an example of an item."""

    def __init__(
        self,
        name: str,
        kind: str,
        items: Callable[[], list[Any]],
        read: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__(name, kind)
        self._find = items
        self._read_item = read

    def __getstate__(self) -> dict[str, Any]:
        # A process that a corpus is sent to reads the items itself.
        return {key: value for key, value in vars(self).items() if key != "items"}

    def _read(self, item: Any) -> Any:
        return item if self._read_item is None else self._read_item(item)

    @functools.cached_property
    def items(self) -> list[Any]:
        items = self._find()
        if not items:
            raise BadCorpus(f"corpus {self.name!r} is empty", "Give one with examples in it.")
        return items

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for item in self.items:
            content = item.read_bytes() if isinstance(item, Path) else str(item).encode()
            digest.update(len(content).to_bytes(8, "big") + content)
        return f"sha256:{digest.hexdigest()}"

    def examples(self, seed: int) -> Iterator[Any]:
        return (self._read(self.items[i]) for i in _order(len(self.items), seed, epoch=0))

    def training(self, seed: int, skip: int, start: int = 0) -> Iterator[Any]:
        rest = _order(len(self.items), seed, epoch=0)[skip:]
        if not rest:
            raise BadCorpus(
                f"corpus {self.name!r} has {len(self.items)} examples, all of them needed for the "
                "evaluation sample; none is left to train on",
                "Give a longer corpus, or a smaller sample with --set N=...",
            )
        first, start = divmod(start, len(rest))
        for epoch in itertools.count(first):
            order = range(len(rest)) if epoch == 0 else _order(len(rest), seed, epoch)
            for i in order[start:]:
                yield self._read(self.items[rest[i]])
            start = 0


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

    def examples(self, seed: int) -> Iterator[Any]:
        # Each measurement's seed has a million draws of its own.
        first = FIRST_SEED + seed * 1_000_000
        for draw in range(first, first + 1_000_000):
            yield from self._draw(draw)

    def training(self, seed: int, skip: int, start: int = 0) -> Iterator[Any]:
        return itertools.islice(self.examples(seed), skip + start, None)


def open_corpus(card: CorpusCard) -> Corpus:
    """The corpus of a card.

    Raises:
        BadCorpus: its file is absent, unreadable or of the wrong kind.
    """
    if card.source == "file":
        return file_corpus(Path(str(card.path)), card.kind, name=card.id)
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


def _draw_number(seed: int) -> list[int]:
    return [seed]


def _draw(function: Callable[..., Iterable[Any]], seed: int) -> Iterable[Any]:
    return function(seed=seed)


def _all_of(function: Callable[..., Iterable[Any]]) -> list[Any]:
    return list(function(seed=FIRST_SEED))


def file_corpus(path: Path, kind: str, name: str | None = None) -> Corpus:
    """The user's own file or folder as a corpus of that kind.

    text: `.txt` (passages separated by blank lines) or `.jsonl` (key `text`).
    protein, dna: FASTA, gzipped too. image: a folder of images.

    Raises:
        BadCorpus: it does not exist, or a file of this name cannot hold this kind.
    """
    if not path.exists():
        raise BadCorpus(f"no corpus at {path}", "Give the path of a file or folder.")
    name = name or path.name
    suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
    suffix = suffixes[-1].lower() if suffixes else ""
    if kind == "image":
        if not path.is_dir():
            raise BadCorpus(f"corpus {path} is a file", "Images are read from a folder.")
        return FiniteCorpus(name, kind, functools.partial(_image_files, path), read_image)
    if path.is_dir():
        raise BadCorpus(f"corpus {path} is a folder", f"A {kind} corpus is read from a file.")
    readers: dict[str, Callable[[Path], list[str]]] = {}
    if kind == "text":
        readers = {".txt": _read_txt, ".jsonl": _read_jsonl}
    elif kind in ("protein", "dna"):
        readers = dict.fromkeys(FASTA_SUFFIXES, _read_fasta)
    if suffix not in readers:
        raise BadCorpus(
            f"corpus {path}: a {kind} corpus is not read from a file named like this",
            f"Give a file ending in {', '.join(sorted(readers))}." if readers else "",
        )
    return FiniteCorpus(name, kind, functools.partial(readers[suffix], path))


def read_image(path: Path) -> Any:
    """The image as a uint8 array (height, width, 3).

    Raises:
        BadCorpus: the file is not an image.
    """
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise BadCorpus(
            f"{path} is not an image ({error})", "Remove it, or convert it to PNG."
        ) from None


def _image_files(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in IMAGE_SUFFIXES]


def _text_of(path: Path) -> str:
    try:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8") as handle:
            return handle.read()
    except UnicodeDecodeError as error:
        raise BadCorpus(
            f"{path} is not UTF-8 text (byte {error.start})", "Convert it, for instance with iconv."
        ) from None
    except (OSError, EOFError) as error:
        raise BadCorpus(f"{path} cannot be read ({error})") from None


def _read_txt(path: Path) -> list[str]:
    return [passage.strip() for passage in _text_of(path).split("\n\n") if passage.strip()]


def _read_jsonl(path: Path) -> list[str]:
    texts = []
    for number, line in enumerate(_text_of(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            texts.append(json.loads(line)["text"])
        except (ValueError, KeyError, TypeError):
            raise BadCorpus(
                f"{path}, line {number}: not a JSON object with the key 'text'"
            ) from None
    return texts


def _read_fasta(path: Path) -> list[str]:
    import io

    from Bio.SeqIO.FastaIO import SimpleFastaParser

    text = _text_of(path)
    if text.strip() and not text.lstrip().startswith(">"):
        # The parser would skip everything in front of the first '>' without a word.
        raise BadCorpus(f"{path} is not FASTA", "Records begin with '>'.")
    return [sequence for _, sequence in SimpleFastaParser(io.StringIO(text))]


def _order(count: int, seed: int, epoch: int) -> list[int]:
    import numpy as np

    return np.random.default_rng([seed, epoch]).permutation(count).tolist()
