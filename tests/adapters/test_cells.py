"""Cells as Geneformer sees them: genes by rank, between <cls> and <eos>."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters import Adapter, open_adapter
from tests.adapters.architectures import ARCHITECTURES, OF_CARD
from zoo.errors import BadCard, BadCorpus, BadWeights
from zoo.registry import load_registry

V1, V2 = "geneformer-v1-10m", "geneformer-v2-316m"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("geneformer")
    ARCHITECTURES[OF_CARD[V2]].save(folder)
    return folder / "Geneformer-V2-316M"


@pytest.fixture
def geneformer(repository: Path) -> Callable[..., Adapter]:
    """An adapter on the tiny model: 40 tokens, windows of 16."""

    def make(name: str = V2, *, weights: Path = repository, **changes: Any) -> Adapter:
        card = ARCHITECTURES[OF_CARD[name]].card(load_registry().card(name))
        return open_adapter(card.model_copy(update=changes), weights=weights)

    return make


GENES = list(range(39, 9, -1))


@pytest.mark.parametrize("written", [GENES, [2, *GENES, 3], [2, *GENES], tuple(GENES)])
@pytest.mark.parametrize("kind", [list, lambda ids: array("i", ids)])
def test_a_cell_is_cut_off_where_its_window_ends(
    kind: Callable[[Any], Any], written: Any, geneformer: Callable[..., Adapter]
) -> None:
    assert geneformer().windows(kind(written)) == [[2, *GENES[:14], 3]]
    assert geneformer().windows(kind([5])) == [[2, 5, 3]]


def test_a_model_without_cls_and_eos_gets_none(geneformer: Callable[..., Adapter]) -> None:
    assert geneformer(V1).windows([2, 3, 4]) == [[2, 3, 4]]
    assert geneformer(V1).windows(GENES) == [GENES[:16]]


@pytest.mark.parametrize("cell", [[], [2, 3], array("i")])
def test_a_cell_without_genes_gives_no_window(
    cell: Any, geneformer: Callable[..., Adapter]
) -> None:
    assert geneformer().windows(cell) == []


def test_cls_and_eos_are_special_and_padding_is_neither_seen_nor_measured(
    geneformer: Callable[..., Adapter],
) -> None:
    adapter = geneformer()
    inputs = adapter.inputs([*adapter.windows([5, 6, 7]), *adapter.windows([8])])
    assert inputs.arguments["input_ids"].tolist() == [[2, 5, 6, 7, 3], [2, 8, 3, 0, 0]]
    assert inputs.arguments["attention_mask"].tolist() == [[1] * 5, [1, 1, 1, 0, 0]]
    assert inputs.special.tolist() == [
        [True, *[False] * 3, True],
        [True, False, True, *[False] * 2],
    ]
    assert inputs.unknown is None
    [together] = adapter.activations([0, 2], [[5, 6, 7], [8]], batch_size=2)
    [alone] = adapter.activations([0, 2], [[8]], batch_size=1)
    assert together.position.tolist() == [1, 2, 3, 1]
    assert torch.allclose(together.by_layer[2][3:], alone.by_layer[2], atol=1e-5)


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ([2, 5, 40, 3], "token 40 at position 3 is not a gene: genes are 4 to 39. Give ids of"),
        ([5, 0, 0], "token 0 at position 2 is <pad>, not a gene: genes are 4 to 39. Take padding"),
        ([2, 1, 5, 3], "token 1 at position 2 is <mask>, not a gene"),
        ([5, 3, 6], "token 3 at position 2 is <eos>, not a gene"),
        ([5, "ENSG00000000003"], "token 'ENSG00000000003' at position 2 is not a gene"),
        ("ACGT", "a list of token ids is needed, not str"),
        (7, "a list of token ids is needed, not int"),
    ],
)
def test_what_is_no_cell_of_the_model_is_refused(
    cell: Any, words: str, geneformer: Callable[..., Adapter]
) -> None:
    with pytest.raises(BadCorpus) as failure:
        list(geneformer().activations([0], [cell], batch_size=1))
    assert str(failure.value).startswith(f"model {V2!r}, example 0: {words}")


@pytest.mark.parametrize(
    "special",
    [None, {}, {"pad": 0}, {"pad": 0, "mask": 1, "cls": 2}, {"pad": 0, "mask": 5}, [0, 1, 2, 3]],
)
def test_a_card_that_does_not_say_what_is_special_is_refused(
    special: Any, geneformer: Callable[..., Adapter]
) -> None:
    with pytest.raises(BadCard, match=r"options\.special is .*which of the first ids are pad"):
        geneformer(options={"special": special}).windows([5])


@pytest.mark.parametrize("size", [4, None, "many"])
def test_a_configuration_without_genes_is_refused(
    size: Any, geneformer: Callable[..., Adapter], tmp_path: Path
) -> None:
    config = {"model_type": "bert", "vocab_size": size}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadWeights, match=r"vocab_size = .*, which leaves no genes"):
        geneformer(weights=tmp_path).windows([5])


def test_windows_longer_than_the_models_positions_are_refused(
    geneformer: Callable[..., Adapter],
) -> None:
    with pytest.raises(BadCard, match="context is 65, but the model takes 64 tokens"):
        _ = geneformer(context=65).model
