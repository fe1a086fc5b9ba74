"""The suites that come with the package, and how a suite names layers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from zoo.errors import BadCard
from zoo.registry import load_registry

Bench = Callable[..., tuple[int, str, str]]


def test_the_paper_suite_names_the_published_layers() -> None:
    registry = load_registry()
    suite = registry.suite("paper")
    layers = {name: suite.layers_of(registry.card(name)) for name in suite.models}
    assert len(layers) == 19
    assert sum(map(len, layers.values())) == 454
    assert layers.pop("alphafold3") == [0]
    for name, found in layers.items():
        assert found == list(registry.card(name).layers)[1:], name


def test_plan_counts_and_names_the_layers_of_the_paper(bench: Bench) -> None:
    code, out, err = bench("plan", "--suite", "paper")
    assert code == 0, err
    assert "454 layers, 908 cells, 0 done" in out
    code, out, err = bench("plan", "--suite", "paper", "--model", "gpt2", "--layer", "6")
    assert "1 layers, 2 cells" in out


def _suite(folder: Path, layers: str) -> Path:
    (folder / "suites").mkdir(parents=True)
    text = f"id: mine\nsummary: s\nmodels: [tiny-gpt2, tiny-esm2]\nlayers: {layers}\n"
    (folder / "suites" / "mine.yaml").write_text(text)
    return folder


def test_a_suite_without_layers_of_a_model_means_all(tmp_path: Path) -> None:
    registry = load_registry([_suite(tmp_path, '{tiny-gpt2: "0, 2-3"}')])
    suite = registry.suite("mine")
    assert suite.layers_of(registry.card("tiny-gpt2")) == [0, 2, 3]
    assert suite.layers_of(registry.card("tiny-esm2")) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("{tiny-gpt2: 2-4}", "suite 'mine': 'tiny-gpt2' has no layer 4"),
        ("{gpt2: 1-2}", "suite 'mine' names layers of 'gpt2', not its own"),
        ("{tiny-gpt2: middle}", "layers.tiny-gpt2"),
    ],
)
def test_wrong_layers_in_a_suite_are_refused(tmp_path: Path, layers: str, message: str) -> None:
    with pytest.raises(BadCard, match=message):
        load_registry([_suite(tmp_path, layers)])


def test_every_fact_of_a_hub_card_has_a_source() -> None:
    for card in load_registry().cards.values():
        if card.checkpoint.source != "hub":
            continue
        stated = {name.strip() for key in card.sources for name in key.split(",")}
        assert {"layers", "width", "parameters", "licence"} <= stated, card.id
        assert ("revision" in stated) == (card.checkpoint.revision is not None) or (
            card.checkpoint.remote_code
        ), card.id
        assert card.checkpoint.licence, card.id
        if card.checkpoint.gated:
            assert card.checkpoint.licence_page, card.id
        if card.checkpoint.remote_code:
            assert "stand-in" in card.notes, card.id
