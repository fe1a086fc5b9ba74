"""Corpora that other packages bring: read where installed; else made data, and one line."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from Bio.Seq import reverse_complement, translate

from zoo.cards import Card, CorpusCard, validate
from zoo.corpora import open_corpus
from zoo.corpus_choice import CorpusChoice, choose_corpus
from zoo.errors import BadCard, BadCorpus, CorpusUnavailable
from zoo.installed import is_installed, longest_open_frame
from zoo.registry import Registry, load_registry

Bench = Callable[..., tuple[int, str, str]]
REGISTRY = load_registry()
INSTALLED = [card for card in REGISTRY.corpora.values() if card.source == "installed"]
ROOT = Path(__file__).parents[2]

# No other frame of it is open for more than nine codons.
GENE = "ATGACATTGCATGGTAAACTAATTCAGACTAAAGCTCCCCAATTG"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module `some_reads` with data in it."""
    folder = tmp_path / "site" / "some_reads"
    (folder / "data").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return folder


def _card(**changes: object) -> CorpusCard:
    facts: dict[str, object] = {
        **{"id": "reads", "summary": "s", "kind": "protein", "source": "installed"},
        **{"install": "pip install --no-deps some-reads==1.0", "module": "some_reads"},
        **{"path": "data/*.fasta"},
    }
    return validate(CorpusCard, facts | changes, where="card")


def test_a_corpus_is_found_without_importing_its_package(package: Path) -> None:
    card = _card()
    assert not is_installed(card)
    with pytest.raises(CorpusUnavailable, match=r"'reads' is not installed\. Say pip install --no"):
        open_corpus(card)
    (package / "data" / "a.fasta").write_text(">a\nMKVLA\n")
    (package / "data" / "readme.txt").write_text("no sequence")
    assert is_installed(card)
    assert list(open_corpus(card).examples(0)) == ["MKVLA"]
    elsewhere = _card(module=None, folder=str(package), path="data/a.fasta")
    assert open_corpus(elsewhere).fingerprint() == open_corpus(card).fingerprint()
    assert not is_installed(_card(module="no_such_module"))


def test_markdown_is_text_where_a_card_names_it(package: Path) -> None:
    (package / "data" / "play.md").write_text("**A**\nWho's there?\n\n**B**\nNay.\n")
    card = _card(kind="text", path="data/*.md")
    assert set(open_corpus(card).examples(0)) == {"**A**\nWho's there?", "**B**\nNay."}
    assert not is_installed(_card(kind="text", path="data/*"))


def test_genes_are_read_as_the_proteins_they_code_for_each_once(package: Path) -> None:
    reads = [GENE, "A" + GENE.lower(), reverse_complement("CC" + GENE)]
    text = "".join(f">{i}\n{read}\n" for i, read in enumerate(reads))
    (package / "data" / "a.fasta").write_text(text)
    corpus = open_corpus(_card(translate=True))
    assert list(corpus.examples(0)) == [str(translate(GENE))]
    assert corpus.notes == ["2 the same as another, left out"]
    (package / "data" / "b.fasta").write_text(">b\nACGTQ\n")
    with pytest.raises(BadCorpus, match="'Q' at position 5 is not a letter of DNA"):
        list(open_corpus(_card(translate=True)).examples(0))
    assert len(list(open_corpus(_card(translate=True), skip_bad=1).examples(0))) == 1


def test_the_longest_open_frame_of_either_strand_is_read() -> None:
    assert longest_open_frame("AA" + GENE + "TAAAA") == translate(GENE)
    assert longest_open_frame(reverse_complement(GENE + "TAG" + GENE[:9])) == translate(GENE)
    assert longest_open_frame("ATGNNN") == "MX"
    assert longest_open_frame("AC") == ""


def test_a_card_says_one_place_and_translates_proteins_alone() -> None:
    with pytest.raises(BadCard, match="needs one of the keys 'module' and 'folder'"):
        _card(folder="/some/folder")
    with pytest.raises(BadCard, match="DNA is translated to proteins alone"):
        _card(kind="dna", translate=True)
    with pytest.raises(BadCard, match="source 'installed' needs the key 'install'"):
        _card(install=None)


def _registry(corpus: CorpusCard) -> tuple[Registry, Card]:
    registry = load_registry()
    model = REGISTRY.card("tiny-esm2").model_copy(update={"real_corpus": corpus.id})
    registry = Registry(cards={model.id: model}, corpora={**registry.corpora, corpus.id: corpus})
    return registry, model


def test_a_model_reads_real_data_where_it_is_installed_and_says_so_where_not(
    package: Path,
) -> None:
    registry, model = _registry(_card())
    made = CorpusChoice().open(model, registry)
    assert (made.name, CorpusChoice().name(model, registry)) == ("protein-families",) * 2
    assert made.notes == [
        "made data in place of reads, which is real and not installed: "
        "pip install --no-deps some-reads==1.0"
    ]
    (package / "data" / "a.fasta").write_text(">a\nMKVLA\n")
    assert CorpusChoice().open(model, registry).name == "reads"
    card = CorpusChoice().card(model, registry)
    assert card is not None
    assert card.data == "real"
    named = choose_corpus(registry, "protein-families").open(model, registry)
    assert (named.name, named.notes) == ("protein-families", [])


def test_a_run_names_the_command_once(bench: Bench, tmp_path: Path) -> None:
    cards = tmp_path / "cards"
    (cards / "corpora").mkdir(parents=True)
    (cards / "corpora" / "reads.yaml").write_text(yaml.safe_dump(_card().model_dump(mode="json")))
    own = yaml.safe_load((ROOT / "zoo" / "cards" / "tiny-esm2.yaml").read_text())
    for name in ("a", "b"):
        card = own | {"id": name, "real_corpus": "reads"}
        (cards / f"{name}.yaml").write_text(yaml.safe_dump(card))
    code, _, err = bench("fetch", "--corpus", "reads", "--cards", str(cards))
    assert (code, err) == (
        2,
        "bench: corpus 'reads' is not installed. Say pip install --no-deps some-reads==1.0.\n",
    )
    code, out, err = bench("plan", "a", "b", "--cards", str(cards))
    assert code == 0
    assert err.count("pip install --no-deps some-reads==1.0") == 1
    assert out.count(" made ") == 2


@pytest.mark.parametrize("card", INSTALLED, ids=lambda card: card.id)
def test_a_pin_is_that_of_the_constraints(card: CorpusCard) -> None:
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    for pin in re.findall(r"\S+==\S+", str(card.install)):
        assert pin in pins
        assert pin.split("==")[0] == card.module


@pytest.mark.parametrize("card", INSTALLED, ids=lambda card: card.id)
def test_what_a_card_counts_is_there(card: CorpusCard) -> None:
    if not is_installed(card):
        pytest.skip(f"{card.id} is not installed: {card.install}")
    examples = list(open_corpus(card).examples(0))
    assert len(examples) == card.examples
    if card.kind != "text":
        assert sum(map(len, examples)) == card.tokens
