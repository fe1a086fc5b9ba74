from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.statistics.moments import Moments
from bench.statistics.spectrum import effective_rank, eigenvalues, whitening
from tests.bench import reference
from zoo.errors import BadActivations


def mixed(tokens: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator) * torch.logspace(0, -2, width)
    return torch.randn(tokens, width, generator=generator) @ mixing.T + 3


@pytest.mark.parametrize("width", [2, 17, 90])
@pytest.mark.parametrize("transform", ["raw", "layernorm"])
def test_effective_rank_equals_the_svd_of_the_data(width, transform):
    x = mixed(2000, width, seed=width)
    moments = Moments(width, covariance=True, transform=transform)
    moments.update(x)
    y = reference.transformed(x.numpy(), transform)
    rank = effective_rank(eigenvalues(moments.covariance))
    assert rank == pytest.approx(reference.effective_rank(y), rel=1e-9)


def test_effective_rank_of_known_spectra():
    assert effective_rank(torch.ones(12)) == pytest.approx(12)
    assert effective_rank(torch.tensor([5.0, 0.0, 0.0])) == pytest.approx(1)
    half = torch.tensor([0.5, 0.25, 0.25])
    assert effective_rank(half) == pytest.approx(2**1.5)
    assert effective_rank(7 * half) == effective_rank(half)


def test_eigenvalues_are_sorted_and_not_negative():
    x = torch.randn(50, 3, dtype=torch.float64) @ torch.randn(3, 8, dtype=torch.float64)
    values = eigenvalues(x.T @ x)
    expected = np.linalg.eigvalsh((x.T @ x).numpy())[::-1]
    np.testing.assert_allclose(values[:3], expected[:3], rtol=1e-9)
    assert (values[:-1] >= values[1:]).all()
    assert (values >= 0).all()


def test_whitening_makes_the_covariance_one_and_can_be_undone():
    x = mixed(4000, 30, seed=1).double()
    moments = Moments(30, covariance=True)
    moments.update(x)
    matrix, inverse = whitening(moments.mean, moments.covariance)
    z = (x - moments.mean) @ matrix.T
    identity = torch.eye(30, dtype=torch.float64)
    torch.testing.assert_close(z.T @ z / len(z), identity, rtol=0, atol=1e-8)
    torch.testing.assert_close(z @ inverse.T + moments.mean, x)
    torch.testing.assert_close(matrix @ inverse, identity, rtol=0, atol=1e-9)


def test_whitening_does_not_blow_up_directions_without_variance():
    x = torch.randn(500, 3, dtype=torch.float64) @ torch.randn(3, 6, dtype=torch.float64)
    covariance = x.T @ x / len(x)
    matrix, inverse = whitening(x.mean(0), covariance, floor=1e-8)
    largest = float(torch.linalg.eigvalsh(covariance)[-1])
    rows = torch.linalg.vector_norm(matrix, dim=1)
    assert rows[3:] == pytest.approx((1e-8 * largest) ** -0.5, rel=1e-6)
    torch.testing.assert_close(matrix @ inverse, torch.eye(6, dtype=torch.float64))


def test_whitening_floors_at_the_resolution_of_the_mean():
    variance = torch.tensor([1.0, 1e-9], dtype=torch.float64)
    far = torch.tensor([1e4, 0.0], dtype=torch.float64)
    near, distant = (whitening(mean, torch.diag(variance)).matrix for mean in (far * 0, far))
    assert near[1].norm() == pytest.approx(1e-9**-0.5)
    assert distant[1].norm() == pytest.approx(1 / (1e4 * 2**-23))


def test_signs_and_order_are_fixed():
    generator = torch.Generator().manual_seed(6)
    a = torch.randn(12, 12, generator=generator, dtype=torch.float64)
    matrix = whitening(torch.zeros(12), a @ a.T).matrix
    largest = matrix.gather(1, matrix.abs().argmax(1, keepdim=True))
    assert (largest > 0).all()
    norms = torch.linalg.vector_norm(matrix, dim=1)
    assert (norms[:-1] <= norms[1:]).all()


def test_no_variance_has_no_spectrum():
    with pytest.raises(BadActivations, match="covariance is zero"):
        effective_rank(torch.zeros(4))
    with pytest.raises(BadActivations, match="covariance is zero"):
        whitening(torch.zeros(4), torch.zeros(4, 4))
