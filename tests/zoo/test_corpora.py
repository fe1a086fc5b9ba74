"""A corpus gives the evaluation sample first, and never trains on it."""

from __future__ import annotations

import gzip
import itertools
from array import array
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zoo.cards import CorpusCard
from zoo.corpora import Corpus, file_corpus, open_corpus
from zoo.errors import BadCorpus
from zoo.registry import load_registry


@pytest.fixture
def passages(tmp_path: Path) -> Corpus:
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join(f"passage {i}" for i in range(10)), encoding="utf-8")
    return file_corpus(path, "text")


def test_training_repeats_a_finite_corpus_without_its_evaluation_examples(passages: Corpus) -> None:
    evaluation = list(itertools.islice(passages.examples(seed=3), 4))
    training = list(itertools.islice(passages.training(seed=3, skip=4), 18))
    assert not set(evaluation) & set(training)
    assert sorted(training[:6]) == sorted(training[6:12]) == sorted(training[12:])
    assert training[:6] != training[6:12]
    assert len(set(evaluation) | set(training)) == 10


def test_the_seed_orders_a_finite_corpus(passages: Corpus) -> None:
    assert list(passages.examples(1)) == list(passages.examples(1))
    assert list(passages.examples(1)) != list(passages.examples(2))
    assert sorted(passages.examples(1)) == sorted(passages.examples(2))


def test_nothing_left_to_train_on_is_an_error(passages: Corpus) -> None:
    with pytest.raises(BadCorpus, match="10 examples, all of them needed"):
        next(passages.training(seed=0, skip=10))


def test_endless_corpora_train_on_other_examples_than_they_evaluate() -> None:
    corpus = open_corpus(load_registry().corpus("genomes"))
    evaluation = list(itertools.islice(corpus.examples(0), 70))
    training = list(itertools.islice(corpus.training(0, skip=70), 70))
    assert not set(evaluation) & set(training)
    assert training == list(itertools.islice(corpus.examples(0), 140))[70:]
    assert evaluation == list(itertools.islice(corpus.examples(0), 70))
    assert evaluation != list(itertools.islice(corpus.examples(1), 70))


CORPORA = load_registry().corpora.values()
MADE = [card for card in CORPORA if card.data == "made"]


@pytest.mark.parametrize("card", MADE, ids=lambda card: card.id)
def test_every_made_corpus_of_the_package_gives_examples_of_its_kind(card: CorpusCard) -> None:
    example = next(open_corpus(card).examples(0))
    if card.kind == "image":
        assert example.dtype == np.uint8
        assert example.ndim == 3
        assert example.shape[2] == 3
    else:
        kinds = {"synthetic": int, "cell": array}
        assert isinstance(example, kinds.get(card.kind, str))
        assert example or card.kind == "synthetic"


def test_a_fingerprint_changes_with_the_content_and_only_then(tmp_path: Path) -> None:
    one, same, other = (tmp_path / name for name in ("1.txt", "2.txt", "3.txt"))
    one.write_text("a\n\nb", encoding="utf-8")
    same.write_text("a\n\n\n\nb\n", encoding="utf-8")
    other.write_text("a\n\nc", encoding="utf-8")
    prints = [file_corpus(path, "text").fingerprint() for path in (one, same, other)]
    assert prints[0] == prints[1] != prints[2]
    card = load_registry().corpus("protein-families")
    fewer = card.model_copy(update={"parameters": {"count": 8}})
    assert open_corpus(card).fingerprint() != open_corpus(fewer).fingerprint()


def test_files_of_each_kind_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n\n{"text": "two"}\n', encoding="utf-8")
    (tmp_path / "a.fasta").write_text(">x\nMKV\nLL\n>y\nAAA\n", encoding="utf-8")
    with gzip.open(tmp_path / "b.fa.gz", "wt", encoding="utf-8") as handle:
        handle.write(">x\nACGT\n")
    Image.new("RGB", (4, 3), (9, 8, 7)).save(tmp_path / "i.png")
    assert sorted(file_corpus(tmp_path / "a.jsonl", "text").examples(0)) == ["one", "two"]
    assert sorted(file_corpus(tmp_path / "a.fasta", "protein").examples(0)) == ["AAA", "MKVLL"]
    assert list(file_corpus(tmp_path / "b.fa.gz", "dna").examples(0)) == ["ACGT"]
    image = next(file_corpus(tmp_path, "image").examples(0))
    assert image.shape == (3, 4, 3)
    assert image[0, 0].tolist() == [9, 8, 7]


@pytest.mark.parametrize(
    ("name", "content", "kind", "says"),
    [
        ("a.txt", b"", "text", "corpus 'a.txt' is empty"),
        ("a.fasta", b"", "protein", "corpus 'a.fasta' is empty"),
        ("a.txt", b"caf\xe9 au lait", "text", "not UTF-8 text (byte 3)"),
        (
            "a.jsonl",
            b'{"texts": 1}',
            "text",
            "line 1: not a JSON object with a text at",
        ),
        ("a.xlsx", b"a,b", "text", "ending in .csv, .jsonl, .parquet, .tsv, .txt"),
        ("a.fa", b"MKV", "protein", "is not FASTA"),
        ("a.txt", b"x", "image", "Images are read from a folder"),
        ("a.fa.gz", b"no gzip", "dna", "cannot be read"),
    ],
)
def test_a_bad_file_says_what_is_wrong(
    tmp_path: Path, name: str, content: bytes, kind: str, says: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BadCorpus) as caught:
        next(file_corpus(path, kind).examples(0))
    assert says in str(caught.value)


def test_an_image_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "fake.png").write_bytes(b"not an image")
    with pytest.raises(BadCorpus, match=r"fake\.png is not an image"):
        next(file_corpus(tmp_path, "image").examples(0))


def test_a_path_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadCorpus, match="no corpus at"):
        file_corpus(tmp_path / "absent.txt", "text")


@pytest.mark.parametrize(
    ("kind", "names", "says"),
    [
        ("text", ["a.png", "below/b.png"], "none of its 2 files is read as text. Give a folder"),
        ("text", ["a.md"], "its one file is not read as text"),
        ("protein", ["a.png"], ".csv, .fa, "),
        ("image", ["a.txt"], ".tar, .tif, .tiff, .webp."),
        ("image", ["a.heic"], "its one file is not read as image"),
        ("text", [], "is empty"),
        ("image", [".hidden.png"], "is empty"),
    ],
)
def test_a_folder_without_files_of_the_kind_is_told_from_an_empty_one(
    tmp_path: Path, kind: str, names: list[str], says: str
) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(BadCorpus) as caught:
        next(file_corpus(tmp_path, kind).examples(0))
    assert says in str(caught.value)
