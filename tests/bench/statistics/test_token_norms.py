"""Massive tokens against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.statistics.layer import LayerStatistics
from bench.statistics.token_norms import ordinary_tokens, stand_in, token_norms


def tokens(count: int = 1001, width: int = 24) -> torch.Tensor:
    x = torch.randn(count, width, generator=torch.Generator().manual_seed(1))
    x[:, 3] *= 8
    x[::100] *= 40
    return x


def test_statistics_equal_numpy_however_the_tokens_arrive():
    x = tokens()
    statistics = LayerStatistics(24)
    for batch in x.split(77):
        statistics.update(batch)
    found = statistics.result()
    values = x.double().numpy()
    norms = np.linalg.norm(values, axis=1)
    assert found.median_norm == pytest.approx(np.median(norms), rel=1e-12)
    assert found.norm_ratio == pytest.approx(norms.max() / np.median(norms), rel=1e-12)
    assert found.massive_share == pytest.approx((norms > 10 * np.median(norms)).mean())
    assert 5 / 1001 < found.massive_share <= 11 / 1001
    energy = np.sort((values**2).sum(0))[::-1]
    assert found.energy_share == pytest.approx(energy[:10].sum() / energy.sum(), rel=1e-9)


def test_norms_beyond_float16_are_finite():
    x = torch.full((3, 64), 60_000.0, dtype=torch.float16)
    assert token_norms(x).tolist() == pytest.approx([480_000.0] * 3, rel=1e-3)


@pytest.mark.parametrize("tokens", [0, 1, 4096, 4097, 10_000])
def test_norms_of_many_tokens_are_each_tokens_own(tokens: int) -> None:
    x = torch.randn(tokens, 33)
    found = token_norms(x)
    assert torch.equal(found, torch.linalg.vector_norm(x, dim=1, dtype=torch.float64))
    assert np.allclose(found, np.sqrt((x.double().numpy() ** 2).sum(1)), rtol=1e-14, atol=0)


def test_ordinary_tokens_are_those_of_at_most_ten_times_the_median():
    x = torch.ones(9, 4)
    x[2] *= 10.0
    x[5] *= 10.1
    assert ordinary_tokens(x).logical_not().nonzero().flatten().tolist() == [5]
    assert int(ordinary_tokens(x, times=5).sum()) == 7


def test_an_ordinary_token_stands_in_for_each_massive_one():
    x = torch.arange(1.0, 7.0)[:, None].repeat(1, 4)
    x[[0, 2, 3]] *= 1000
    kept, masked = stand_in(x, most=100.0)
    assert kept[:, 0].tolist() == [6.0, 2.0, 2.0, 2.0, 5.0, 6.0]
    assert int(masked) == 3
    kept, masked = stand_in(x, most=0.5)
    assert torch.equal(kept, x)
    assert int(masked) == 0
    kept, masked = stand_in(x, most=1e9)
    assert torch.equal(kept, x)
    assert int(masked) == 0
