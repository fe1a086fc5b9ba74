from __future__ import annotations

import itertools

import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor
from torch.nn.functional import normalize

from bench.death import census as module
from bench.death import products as products_module
from bench.death.census import Census, census
from bench.death.products import by_the_fastest
from bench.death.theory import gaussian_dead, gaussian_relu, predicted_dead, predicted_relu
from tests.bench import reference
from zoo.errors import BadActivations


def equals(found: Census, expected: tuple[Tensor, ...] | tuple[list[bool], ...]) -> bool:
    never, unselected, counts = expected
    return (
        torch.equal(found.never_positive, torch.as_tensor(never))
        and torch.equal(found.never_selected, torch.as_tensor(unselected))
        and (found.counts is None or torch.equal(found.counts, torch.as_tensor(counts)))
    )


def drawn(seed: int, tokens: int, d: int, n: int, severity: float = 1.0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    mu = severity * torch.randn(d, generator=generator)
    x = torch.randn(tokens, d, generator=generator) + mu
    return x, normalize(torch.randn(n, d, generator=generator), dim=1)


CASES = list(itertools.product(range(6), ("real", "integer"), (False, True), (False, True)))


@pytest.mark.parametrize(("seed", "kind", "biased", "counts"), CASES)
def test_equals_the_naive_double_loop(seed, kind, biased, counts):
    generator = torch.Generator().manual_seed(seed)
    tokens, d, n = (int(torch.randint(2, top, (1,), generator=generator)) for top in (50, 8, 30))
    k = int(torch.randint(1, n + 1, (1,), generator=generator))
    x, W = drawn(seed, tokens, d, n, severity=2.0)
    bias = torch.randn(n, generator=generator) if biased else None
    if kind == "integer":  # ties at every rank, and exact zeros
        x, W = x.round(), (2 * W).round()
        x[:: max(1, seed)] = 0
        bias = None if bias is None else bias.round()
    found = census(x, W, k=k, b_enc=bias, counts=counts, chunk=1 + 7 * seed)
    assert equals(found, reference.census(x, W, bias, k))
    assert (found.counts is not None) == counts


@pytest.mark.parametrize("integer", [False, True])
@pytest.mark.parametrize("severity", [0.0, 0.4, 1.5, 10.0])
def test_equals_the_definition_on_many_tokens(severity, integer):
    x, W = drawn(7, 6000, 32, 512, severity)
    if integer:
        x, W = (2 * x).round(), (6 * W).round()
    expected = reference.census_at_once(x, W, None, 8)
    assert equals(census(x, W, k=8, chunk=512), expected)
    assert equals(census(x, W, k=8, counts=True), expected)


def test_following_only_unseen_features_is_exact(monkeypatch):
    monkeypatch.setattr(module, "_TOKENS_BEFORE_FOLLOWING", 256)
    followed, dead = [], []
    plain = module._Counter.follow
    monkeypatch.setattr(
        module._Counter, "follow", lambda counter, x: (followed.append(len(x)), plain(counter, x))
    )
    for seed, integer in itertools.product(range(3), (False, True)):
        x, W = drawn(seed, 8000, 24, 512, severity=0.8)
        if integer:
            x, W = (2 * x).round(), (6 * W).round()
        found = census(x, W, k=8, chunk=128)
        assert equals(found, reference.census_at_once(x, W, None, 8))
        dead.append(found.dead)
    assert followed
    assert 0 < min(dead) <= max(dead) < 256


def test_pairs_that_float32_cannot_decide():
    # Features that differ by less than float32 resolves, so that every token is undecided.
    x, W = drawn(3, 400, 16, 8)
    W = W.repeat_interleave(8, dim=0) * (1 + 2**-23 * torch.arange(64)[:, None])
    x = x + 1000 * W[0]
    expected = reference.census_at_once(x, W, None, 5)
    assert equals(census(x, W, k=5, counts=True), expected)
    assert equals(census(x, W, k=5), expected)
    assert int(expected[2].sum()) == 5 * 400


def test_all_tied_features_fire_and_zeros_do_not():
    W = torch.tensor([[1.0], [1.0], [1.0], [0.0], [-1.0]])
    found = census(torch.tensor([[1.0], [2.0]]), W, k=2, counts=True)
    assert found.counts.tolist() == [2, 2, 2, 0, 0]
    assert found.never_positive.tolist() == [False, False, False, True, True]
    assert not found.never_selected.any()
    # With fewer than k values > 0, picks of value 0 fill top-k up; they are not firings.
    few = census(torch.tensor([[1.0]]), W, k=5, counts=True)
    assert few.counts.tolist() == [1, 1, 1, 0, 0]
    zeros = census(torch.zeros(3, 1), W, k=2, counts=True)
    assert zeros.dead_relu == 5
    assert zeros.counts.sum() == 0


def test_with_biases_of_any_size():
    x, W = drawn(1, 3000, 48, 256, severity=3.0)
    b_enc = 0.1 * torch.randn(256, generator=torch.Generator().manual_seed(1))
    dead = []
    for share in (0.0, 0.5, 0.875, 1.0):
        bias = b_enc.double() - W.double() @ (share * x.mean(0)).double()
        expected = reference.census_at_once(x, W, bias, 16)
        for counts in (False, True):
            for chunk in (None, 77):
                assert equals(census(x, W, k=16, b_enc=bias, counts=counts, chunk=chunk), expected)
        dead.append(int(expected[0].sum() + expected[1].sum()))
    assert dead[0] > dead[3]


def test_the_bias_of_a_center_is_centering():
    x, W = drawn(2, 2000, 32, 128, severity=4.0)
    center = x.mean(0)
    shifted = census(x, W, k=8, b_enc=-(W.double() @ center.double()), counts=True)
    centered = census(x.double() - center.double(), W, k=8, counts=True)
    assert torch.equal(shifted.counts, centered.counts)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes(dtype):
    x, W = drawn(4, 500, 16, 64)
    x, W = x.to(dtype), W.to(dtype)
    assert equals(census(x, W, k=4, counts=True), reference.census_at_once(x, W, None, 4))


def test_autocast_and_gradients_do_not_reach_in():
    x, W = drawn(5, 600, 16, 64)
    expected = reference.census_at_once(x, W, None, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = census(x, W.requires_grad_(), k=4, counts=True)
    assert equals(found, expected)


@pytest.mark.parametrize("way", ["float32", "parts"])
@pytest.mark.parametrize("integer", [False, True])
@pytest.mark.parametrize("severity", [0.0, 1.5, 40.0])
def test_every_way_to_the_products_gives_the_same(monkeypatch, way, integer, severity):
    """On a card the fastest is taken; here it is told."""
    monkeypatch.setattr(module, "_TOKENS_BEFORE_FOLLOWING", 256)
    products, used = module.Products._product, set()
    monkeypatch.setattr(
        module.Products, "_product", lambda c, *of: (used.add(c.way), products(c, *of))[1]
    )
    x, W = drawn(11, 3000, 48, 256, severity)
    if integer:
        x, W = (2 * x).round(), (6 * W).round()
    bias = -(W.double() @ (0.9 * x.mean(0)).double())
    for b_enc in (None, bias):
        expected = reference.census_at_once(x, W, b_enc, 8)
        assert equals(census(x, W, k=8, b_enc=b_enc, chunk=300, way=way), expected)
        assert equals(census(x, W, k=8, b_enc=b_enc, counts=True, way=way), expected)
    assert used == {way}


def test_the_fastest_way_is_tried_once_for_each_size(monkeypatch):
    x, W = drawn(12, 500, 16, 64)
    seconds, taken = {"float32": 3.0, "encoder": 2.0, "parts": 1.0}, []
    monkeypatch.setattr(products_module, "ways", lambda x, W: list(seconds))

    def timed(ways, device):
        for trial in ways.values():
            trial()
        return min(seconds, key=seconds.get)

    def run(tokens, way):
        taken.append((len(tokens), way))
        return way

    monkeypatch.setattr(products_module, "fastest", timed)
    monkeypatch.setattr(products_module, "_fastest", {})
    monkeypatch.setattr(products_module, "_TRIED_TOKENS", 200)
    for _ in range(2):
        assert by_the_fastest(run, x, W, "by rank", 4) == "parts"
    # Once to see that they fit in memory, once timed, and then the censuses.
    tried = [(200, way) for way in ("encoder", "parts", *seconds)]
    assert taken == [*tried, (500, "parts"), (500, "parts")]
    by_the_fastest(run, x, W, "by rank", 5)
    assert taken[7:] == [*tried, (500, "parts")]


def test_a_way_that_does_not_fit_in_memory_is_not_taken(monkeypatch):
    x, W = drawn(12, 50, 4, 8)
    monkeypatch.setattr(products_module, "ways", lambda x, W: ["float32", "parts"])
    monkeypatch.setattr(products_module, "fastest", lambda ways, device: list(ways)[-1])
    monkeypatch.setattr(products_module, "_fastest", {})
    monkeypatch.setattr(products_module, "_TRIED_TOKENS", 20)
    fits, taken = 0, []

    def run(tokens, way):
        taken.append((len(tokens), way))
        if way == "parts" and len(tokens) > fits:
            raise torch.OutOfMemoryError
        return way

    assert by_the_fastest(run, x, W, "by rank", 4) == "float32"
    assert taken == [(20, "parts"), (50, "float32")]
    # It fits when it is tried, and no more when it is wanted; then it is not tried again.
    fits, taken = 20, []
    assert by_the_fastest(run, x, W, "by rank", 5) == "float32"
    assert by_the_fastest(run, x, W, "by rank", 5) == "float32"
    assert taken == [(20, "parts"), (50, "parts"), (50, "float32"), (50, "float32")]

    def broken(tokens, way):
        raise RuntimeError("no such kernel")

    with pytest.raises(RuntimeError, match="no such kernel"):
        by_the_fastest(broken, x, W, "by rank", 6)


@pytest.mark.parametrize("way", ["float32", "parts"])
@pytest.mark.parametrize("size", [1e-30, 1e-18, 1.0, 1e18])
def test_tokens_of_any_size_are_counted_right(size, way):
    x, W = drawn(14, 400, 16, 64, severity=1.5)
    x *= size
    expected = reference.census_at_once(x, W, None, 4)
    assert equals(census(x, W, k=4, counts=True, way=way), expected)


def test_a_way_that_cannot_be_is_refused():
    x, W = drawn(15, 10, 4, 8)
    with pytest.raises(ValueError, match="by parts are of float32"):
        census(x.double(), W.double(), k=2, way="parts")


def test_a_cpu_and_doubles_have_one_way():
    x, W = drawn(13, 10, 4, 8)
    assert products_module.ways(x, W) == ["float32"]


def test_ends_early_once_everything_is_alive(monkeypatch):
    x, W = drawn(6, 20_000, 32, 256, severity=0.0)
    reads = []
    plain = module.Products.tokens
    monkeypatch.setattr(module.Products, "tokens", lambda c, *a: (reads.append(a), plain(c, *a))[1])
    found = census(x, W, k=8, chunk=500)
    assert found.dead == 0
    assert found.tokens == 20_000
    assert len(reads) < 10
    reads.clear()
    census(x, W, k=8, chunk=500, counts=True)
    assert len(reads) == 40


def test_rates_and_always_on():
    x, W = drawn(8, 1000, 32, 200, severity=5.0)
    found = census(x, W, k=16, counts=True)
    assert found.alive + found.dead_relu + found.dead_topk == 200
    assert found.dead_rate == found.dead / 200
    assert found.dead_relu + found.dead_topk == round(found.dead_rate * found.n)
    assert int(found.dead_mask.sum()) == found.dead
    assert found.always_on == int((found.counts > 990).sum()) > 0
    assert census(x, W, k=16).always_on is None


def test_non_finite_activations_and_weights():
    x, W = drawn(9, 300, 8, 32)
    x[250, 3] = torch.nan
    with pytest.raises(BadActivations, match="token 250, dimension 3"):
        census(x, W, k=4, counts=True, chunk=100)
    W[1, 1] = torch.inf
    with pytest.raises(ValueError, match="NaN or inf"):
        census(x, W, k=4)


@pytest.mark.parametrize(
    ("x", "k", "bias", "message"),
    [
        (torch.zeros(5, 3), 2, None, "x has shape"),
        (torch.zeros(5, 4), 0, None, "k must be between 1 and n = 8, not 0"),
        (torch.zeros(5, 4), 9, None, "k must be between"),
        (torch.zeros(5, 4), 2, torch.zeros(4), "a bias has shape"),
    ],
)
def test_what_does_not_fit(x, k, bias, message):
    with pytest.raises(ValueError, match=message):
        census(x, torch.ones(8, 4), k=k, b_enc=bias)


GAMMAS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 50.0)


@pytest.mark.parametrize("seed", range(10))
def test_gaussian_activations_die_as_the_closed_forms_say(seed):
    """Full-rank Gaussians. Our forms and the ReLU one hold at every gamma; the closed total one
    takes the threshold of the means alone, which needs gamma >> 1."""
    tokens, d, n, k = 4000, 256, 1024, 16
    generator = torch.Generator().manual_seed(seed)
    W = normalize(torch.randn(n, d, generator=generator), dim=1)
    direction = normalize(torch.randn(d, generator=generator), dim=0)
    noise = torch.randn(tokens, d, generator=generator)
    total = []
    for gamma in GAMMAS:
        found = census(noise + gamma * d**0.5 * direction, W, k=k)
        relu = binomtest(found.dead_relu, n).proportion_ci(0.999, "exact")
        assert relu.low <= predicted_relu(gamma, tokens) <= relu.high
        assert relu.low <= gaussian_relu(gamma, tokens) <= relu.high
        # 80 comparisons with 10 seeds: Bonferroni's level for 1 % over all of them.
        dead = binomtest(found.dead, n).proportion_ci(0.9999, "exact")
        assert dead.low <= gaussian_dead(gamma, tokens, k, n) <= dead.high
        if gamma >= 8:
            assert dead.low <= predicted_dead(gamma, tokens, k, n) <= dead.high
        total.append(found.dead)
    assert total == sorted(total)
