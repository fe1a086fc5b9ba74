"""What is recorded of a layer at initialisation, beside the published definitions in plain numpy.

In float64 and from the activations alone: gamma as they are and after a LayerNorm, the effective
rank, and who is dead by which path, as arXiv 2605.31518 and its code define them.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch

from bench.sae.arms import parse_arm
from bench.sae.initial import InitialSAEs
from bench.statistics.layer import LayerStatistics

TOKENS, WIDTH, N, K = 3000, 24, 200, 6


def activations(gamma: float, seed: int) -> torch.Tensor:
    """A spectrum that falls steeply, a mean of `gamma` times the spread, tokens of all sizes."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((TOKENS, WIDTH)) / np.arange(1, WIDTH + 1)
    x @= np.linalg.qr(random.standard_normal((WIDTH, WIDTH)))[0]
    mean = random.standard_normal(WIDTH)
    x += gamma * np.linalg.norm(x.std(0)) * mean / np.linalg.norm(mean)
    return torch.from_numpy(x * random.lognormal(0, 0.5, (TOKENS, 1))).float()


def layer_normalised(x: np.ndarray) -> np.ndarray:
    centered = x - x.mean(1, keepdims=True)
    return centered / np.sqrt((centered**2).mean(1, keepdims=True) + 1e-5) * np.sqrt(x.shape[1])


def gamma_of(x: np.ndarray) -> float:
    mean = x.mean(0)
    variance = ((x - mean) ** 2).mean(0)
    return float(np.sqrt((mean**2).sum() / variance.sum()))


def effective_rank(x: np.ndarray) -> float:
    values = np.linalg.eigvalsh(np.cov(x.T, bias=True))
    shares = values[values > 1e-12 * values.sum()] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def dead(x: np.ndarray, W: np.ndarray) -> tuple[int, int]:
    """Features that are never positive; those that are, and never among the K largest codes."""
    codes = np.maximum(x @ W.T, 0)
    positive, selected = np.zeros(N, bool), np.zeros(N, bool)
    for token in codes:
        positive |= token > 0
        largest = np.argsort(token)[-K:]
        selected[largest[token[largest] > 0]] = True
    return int((~positive).sum()), int((positive & ~selected).sum())


def weiszfeld(x: np.ndarray) -> np.ndarray:
    point = x.mean(0)
    for _ in range(200):
        weights = 1 / np.maximum(np.linalg.norm(x - point, axis=1), 1e-8)
        moved = (weights[:, None] * x).sum(0) / weights.sum()
        if np.linalg.norm(moved - point) < 1e-6:
            return point
        point = moved
    return point


LAYERS = [(gamma, seed) for seed, gamma in enumerate((0.1, 0.5, 1.0, 2.0, 5.0, 30.0))]


@pytest.mark.parametrize(("gamma", "seed"), LAYERS)
def test_gamma_and_effective_rank(gamma: float, seed: int) -> None:
    sample = activations(gamma, seed)
    statistics = LayerStatistics(WIDTH)
    statistics.update(sample)
    found, x = statistics.result(), sample.double().numpy()
    assert found.gamma_raw == pytest.approx(gamma_of(x), rel=1e-9)
    # Of tokens with next to no variance LayerNorm's eps takes less than the published 1e-5.
    assert found.gamma == pytest.approx(gamma_of(layer_normalised(x)), rel=1e-5)
    assert found.effective_rank == pytest.approx(effective_rank(layer_normalised(x)), rel=1e-4)


@pytest.mark.parametrize("arm", ["raw", "centered"])
@pytest.mark.parametrize(("gamma", "seed"), LAYERS)
def test_the_dead_at_initialisation(
    gamma: float, seed: int, arm: Literal["raw", "centered"]
) -> None:
    sample = activations(gamma, seed)
    census = InitialSAEs(sample, N, K).census(parse_arm(arm), seed)
    W = InitialSAEs(sample, N, K).sae(parse_arm(arm), seed).W_enc.double().numpy()
    x = sample.double().numpy()
    expected = dead(x if arm == "raw" else x - weiszfeld(x), W)
    if arm == "raw":
        assert (census.dead_relu, census.dead_topk) == expected
    else:  # the center is rounded to float32
        assert abs(census.dead_relu - expected[0]) <= 1
        assert abs(census.dead - sum(expected)) <= 2


def test_both_paths_have_their_dead() -> None:
    found = [InitialSAEs(activations(*layer), N, K).census(parse_arm("raw"), 0) for layer in LAYERS]
    assert max(census.dead_relu for census in found) > N / 10
    assert max(census.dead_topk for census in found) > N / 10
    assert min(census.dead for census in found) < N / 4
