"""The census of families without a k, against plain float64."""

from __future__ import annotations

import secrets

import pytest
import torch
from torch import Tensor

from bench.death.threshold_census import threshold_census
from bench.sae.families import FAMILIES, make_family
from bench.sae.model import SAE
from zoo.errors import BadActivations

N, WIDTH = 96, 10


def case(tokens: int = 900) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tokens around a mean, dictionary, bias, thresholds; float32, from a fresh seed."""
    seed = secrets.randbelow(10**6)
    print(f"seed {seed}")
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    mean = random(WIDTH)
    x = random(tokens, WIDTH) + 12.0 * mean / mean.norm()
    return x, random(N, WIDTH), 0.3 * random(N), 3 * random(N).abs()


def reference(x: Tensor, W: Tensor, bias: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor]:
    z = x.double() @ W.double().T + bias.double()
    return (z > 0).any(0), ((z > 0) & (z > thresholds.double())).sum(0)


@pytest.mark.parametrize("way", ["float32", "parts"])
@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_it_equals_float64(
    way: str, counts: bool, level: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "bench.death.threshold_census.by_the_fastest", lambda run, x, *of: run(x, way)
    )
    monkeypatch.setattr("bench.death.products._CPU_CHUNK_ELEMENTS", 100 * N)
    x, W, bias, thresholds = case()
    thresholds = level * thresholds
    found = threshold_census(x, W, thresholds, bias, counts)
    positive, firings = reference(x, W, bias, thresholds)
    assert torch.equal(found.never_positive, ~positive)
    assert torch.equal(found.never_selected, positive & (firings == 0))
    assert found.dead_relu > 0
    assert (found.dead_topk > 0) == (level > 0)
    if counts:
        assert found.counts is not None
        assert torch.equal(found.counts, firings)
        assert found.always_on == int((firings > 0.99 * len(x)).sum())
    else:
        assert found.counts is None


def test_a_value_equal_to_its_threshold_does_not_fire() -> None:
    """Exact products of small integers: equality is equality, whatever float32 does."""
    x = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
    W = torch.tensor([[1.0, 1.0], [0.0, 1.0], [-1.0, 0.0]])
    levels = torch.tensor([3.0, 1.5, 0.0])
    found = threshold_census(x, W, levels, None, counts=True)
    assert found.counts is not None
    assert found.counts.tolist() == [0, 1, 0]
    assert found.never_selected.tolist() == [True, False, False]
    assert found.never_positive.tolist() == [False, False, True]


def test_pairs_that_float32_cannot_tell_apart_are_decided_in_float64() -> None:
    x = torch.tensor([[1e4, 1.0, -1e4]])
    W = torch.tensor([[1.0, 1e-5, 1.0], [1.0, -1e-5, 1.0]])
    found = threshold_census(x, W, torch.zeros(2), None)
    assert found.never_positive.tolist() == [False, True]


def test_features_that_all_fire_soon_are_all_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.death.products._CPU_CHUNK_ELEMENTS", 100 * N)
    x, W, bias, _ = case()
    found = threshold_census(x - x.mean(0), W, torch.zeros(N), bias)
    assert found.alive == N


def test_non_finite_tokens_are_named() -> None:
    x, W, bias, thresholds = case()
    x[7, 3] = float("nan")
    with pytest.raises(BadActivations, match="token 7, dimension 3"):
        threshold_census(x, W, thresholds, bias)


@pytest.mark.parametrize("name", FAMILIES)
def test_each_familys_census_is_of_what_it_encodes(name: str) -> None:
    x = case()[0].double()
    sae = SAE.init(WIDTH, N, 8, seed=1, family=make_family(name), dtype=x.dtype)
    for tensor in sae.family_tensors.values():
        tensor.fill_(0.7)  # above 0: a threshold that is known
    found = sae.census(x, counts=True)
    assert found.counts is not None
    assert torch.equal(found.counts, sae.encode(x).firings(N))


def test_batchtopks_threshold_at_birth_is_what_the_sample_gives() -> None:
    x, *_ = case(tokens=1024)
    sae = SAE.init(WIDTH, N, 8, seed=1, family=make_family("batchtopk"))
    z = x @ sae.W_enc.T
    level = z.flatten().sort(descending=True).values[1024 * 8 - 1]
    found = sae.census(x, counts=True)
    positive, firings = reference(x, sae.W_enc, sae.b_enc, level.expand(N))
    assert found.counts is not None
    assert torch.equal(found.counts, firings)
    assert torch.equal(found.never_positive, ~positive)
    assert found.dead_topk > 0
