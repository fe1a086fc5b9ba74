"""Gammas with and without special tokens, by whichever rule a card measures."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adapters import Adapter, Inputs
from adapters.tokens import consecutive, pad
from bench.activations.special_tokens import measure_special_tokens
from bench.activations.stream import ActivationStream
from bench.records.schema import SpecialTokens
from bench.statistics.layer import GammaStatistics, LayerStatistics
from bench.statistics.reservoir import Reservoir
from tests.adapters.tiny import make_card
from tests.bench import reference
from tests.records import PROTOCOL
from zoo.corpora import FiniteCorpus

WIDTH, TOKENS, BOS, OTHER = 12, 600, 0, 49
PROTOCOL_HERE = PROTOCOL.model_copy(update={"forward_tokens": 100})


class Sinks(Adapter):
    """Ids are looked up in a fixed table; 0 and 49 are special, the activation of 0 is huge."""

    passes = 0
    most_windows: int | None = None  # at a time, for which there is memory

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            generator = torch.Generator().manual_seed(0)
            table = torch.randn(50, WIDTH, generator=generator)
            table[BOS] = 100.0
            table[BOS, 3] = -900.0
            self.table = nn.Embedding.from_pretrained(table)
            self.h = nn.Sequential(nn.Identity(), nn.Identity())

        def forward(self, ids: Tensor) -> Tensor:
            Sinks.passes += 1
            if Sinks.most_windows and len(ids) > Sinks.most_windows:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return self.h(self.table(ids))

    def load(self) -> nn.Module:
        return self.Model()

    def windows(self, example: Any) -> list[Any]:
        return [example[cut] for cut in consecutive(len(example), self.card.context)]

    def inputs(self, items: list[Any]) -> Inputs:
        ids, valid = pad(items, 1)
        return Inputs({"ids": ids}, valid, ((ids == BOS) | (ids == OTHER)) & valid)


def sequences(start: list[int]) -> list[list[int]]:
    """Ids of ordinary tokens, after one of those that a sequence may start with."""
    draw = np.random.default_rng(1)
    bodies = [draw.integers(1, 49, draw.integers(4, 9)).tolist() for _ in range(900)]
    return [[start[i % len(start)], *body] if start else body for i, body in enumerate(bodies)]


def measure(
    start: list[int], most_windows: int | None = None, **rule: Any
) -> tuple[SpecialTokens, Tensor]:
    """What is found on sequences that begin so, and the sample's tokens.

    After the sample, there is memory for `most_windows` at a time.
    """
    card = make_card(tap={"blocks": "h.{i}", "layers": 2, "width": WIDTH}, context=10, tokens=rule)
    corpus = FiniteCorpus("ids", "text", lambda: sequences(start))
    stream = ActivationStream(Sinks(card), corpus, [1], PROTOCOL_HERE)
    sample = stream.sample(TOKENS)[1]
    statistics = LayerStatistics(WIDTH)
    statistics.update(sample)
    Sinks.passes, Sinks.most_windows = 0, most_windows
    try:
        return measure_special_tokens(stream, TOKENS, {1: statistics.result()})[1], sample
    finally:
        Sinks.most_windows = None


def rows(start: list[int], chosen: slice) -> np.ndarray:
    """The sample's tokens, straight from the table: of a quarter of the examples, in whole batches
    of ten."""
    table = Sinks.Model().table.weight
    corpus = FiniteCorpus("ids", "text", lambda: sequences(start))
    examples = itertools.islice(corpus.examples(PROTOCOL.data_seed), 230)
    ids = torch.tensor([each for example in examples for each in example[chosen]])
    drawn = Reservoir(1, capacity=TOKENS, seed=PROTOCOL.data_seed)
    drawn.update(ids[:, None])
    return table[drawn.rows()[:, 0]].numpy()


@pytest.mark.parametrize("special", ["drop", "keep", "only"])
def test_both_are_those_of_the_tokens_meant(special: str) -> None:
    found, _ = measure([BOS, OTHER], special=special)
    assert found.reason is None
    for part, chosen in ((found.kept, slice(None)), (found.dropped, slice(1, None))):
        assert part is not None
        x = rows([BOS, OTHER], chosen)
        assert part.tokens == TOKENS
        for name, transform in (("gamma", "layernorm"), ("gamma_raw", "raw"), ("gamma_rms", "rms")):
            expected = reference.gamma(reference.transformed(x, transform))
            assert getattr(part, name) == pytest.approx(expected, rel=1e-9)
    assert found.kept is not None
    assert found.dropped is not None
    assert found.kept.gamma_raw > 1.5 * found.dropped.gamma_raw
    assert found.kept.outlier_dims[0].index == 3


@pytest.mark.parametrize("special", ["drop", "keep"])
def test_the_card_s_own_rule_is_not_measured_twice(special: str) -> None:
    found, sample = measure([BOS, OTHER], special=special)
    statistics = GammaStatistics(WIDTH)
    statistics.update(sample)
    own = found.dropped if special == "drop" else found.kept
    assert own is not None
    assert own.gamma_raw == statistics.result().gamma_raw
    assert 0 < Sinks.passes <= 24


def test_a_skipped_first_position_counts_as_one() -> None:
    found, _ = measure([BOS + 2], special="drop", skip_first=1)
    assert found.kept is not None
    assert found.dropped is not None
    x = rows([BOS + 2], slice(None))
    assert found.kept.gamma_raw == pytest.approx(reference.gamma(x.astype(np.float64)), rel=1e-9)
    assert found.kept.gamma_raw != found.dropped.gamma_raw


def test_a_forward_pass_that_does_not_fit_takes_fewer_windows() -> None:
    whole, _ = measure([BOS, OTHER], special="drop")
    passes = Sinks.passes
    parts, _ = measure([BOS, OTHER], most_windows=3, special="drop")
    assert Sinks.passes > passes
    assert parts == whole


def test_without_special_tokens_nothing_is_measured_and_it_is_said() -> None:
    found, _ = measure([], special="drop")
    assert (found.kept, found.dropped) == (None, None)
    assert found.reason == "the model has no special tokens, and the card skips none"
    assert Sinks.passes == 0


def test_special_tokens_that_overflow_do_not_fail_the_layer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = Sinks.Model.forward

    def overflowing(self: Any, ids: Tensor) -> Tensor:
        self.table.weight[BOS] = torch.inf
        return plain(self, ids)

    monkeypatch.setattr(Sinks.Model, "forward", overflowing)
    found, _ = measure([BOS, OTHER], special="drop")
    assert found.kept is None
    assert found.dropped is not None
    assert found.reason is not None
    assert "non-finite value" in found.reason


def test_the_other_rule_shares_the_loaded_model() -> None:
    adapter = Sinks(make_card(tap={"blocks": "h.{i}", "layers": 2, "width": WIDTH}))
    rule = adapter.card.tokens.model_copy(update={"special": "keep"})
    twin = adapter.measuring(rule)
    assert twin.model is adapter.model
    assert twin.card.tokens.special == "keep"
    assert adapter.card.tokens.special == "drop"
    assert twin.card.folder == adapter.card.folder
