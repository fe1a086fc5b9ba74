"""What of a folder is a corpus, or an identity: nothing hidden, and nothing left out in silence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.adapters.tiny import make_card
from zoo.corpora import file_corpus
from zoo.weights import weights_identity

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(PIXELS).save(path, "JPEG")


def test_pictures_of_other_formats_are_counted_and_hidden_ones_are_no_part(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jfif", "below/c.JPG", ".thumbs/a.jpg", "below/.git/d.jpg", ".e.jpg"):
        picture(tmp_path / name)
    for name in ("a.avif", "b.AVIF", "c.heic", ".thumbs/d.heic", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    corpus = file_corpus(tmp_path, "image")
    corpus.fingerprint()
    assert [path.name for path in corpus.items] == ["a.jpg", "b.jfif", "c.JPG"]
    assert corpus.notes == [
        "2 .avif pictures left out: their format is not read",
        "1 .heic pictures left out: their format is not read",
    ]


@pytest.mark.parametrize("kind", ["text", "dna"])
def test_hidden_files_of_words_and_letters_are_no_part_either(kind: str, tmp_path: Path) -> None:
    for folder in (".", ".git", "below/.cache"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "a.jsonl").write_text('{"text": "ACGT", "sequence": "ACGT"}\n')
    assert len(file_corpus(tmp_path, kind).items) == 1


def test_vocabulary_beside_antiberty_is_a_part_of_its_identity(tmp_path: Path) -> None:
    folder = tmp_path / "AntiBERTy_md_smooth"
    folder.mkdir()
    (folder / "pytorch_model.bin").write_bytes(b"weights")
    (tmp_path / "vocab.txt").write_text("[UNK]\nA\nC\n")
    checkpoint = {"source": "folder", "path": str(folder)}
    card = make_card(adapter="antiberty", domain="protein", checkpoint=checkpoint)
    before = weights_identity(card, folder)
    (tmp_path / "vocab.txt").write_text("[UNK]\nC\nA\n")
    assert weights_identity(card, folder) != before
    other = make_card(adapter="esm2", domain="protein", checkpoint=checkpoint)
    same = weights_identity(other, folder)
    (tmp_path / "vocab.txt").write_text("[UNK]\nA\nC\n")
    assert weights_identity(other, folder) == same
