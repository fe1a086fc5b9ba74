"""The error of a mean, against repeated draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.statistics.mean_error import MeanError, without_chance


def squared(x: torch.Tensor, batch: int = 37) -> float:
    found = MeanError(x.shape[1])
    for rows in x.split(batch):
        found.update(rows)
    return found.squared()


def stream(sequences: int, length: int, seed: int) -> torch.Tensor:
    draws = torch.Generator().manual_seed(seed)
    offsets = 2 * torch.randn(sequences, 1, 6, generator=draws)
    return (offsets + torch.randn(sequences, length, 6, generator=draws)).reshape(-1, 6)


@pytest.mark.parametrize(("sequences", "length"), [(4096, 1), (128, 32)])
def test_says_how_far_the_mean_of_such_streams_is_off(sequences, length):
    """The true mean is 0; float64, thirty draws."""
    streams = [stream(sequences, length, seed) for seed in range(30)]
    truth = np.mean([float(x.double().mean(0).square().sum()) for x in streams])
    assert np.mean([squared(x) for x in streams]) == pytest.approx(truth, rel=0.35)


def test_sequences_make_it_larger_than_independent_tokens_would():
    x = stream(64, 64, seed=1)
    independent = float(x.double().var(0, correction=0).sum()) / len(x)
    assert squared(x) > 10 * independent
    shuffled = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(2))]
    assert squared(shuffled) == pytest.approx(independent, rel=0.5)


def test_batches_make_no_difference():
    x = stream(10, 33, seed=3)
    assert squared(x, 1) == pytest.approx(squared(x, 330), rel=1e-12)


def test_one_token_says_nothing():
    assert MeanError(4).squared() is None
    found = MeanError(4)
    found.update(torch.ones(1, 4))
    assert found.squared() is None


def test_gamma_without_chance():
    assert without_chance(0.5, squared_error=0.9, variance=10.0) == pytest.approx(0.4)
    assert without_chance(0.2, squared_error=0.9, variance=10.0) == 0.0
