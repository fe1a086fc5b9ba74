"""The suites that come with the package, and how a suite names layers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.plan.protocol import presets
from zoo.errors import BadCard
from zoo.registry import load_registry

Bench = Callable[..., tuple[int, str, str]]


# What the published tables call their models: that of initial statistics, and that of trained runs.
INIT_NAMES = {
    "af3": "alphafold3", "dinov2": "dinov2-base", "dinov2_large": "dinov2-large",
    "dinov3": "dinov3-7b", "dinov3_small": "dinov3-base", "esm2_35m": "esm2-35m",
    "esm2_3B": "esm2-3b", "esm2_650m": "esm2-650m", "esm3": "esm3-open", "evo": "evo1-8k",
    "glm2": "glm2-650m", "gpt2": "gpt2", "modernbert": "modernbert-base",
    "modernbert_large": "modernbert-large", "progen_base": "progen2-base",
    "progen_large": "progen2-large", "pythia_410m": "pythia-410m", "pythia_70m": "pythia-70m",
    "stable-diffusion-3-5-large": "sd3.5-large",
}  # fmt: skip
TRAINED_NAMES = {
    "GPT-2": "gpt2", "Pythia 410m": "pythia-410m", "ModernBERT-Large": "modernbert-large",
    "DINOv2-Large": "dinov2-large", "DINOv3-1B": "dinov3-base", "DINOv3-7B": "dinov3-7b",
    "Stable Diffusion 3.5 Large": "sd3.5-large", "ProGen2-large": "progen2-large",
    "gLM2": "glm2-650m", "ESM2-650M": "esm2-650m", "ESM2-3B": "esm2-3b", "ESM3": "esm3-open",
    "Evo1": "evo1-8k", "AlphaFold3": "alphafold3",
}  # fmt: skip


def test_the_paper_suite_is_every_block_but_the_last() -> None:
    registry = load_registry()
    suite = registry.suite("paper")
    layers = {name: suite.layers_of(registry.card(name)) for name in suite.models}
    assert len(layers) == 19
    assert sum(map(len, layers.values())) == 454
    assert layers.pop("alphafold3") == [0]
    for name, found in layers.items():
        assert found == list(registry.card(name).layers)[:-1], name


def test_the_published_rows_and_the_layers_of_the_paper_suite_are_one_to_one() -> None:
    """Rows run from 1 to L - 1 in a model of L blocks; AlphaFold 3 has one, of number 0."""
    registry = load_registry()
    suite = registry.suite("paper")
    assert {name: suite.model_called(name) for name in INIT_NAMES} == INIT_NAMES
    assert set(INIT_NAMES.values()) == set(suite.models)
    for model in suite.models:
        card = registry.card(model)
        rows = [0] if model == "alphafold3" else list(range(1, len(card.layers)))
        assert sorted(suite.published_layers(card).values()) == rows, model


@pytest.mark.parametrize("written", [str, str.upper, str.lower, lambda name: f" {name}-"])
def test_published_names_are_known_whatever_their_case(written: Callable[[str], str]) -> None:
    suite = load_registry().suite("paper")
    for name, model in (INIT_NAMES | TRAINED_NAMES).items():
        assert suite.model_called(written(name)) == model
    assert suite.model_called(written("gpt3")) is None


def test_plan_counts_and_names_the_layers_of_the_paper(bench: Bench) -> None:
    code, out, err = bench("plan", "--suite", "paper")
    assert code == 0, err
    assert "454 layers, 1,362 cells, 0 done" in out
    code, out, err = bench("plan", "--suite", "paper", "--model", "gpt2", "--layer", "6")
    assert "1 layer, 3 cells" in out
    assert out.splitlines()[2].split()[:4] == ["gpt2", "real", "6", "7"]


def test_plan_says_both_numbers_of_a_layer(bench: Bench) -> None:
    def plan(*options: str) -> list[dict]:
        code, out, err = bench("plan", *options, "--json")
        assert code == 0, err
        return json.loads(out)["blocks"]

    (gpt2,) = plan("--model", "gpt2", "--limit", "1000")
    assert gpt2["layers"] == list(range(12))
    assert gpt2["published_layers"] == [*range(1, 12), None]
    paper = ["--suite", "paper", "--protocol", "quick", "--model"]
    for offset, first in (("-1", 0), ("0", 1)):
        (block,) = plan(*paper, "gpt2", "--layer-offset", offset)
        assert block["layers"] == list(range(first, first + 11))
        assert block["published_layers"] == list(range(1, 12))
        (block,) = plan(*paper, "alphafold3", "--layer-offset", offset)
        assert (block["layers"], block["published_layers"]) == ([0], [0])
    (tiny,) = plan("--model", "tiny-gpt2")
    assert tiny["published_layers"] == [None] * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "gpt2"], "--layer-offset is about a suite. Name one: --suite paper."),
        (["--suite", "embedded"], "suite 'embedded' are in no published table. Omit"),
        (
            ["--suite", "paper"],
            "with --layer-offset -2 'gpt2' needs a layer -1. It has layers 0 to",
        ),
    ],
)
def test_a_layer_offset_that_means_nothing_is_refused(
    bench: Bench, options: list[str], message: str
) -> None:
    code, out, err = bench("plan", *options, "--layer-offset", "-2")
    assert (code, out) == (2, "")
    assert message in err


def test_a_suite_brings_its_protocol_unless_another_is_named(bench: Bench) -> None:
    registry = load_registry()
    assert registry.suite("paper").protocol == "paper"
    assert registry.suite("embedded").protocol is None
    options = ["plan", "--suite", "paper", "--model", "pythia-70m", "--json"]
    for named, arms in ((["--protocol", "quick"], 2), ([], 3), (["--arm", "raw"], 1)):
        code, out, _ = bench(*options, *named)
        assert code == 0
        (cells,) = {block["cells"] // len(block["layers"]) for block in json.loads(out)["blocks"]}
        assert cells == arms


def test_every_protocol_of_a_suite_is_a_preset() -> None:
    named = {suite.protocol for suite in load_registry().suites.values()}
    assert named - {None} <= set(presets())


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
        ("{gpt2: 1-2}", "layers of 'gpt2', which is not in the suite"),
        ("{tiny-gpt2: middle}", "layers.tiny-gpt2"),
    ],
)
def test_wrong_layers_in_a_suite_are_refused(tmp_path: Path, layers: str, message: str) -> None:
    with pytest.raises(BadCard, match=message):
        load_registry([_suite(tmp_path, layers)])


@pytest.mark.parametrize(
    ("published", "message"),
    [
        ("{layer_offset: -1, names: {tiny: [a]}}", "published names of 'tiny', which is not in"),
        ("{layer_offset: -1, layer_offsets: {gpt2: 0}}", "layer offsets of 'gpt2', which is not"),
        (
            "{layer_offset: -1, names: {tiny-gpt2: [Tiny ESM2]}}",
            "'tiny-gpt2' and 'tiny-esm2' are both 'tiny-esm2'",
        ),
        ("{names: {}}", "layer_offset"),
    ],
)
def test_wrong_published_names_are_refused(tmp_path: Path, published: str, message: str) -> None:
    folder = _suite(tmp_path, "{}")
    with (folder / "suites" / "mine.yaml").open("a") as file:
        file.write(f"published: {published}\n")
    with pytest.raises(BadCard, match=message):
        load_registry([folder])


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
