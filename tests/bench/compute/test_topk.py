from __future__ import annotations

import pytest
import torch

from bench.compute.topk import (
    exact_topk,
    exact_topk_of_each,
    grouped_pays,
    kth_largest,
    sorted_group,
)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("n", "k"),
    [(7, 3), (64, 64), (500, 8), (1000, 30), (4096, 1), (4096, 64), (8192, 64), (8192, 200)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("rows", [0, 1, 33])
def test_the_same_values_as_torch(n, k, dtype, rows, two_threads):
    pre = torch.randn(rows, n, generator=torch.Generator().manual_seed(n + k)).to(dtype)
    values, indices = exact_topk(pre, k)
    expected = pre.topk(k, dim=1).values
    assert torch.equal(values.sort(dim=1, descending=True).values, expected)
    assert torch.equal(pre.gather(1, indices), values)
    assert all(len(set(row.tolist())) == k for row in indices)
    assert torch.equal(kth_largest(pre, k), expected[:, -1])


def test_all_paths_are_tested(two_threads):
    groups = {
        (7, 3): None,
        (64, 64): 1,
        (500, 8): 1,
        (1000, 30): 2,
        (4096, 1): None,
        (4096, 64): 8,
        (8192, 64): 16,
        (8192, 200): None,
    }
    for (n, k), group in groups.items():
        assert sorted_group(torch.zeros(1, n), k) == group, (n, k)
        assert sorted_group(torch.zeros(1, n).double(), k) is None
    assert grouped_pays(4096, 1)
    assert grouped_pays(8192, 200)
    assert not grouped_pays(500, 8)
    assert not grouped_pays(4100, 8)
    assert not grouped_pays(4096, 200)


def test_many_threads_leave_the_way_that_uses_one(two_threads):
    torch.set_num_threads(3)
    assert sorted_group(torch.zeros(1, 8192), 64) is None


@pytest.mark.parametrize(("n", "k"), [(96, 16), (1000, 30), (8192, 64)])
def test_with_a_few_ties(n, k, two_threads):
    # About half of the rows have equal values at the k-th place, inside a group and across groups.
    generator = torch.Generator().manual_seed(n)
    pre = torch.randn(64, n, generator=generator)
    order = pre.argsort(dim=1, descending=True)
    rows = torch.arange(64)
    for place in (k - 2, k - 1, k, k + 3):
        kth = pre[rows, order[:, k - 1]]
        chosen = rows[torch.rand(64, generator=generator) < 0.3]
        pre[chosen, order[chosen, place]] = kth[chosen]
    neighbour = order[:8, k - 1] ^ 1
    pre[rows[:8], neighbour] = pre[rows[:8], order[:8, k - 1]]
    values, indices = exact_topk(pre, k)
    expected = pre.topk(k, dim=1).values
    ties = (pre == expected[:, -1:]).sum(1) > (expected == expected[:, -1:]).sum(1)
    assert ties.any()
    assert not ties.all()
    assert torch.equal(values.sort(dim=1, descending=True).values, expected)
    assert torch.equal(pre.gather(1, indices), values)
    assert all(len(set(row.tolist())) == k for row in indices)
    # The way that was tested is the sorted one: its columns come in order.
    assert torch.equal(indices, indices.sort(1).values)


@pytest.mark.parametrize("n", [96, 8192])
def test_nan_comes_out(n, two_threads):
    pre = torch.randn(6, n, generator=torch.Generator().manual_seed(2))
    pre[1, 3] = torch.nan
    pre[4, :] = torch.nan
    values, indices = exact_topk(pre, 48)
    assert values.isnan().sum(1).tolist() == [0, 1, 0, 0, 48, 0]
    assert all(len(set(row.tolist())) == 48 for row in indices)


@pytest.mark.parametrize("n", [96, 8192])
def test_with_ties_everywhere(n):
    generator = torch.Generator().manual_seed(0)
    pre = torch.randint(-3, 3, (20, n), generator=generator).float()
    pre[0] = 0
    pre[1] = -torch.inf
    values, indices = exact_topk(pre, 40)
    assert torch.equal(values.sort(dim=1, descending=True).values, pre.topk(40, dim=1).values)
    assert all(len(set(row.tolist())) == 40 for row in indices)
    again = exact_topk(pre.clone(), 40)
    assert torch.equal(again[0], values)
    assert torch.equal(again[1], indices)


def test_the_largest_may_all_sit_in_one_group():
    # Columns with one remainder modulo n / 32 share a coarse group.
    pre = torch.randn(4, 8192, generator=torch.Generator().manual_seed(1))
    pre[:, 5::256] += 100
    values, indices = exact_topk(pre, 64)
    assert torch.equal(values.sort(dim=1, descending=True).values, pre.topk(64, dim=1).values)
    assert set(range(5, 8192, 256)) <= set(indices[0].tolist())


def test_the_input_is_left_as_it_was():
    pre = torch.randn(8, 8192)
    before = pre.clone()
    exact_topk(pre, 64)
    assert torch.equal(pre, before)


@pytest.mark.parametrize("n", [40, 512])
def test_a_bias_and_a_mask_come_before_the_selection(n):
    generator = torch.Generator().manual_seed(n)
    pre, bias = torch.randn(6, n, generator=generator), torch.randn(3, n, generator=generator)
    mask = torch.rand(n, generator=generator) < 0.5
    whole = torch.where(mask, pre + bias.repeat_interleave(2, 0), -torch.inf)
    values, columns = exact_topk(pre.clone(), 5, bias=bias, mask=mask)
    assert torch.equal(values.sort(dim=1, descending=True).values, whole.topk(5, dim=1).values)
    assert torch.equal(whole.gather(1, columns), values)
    again, _ = exact_topk(pre.clone(), 5, mask=mask)
    assert torch.equal(again.amax(1), torch.where(mask, pre, -torch.inf).amax(1))


@pytest.mark.parametrize("odd", ["none", "nan", "ties"])
@pytest.mark.parametrize("n", [40, 256])
def test_those_of_several_arrays_are_each_ones_own(n, odd, two_threads):
    pre = torch.randn(3, 20, n, generator=torch.Generator().manual_seed(n))
    # Another way is taken for the second, which orders its columns otherwise.
    if odd != "none":
        pre[1, 4] = torch.nan if odd == "nan" else 0.0
    values, columns = exact_topk_of_each(pre, 8)
    for i, own in enumerate(pre):
        expected = exact_topk(own, 8)
        assert torch.equal(values[i].nan_to_num(), expected[0].nan_to_num())
        assert torch.equal(columns[i], expected[1])


@pytest.mark.parametrize(("n", "k"), [(256, 8), (512, 8), (512, 16)])
def test_columns_ascend_and_the_first_of_equals_are_taken(n, k, two_threads):
    """However few maxima of a row are sorted in place of it."""
    generator = torch.Generator().manual_seed(n + k)
    pre = torch.randn(50, n, generator=generator)
    pre[0, : k + 3] = 9.0
    pre[1, : n // 2] = pre[1, 0]
    pre[1, n // 2 : n // 2 + k - 1] = 9.0
    pre[2, :: n // 4] = -torch.inf
    values, columns = exact_topk(pre[[0, *range(2, 50)]], k)
    assert columns[0].tolist() == list(range(k))
    assert (columns.diff(dim=1) > 0).all()
    assert torch.equal(values.sort(1).values, pre[[0, *range(2, 50)]].topk(k).values.flip(1))
    assert torch.equal(kth_largest(pre, k), pre.topk(k).values[:, -1])
