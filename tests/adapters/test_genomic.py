from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from adapters import Adapter, open_adapter
from adapters.genomic import DnaTrunk, pool_pairs
from adapters.registry import entry
from tests.adapters.tiny import FAMILIES, random_dna
from zoo.cards import Card
from zoo.errors import BadCard, BadCorpus
from zoo.registry import load_registry


def _is_trunk(card: Card) -> bool:
    module, _, name = entry(card).target.partition(":")
    return issubclass(getattr(importlib.import_module(module), name), DnaTrunk)


def test_windows_have_the_exact_length_and_the_rest_is_left_out(
    opened: Callable[[str], Adapter],
) -> None:
    [sequence] = random_dna(1, 3 * 128 + 127)
    adapter = opened("enformer")
    windows = adapter.windows(sequence)
    assert [len(window) for window in windows] == [128] * 3
    codes = adapter.inputs(windows).arguments["x"]
    assert codes.shape == (3, 128, 4)
    codes = codes.flatten(0, 1)
    for base, row in zip(sequence.upper(), codes.tolist(), strict=False):
        assert row == [float(base == letter) for letter in "ACGT"]


TRUNKS = [card for card in load_registry().cards.values() if _is_trunk(card)]


@pytest.mark.parametrize("card", TRUNKS, ids=lambda card: card.id)
def test_a_trunk_is_measured_on_a_corpus_that_fills_its_windows(card: Card) -> None:
    corpus = load_registry().corpus(card.corpus)
    bases = card.options.get("bases", card.context)
    if corpus.data == "made":
        assert corpus.parameters["length"] >= bases
    elif corpus.regions is not None:
        lines = corpus.beside(corpus.regions).read_text(encoding="utf-8").splitlines()
        spans = [tuple(map(int, line.split()[1:])) for line in lines]
        assert min(stop - start for start, stop in spans) >= bases


def test_positions_are_bins_and_the_ends_are_skipped(opened: Callable[[str], Adapter]) -> None:
    [batch] = opened("enformer").activations([1], random_dna(2, 128), batch_size=2)
    assert batch.position.tolist() == [*range(2, 15)] * 2
    assert batch.example.tolist() == [0] * 13 + [1] * 13


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("positions", [1, 2, 30, 31])
@pytest.mark.parametrize("scale", [0.1, 100.0])
def test_pooling_pairs_is_the_packages_pooling(
    positions: int, dtype: torch.dtype, scale: float
) -> None:
    from enformer_pytorch.modeling_enformer import AttentionPool

    pool = AttentionPool(8).to(dtype)
    torch.nn.init.normal_(pool.to_attn_logits.weight)
    x = (scale * torch.randn(3, 8, positions)).to(dtype)
    with torch.no_grad():
        ours, theirs = pool_pairs(pool, x), pool(x)
    assert (ours.dtype, ours.shape) == (dtype, theirs.shape)
    spread = float(x.abs().max())
    assert float((ours - theirs).abs().max()) <= 4 * torch.finfo(dtype).eps * spread


def test_the_fast_pooling_is_in_use_and_keeps_the_activations(
    opened: Callable[[str], Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = opened("enformer")
    pools = [m for m in adapter.model.modules() if type(m).__name__ == "AttentionPool"]
    assert pools
    assert all(getattr(pool.forward, "func", None) is pool_pairs for pool in pools)
    [ours] = adapter.activations([1], random_dna(2, 128), batch_size=2)
    for pool in pools:
        monkeypatch.delattr(pool, "forward")
    [theirs] = adapter.activations([1], random_dna(2, 128), batch_size=2)
    assert torch.allclose(ours.by_layer[1], theirs.by_layer[1], rtol=1e-5, atol=1e-5)


def test_lower_case_is_read_like_upper_case(opened: Callable[[str], Adapter]) -> None:
    adapter = opened("enformer")
    [sequence] = random_dna(1, 128)
    assert adapter.windows(sequence.lower()) == adapter.windows(sequence.upper())


def test_too_short_a_sequence_is_refused(opened: Callable[[str], Adapter]) -> None:
    with pytest.raises(BadCorpus) as failure:
        list(opened("enformer").activations([0], ["ACGT"], batch_size=1))
    assert str(failure.value) == (
        "model 'tiny', example 0: 4 bases, the model sees 128 at a time. Give longer sequences."
    )


@pytest.mark.parametrize("name", ["enformer", "dna-bert"])
def test_other_letters_are_named_with_their_place(
    name: str, opened: Callable[[str], Adapter]
) -> None:
    with pytest.raises(BadCorpus) as failure:
        list(opened(name).activations([0], ["ACGTR" + "A" * 200], batch_size=1))
    assert str(failure.value) == (
        "model 'tiny', example 0: 'R' at position 5 is not a letter of DNA. Letters are ACGNT."
    )


@pytest.mark.parametrize("name", ["enformer", "dna-bert"])
def test_what_is_not_a_sequence_is_refused(name: str, opened: Callable[[str], Adapter]) -> None:
    with pytest.raises(BadCorpus, match="a DNA sequence is needed, not int"):
        list(opened(name).activations([0], [7], batch_size=1))


def test_bases_and_bins_must_agree(checkpoint: Callable[[str], Path]) -> None:
    card = FAMILIES["enformer"].card.model_copy(update={"options": {"bases": 1000}})
    with pytest.raises(BadCard) as failure:
        open_adapter(card, weights=checkpoint("enformer")).windows("ACGT")
    assert str(failure.value) == "card 'tiny': options.bases is 1000, but 16 bins are 128 bases"


@pytest.mark.parametrize("stated", [True, False, None])
def test_positions_are_tensorflows_where_the_card_says_so(
    stated: bool | None, checkpoint: Callable[[str], Path]
) -> None:
    card = FAMILIES["enformer"].card
    options = card.options | ({} if stated is None else {"use_tf_gamma": stated})
    card = card.model_copy(update={"options": options})
    model = open_adapter(card, weights=checkpoint("enformer")).model
    attention = [m for m in model.modules() if type(m).__name__ == "Attention"]
    assert attention
    assert all(module.use_tf_gamma is bool(stated) for module in attention)


def test_the_published_enformer_has_tensorflows_positions() -> None:
    assert load_registry().card("enformer").options["use_tf_gamma"] is True
