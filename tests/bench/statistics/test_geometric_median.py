from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.statistics.geometric_median import geometric_median
from bench.statistics.reservoir import Reservoir
from tests.bench import reference
from zoo.errors import BadActivations


@pytest.mark.parametrize(
    ("tokens", "width", "scale"), [(3, 2, 1.0), (900, 40, 1.0), (5000, 300, 9)]
)
def test_equals_plain_weiszfeld(tokens, width, scale):
    generator = torch.Generator().manual_seed(tokens)
    x = scale * (torch.randn(tokens, width, generator=generator) + 5)
    x[: tokens // 10] *= 100
    expected = reference.geometric_median(x.double().numpy())
    median = geometric_median(x)
    np.testing.assert_allclose(median.point, expected, rtol=1e-9)
    assert 1 <= median.iterations <= 200


def test_residual_tells_how_far_from_the_optimum():
    x = torch.randn(2000, 20, generator=torch.Generator().manual_seed(2)) ** 3
    rough = geometric_median(x, iterations=1)
    fine = geometric_median(x, tolerance=1e-12)
    assert fine.residual < 1e-9 < rough.residual
    unit = torch.nn.functional.normalize(x.double() - rough.point, dim=1)
    assert rough.residual == pytest.approx(float(unit.mean(0).norm()), rel=1e-9)


def test_a_few_huge_tokens_do_not_move_it():
    x = torch.randn(1000, 16, generator=torch.Generator().manual_seed(3))
    x[:10] += 1e5
    assert float(geometric_median(x).point.norm()) < 1
    assert float(x.mean(0).norm()) > 1e3


def test_the_middle_of_a_symmetric_set():
    half = torch.randn(500, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    median = geometric_median(torch.cat([half + 7, 7 - half]))
    torch.testing.assert_close(median.point, torch.full((8,), 7.0, dtype=torch.float64))


def test_identical_tokens_are_their_own_median():
    median = geometric_median(torch.full((5, 3), 2.5))
    assert median.point.tolist() == [2.5, 2.5, 2.5]
    assert median.residual == 0


def test_half_precision_tokens():
    x = torch.randn(400, 8, generator=torch.Generator().manual_seed(5)).bfloat16()
    torch.testing.assert_close(geometric_median(x).point, geometric_median(x.double()).point)


def test_no_tokens_have_no_median():
    with pytest.raises(BadActivations, match=r"at least one token, not shape \(0, 4\)"):
        geometric_median(torch.zeros(0, 4))


def test_a_short_stream_is_kept_whole_and_in_order():
    x = torch.arange(30.0).view(10, 3)
    reservoir = Reservoir(3, capacity=10)
    for batch in x.split(4):
        reservoir.update(batch)
    assert torch.equal(reservoir.rows(), x)


def test_batching_does_not_change_the_sample():
    x = torch.arange(5000.0).view(-1, 1)
    samples = []
    for size in (1, 64, 999, 5000):
        reservoir = Reservoir(1, capacity=100, seed=3)
        for batch in x.split(size):
            reservoir.update(batch)
        samples.append(reservoir.rows())
    assert len(samples[0]) == 100
    assert all(torch.equal(samples[0], other) for other in samples[1:])
    assert torch.equal(samples[0], samples[0].sort(0).values)


def test_the_sample_is_uniform():
    # 200 seeds, 20 of 400 tokens each: every tenth of the stream expects 400 hits, sd below 20.
    x = torch.arange(400.0).view(-1, 1)
    hits = torch.zeros(10)
    seen = set()
    for seed in range(200):
        reservoir = Reservoir(1, capacity=20, seed=seed)
        for batch in x.split(37):
            reservoir.update(batch)
        kept = reservoir.rows().flatten()
        assert len(set(kept.tolist())) == 20
        seen.add(tuple(kept.tolist()))
        hits += torch.histc(kept, bins=10, min=0, max=400)
    assert len(seen) == 200
    assert (hits - 400).abs().max() < 100


def test_an_empty_reservoir_has_no_sample():
    with pytest.raises(BadActivations, match="no tokens"):
        Reservoir(3, capacity=10).rows()
    with pytest.raises(ValueError, match="capacity"):
        Reservoir(3, capacity=0)
