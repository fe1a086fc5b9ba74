"""An option that means nothing for what was chosen is refused before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zoo.cards import CorpusCard

Bench = Callable[..., tuple[int, str, str]]

MODELS = {
    "text": "tiny-gpt2",
    "protein": "tiny-esm2",
    "dna": "tiny-enformer",
    "image": "tiny-dinov2",
    "made": "synthetic-gamma4",
    "stored": "dump:stored",
}


@pytest.fixture
def inputs(tmp_path: Path, bench: Bench) -> Path:
    """A corpus of each kind, a folder of stored activations, and a BED file."""
    (tmp_path / "text.txt").write_text("some words\n\nmore words")
    (tmp_path / "protein.fa").write_text(">chr1\n" + "ACDEFGHIKL" * 200)
    (tmp_path / "dna.fa").write_text(">chr1\n" + "ACGT" * 2000)
    (tmp_path / "table.jsonl").write_text('{"sequence": "%s"}\n' % ("ACGT" * 2000))
    (tmp_path / "image").mkdir()
    Image.new("RGB", (60, 60)).save(tmp_path / "image" / "a.png")
    (tmp_path / "stored").mkdir()
    np.save(tmp_path / "stored" / "layer0.npy", np.ones((50, 8), np.float32))
    (tmp_path / "r.bed").write_text("chr1\t0\t4000\n")
    assert bench("manifest", "stored", "--domain", "language")[0] == 0
    return tmp_path


REFUSED = {
    ("text", "--corpus text.txt --regions r.bed"): "regions (r.bed) are parts of a genome",
    ("protein", "--corpus protein.fa --regions r.bed"): "regions (r.bed) are parts of a genome",
    ("image", "--corpus image --regions r.bed"): "regions (r.bed) are parts of a genome",
    ("dna", "--corpus table.jsonl --regions r.bed"): "table.jsonl has none",
    ("dna", "--corpus dna.fa --regions absent.bed"): "--regions: nothing at absent.bed",
    ("dna", "--regions r.bed"): "--regions names parts of a genome. Give the genome with --corpus",
    ("made", "--corpus text.txt"): "--corpus: model 'synthetic-gamma4' is activations that",
    ("made", "--corpus dna.fa --regions r.bed"): "--corpus: model 'synthetic-gamma4' is",
    ("stored", "--corpus text.txt"): "--corpus: model 'dump.stored' is activations that are",
    ("made", "--weights stored"): "--weights: model 'synthetic-gamma4' has none",
}
HEARD = {
    ("text", "--corpus text.txt"),
    ("protein", "--corpus protein.fa"),
    ("dna", "--corpus dna.fa"),
    ("dna", "--corpus table.jsonl"),
    ("dna", "--corpus dna.fa --regions r.bed"),
    ("image", "--corpus image"),
    ("stored", ""),
}


@pytest.mark.parametrize(("kind", "options"), [*REFUSED, *sorted(HEARD)])
def test_an_option_is_heard_or_refused(kind: str, options: str, inputs: Path, bench: Bench) -> None:
    code, out, err = bench("plan", "--model", MODELS[kind], "--layer", "0", *options.split())
    last = err.strip().splitlines()[-1] if err.strip() else ""
    if (kind, options) in HEARD:
        assert code == 0, err
        assert "1 layer," in out
    else:
        assert code == 2, out
        assert REFUSED[kind, options] in last


@pytest.mark.parametrize("option", ["--corpus dna.fa --regions r.bed", "--corpus dna.fa"])
def test_check_hears_the_same_options(option: str, inputs: Path, bench: Bench) -> None:
    assert bench("check", MODELS["made"], *option.split())[0] == 2
    if "--regions" in option:
        (inputs / "r.bed").write_text("chr2\t0\t4\n")
        code, out, err = bench("check", MODELS["dna"], *option.split())
        assert code == 1
        assert "the genome has no sequence 'chr2'" in out + err


@pytest.mark.parametrize(
    ("source", "keys", "unread"),
    [
        ("file", {"path": "a.fa", "hub": "a/b"}, "hub"),
        ("file", {"path": "a.fa", "endless": True}, "endless"),
        ("file", {"path": "a.fa", "parameters": {"count": 3}}, "parameters"),
        ("generator", {"generator": "text:topics", "column": "text"}, "column"),
        ("hub", {"hub": "a/b", "revision": "0" * 40, "path": "*", "regions": "r.bed"}, "regions"),
        ("none", {"path": "a.fa"}, "path"),
    ],
)
def test_an_unused_key_of_a_corpus_card_is_refused(source: str, keys: dict, unread: str) -> None:
    with pytest.raises(ValueError, match=f"source '{source}' does not read the key '{unread}'"):
        CorpusCard.model_validate(
            {"id": "x", "summary": "x", "kind": "dna", "source": source} | keys
        )
