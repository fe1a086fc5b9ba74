from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from bench.records.schema import Statistics
from bench.statistics.layer import LayerStatistics
from tests.bench import reference
from zoo.errors import BadActivations


def collected(x: torch.Tensor, batch: int = 100, **options: int) -> LayerStatistics:
    statistics = LayerStatistics(x.shape[1], **options)
    for part in x.split(batch):
        statistics.update(part)
    return statistics


def measured(x: torch.Tensor) -> Statistics:
    statistics = LayerStatistics(5)
    statistics.update(x)
    return statistics.result()


@pytest.fixture
def x() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3000, 40, generator=generator) * torch.linspace(0.1, 2, 40) + 0.3
    x[:, 7] += 12
    x[:, 30] -= 5
    x[::500] *= 200
    return x


def test_everything_equals_the_plain_formulas(x):
    stats = collected(x, sample_tokens=5000).result()
    raw, ln, rms = (reference.transformed(x.numpy(), t) for t in ("raw", "layernorm", "rms"))
    kurtosis = reference.kurtosis(ln)
    median = reference.geometric_median(raw)
    sigma = np.linalg.norm(raw.std(axis=0))
    expected = {
        "gamma": reference.gamma(ln),
        "gamma_raw": reference.gamma(raw),
        "gamma_rms": reference.gamma(rms),
        "effective_rank": reference.effective_rank(ln),
        "kurtosis_mean": kurtosis.mean(),
        "kurtosis_max": kurtosis.max(),
        "mean_norm": np.linalg.norm(raw.mean(axis=0)),
        "sigma_norm": sigma,
        "median_gap": np.linalg.norm(median - raw.mean(axis=0)) / sigma,
    }
    for name, value in expected.items():
        assert getattr(stats, name) == pytest.approx(value, rel=1e-9), name
    assert (stats.tokens, stats.width, stats.median_tokens) == (3000, 40, 3000)
    assert stats.median_residual < 1e-6


def test_outlier_dimensions_are_named(x):
    stats = collected(x, outliers=3).result()
    ln = reference.transformed(x.numpy(), "layernorm")
    first, second, _ = stats.outlier_dims
    assert (first.index, second.index) == (7, 30)
    assert first.mean == pytest.approx(ln[:, 7].mean(), rel=1e-9)
    assert first.spread == pytest.approx(ln[:, 7].std(), rel=1e-9)
    assert first.share == pytest.approx(
        ln[:, 7].mean() ** 2 / (ln.mean(axis=0) ** 2).sum(), rel=1e-9
    )
    assert second.mean < 0 < second.share < first.share < 1


def test_batching_changes_nothing(x):
    assert collected(x, 1).result() == collected(x, 3000).result()


def test_median_sample_is_bounded(x):
    stats = collected(x, sample_tokens=500).result()
    assert stats.median_tokens == 500
    assert stats.tokens == 3000


def test_plain_json(x):
    stats = collected(x).result()
    again = json.loads(json.dumps(stats.model_dump()))
    assert again["gamma"] == stats.gamma
    assert again["outlier_dims"][0] == {
        "index": 7,
        "mean": stats.outlier_dims[0].mean,
        "spread": stats.outlier_dims[0].spread,
        "share": stats.outlier_dims[0].share,
    }


def test_a_few_huge_tokens_hide_the_mean_from_the_raw_gamma_only(x):
    stats = collected(x).result()
    assert stats.gamma_raw < 0.5 * stats.gamma_rms


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.ones(40, 5), "constant"),
        (torch.randn(1, 5), "constant"),
        (torch.zeros(40, 5), "constant"),
        (torch.randn(0, 5), "no tokens"),
        (torch.tensor([[1.0, 2.0, 3.0, 4.0, torch.nan]]), "1 non-finite value in 1 of 1 tokens"),
        (torch.zeros(3, 3), r"shape \(3, 3\), not \[tokens, 5\]"),
    ],
)
def test_what_cannot_be_measured(x, message):
    with pytest.raises(BadActivations, match=message):
        measured(x)
