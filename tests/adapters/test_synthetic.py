from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from adapters import check, open_adapter
from adapters.synthetic import SyntheticAdapter
from tests.adapters.tiny import make_card
from zoo.cards import Card
from zoo.errors import BadCard, BadCorpus

OPTIONS = {"gamma": 40, "features": 128, "active": 6, "spectrum": 0.5, "seed": 3}


def _card(**options: Any) -> Card:
    return make_card(
        domain="synthetic",
        adapter="synthetic",
        checkpoint={"source": "none"},
        tap={"blocks": "layer", "layers": 1, "width": 48},
        context=64,
        options=OPTIONS | options,
    )


def _open(**options: Any) -> SyntheticAdapter:
    adapter = open_adapter(_card(**options))
    assert isinstance(adapter, SyntheticAdapter)
    return adapter


def _sample(adapter: SyntheticAdapter, tokens: int = 50_000) -> np.ndarray:
    stream = adapter.activations([0], range(10**6), max_tokens=tokens, batch_size=16)
    return np.concatenate([batch.by_layer[0].numpy() for batch in stream]).astype(np.float64)


@pytest.mark.parametrize("gamma", [0.5, 5.0, 40.0])
@pytest.mark.parametrize("spectrum", [0.0, 0.5])
def test_gamma_is_what_was_asked_for(gamma: float, spectrum: float) -> None:
    x = _sample(_open(gamma=gamma, spectrum=spectrum))
    found = np.linalg.norm(x.mean(0)) / np.linalg.norm(x.std(0))
    assert found == pytest.approx(gamma, rel=0.02)


def test_tokens_are_sparse_sums_of_the_known_features() -> None:
    adapter = _open(active=3, features=32, spectrum=0)  # fewer features than dimensions
    truth = adapter.truth.double().numpy()
    np.testing.assert_allclose(np.linalg.norm(truth, axis=1), 1, rtol=1e-6)
    mean: Any = adapter.model
    x = _sample(adapter, 6400) - mean.layer.mean.double().numpy()
    values = x @ np.linalg.pinv(truth)
    assert np.abs(values @ truth - x).max() < 1e-5
    assert values.min() > -1e-4
    assert values.max() <= 1 + 1e-4
    active = values > 1e-4
    assert active.sum(1).mean() == pytest.approx(3, rel=0.05)
    assert values[active].mean() == pytest.approx(0.5, rel=0.02)


def test_frequencies_follow_the_spectrum() -> None:
    adapter = _open(active=4, features=32, spectrum=1.0)
    mean: Any = adapter.model
    x = _sample(adapter, 50_000) - mean.layer.mean.double().numpy()
    rate = (x @ np.linalg.pinv(adapter.truth.double().numpy()) > 1e-4).mean(0)
    expected = 1 / np.arange(1, 33)
    expected *= 4 / expected.sum()
    np.testing.assert_allclose(rate, expected, rtol=0.15)


def test_draws_are_reproducible_and_differ() -> None:
    a, b = _open(), _open()
    assert torch.equal(a.windows(7)[0], b.windows(7)[0])
    assert not torch.equal(a.windows(7)[0], a.windows(8)[0])
    assert not torch.equal(a.windows(7)[0], _open(seed=4).windows(7)[0])
    assert not torch.equal(a.truth, _open(seed=4).truth)


def test_a_draw_does_not_depend_on_its_batch() -> None:
    adapter = _open()
    alone = next(adapter.activations([0], [9], batch_size=1)).by_layer[0]
    beside = next(adapter.activations([0], [8, 9], batch_size=2)).by_layer[0]
    assert torch.equal(beside[64:], alone)


def test_conforms() -> None:
    results = check(_card(), range(1000))
    assert [f"{r.name}: {r.detail}" for r in results if not r.ok] == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"gama": 1},
            "options.gama is not read by adapter synthetic. "
            "It reads active, features, gamma, massive, massive_norm, rank, seed, spectrum.",
        ),
        ({"active": 0}, "options: gamma, features and active must be positive"),
        ({"gamma": -1}, "options: gamma, features and active must be positive"),
        (
            {"active": 100, "spectrum": 1.0},
            "options.active 100 would make a feature active more often than always. "
            "Lower active or spectrum.",
        ),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], text: str) -> None:
    with pytest.raises(BadCard) as failure:
        _ = _open(**options).model
    assert str(failure.value) == f"card 'tiny': {text}"


@pytest.mark.parametrize("example", ["text", True, 1.5])
def test_what_is_not_a_draw_number_is_refused(example: Any) -> None:
    with pytest.raises(BadCorpus, match="a draw number is needed, not"):
        list(_open().activations([0], [example], batch_size=1))


def test_rank_is_how_many_dimensions_the_features_fill() -> None:
    ranks = []
    for rank in (None, 8, 3):
        x = _sample(_open(rank=rank, gamma=40), 20_000)
        shares = np.linalg.eigvalsh(np.cov(x.T))
        shares = shares[shares > 0] / shares[shares > 0].sum()
        ranks.append(np.exp(-(shares * np.log(shares)).sum()))
    assert ranks[0] > 30 > 15 > ranks[1] > 7 > ranks[2] > 2


def test_massive_tokens_are_as_many_and_as_large_as_asked_for() -> None:
    plain, x = _sample(_open(gamma=4)), _sample(_open(gamma=4, massive=0.01, massive_norm=50))
    norms = np.linalg.norm(x, axis=1)
    massive = norms > 10 * np.median(norms)
    assert massive.mean() == pytest.approx(0.01, rel=0.2)
    ordinary = np.linalg.norm(plain, axis=1)
    assert norms[massive].mean() == pytest.approx(50 * np.sqrt((ordinary**2).mean()), rel=0.1)
    directions = x[massive] / norms[massive, None]
    assert (directions @ directions[0]).min() > 0.99
    found = np.linalg.norm(x[~massive].mean(0)) / np.linalg.norm(x[~massive].std(0))
    assert found == pytest.approx(4, rel=0.02)


@pytest.mark.parametrize("options", [{"rank": 0}, {"massive": 0.7}, {"massive_norm": 0}])
def test_impossible_ranks_and_massive_tokens_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(BadCard, match="options"):
        _open(**options).options  # noqa: B018
