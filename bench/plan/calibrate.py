"""What this machine attains, measured in a few seconds: a product, streams of memory, a model's
block, rows picked by index, a top k, what a training step takes beside its arithmetic and saves
beside others, and plain Python. Nothing is kept."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, gelu, layer_norm, linear, softmax

from bench.compute.heap import keep_heap
from bench.compute.matmul import fast_matmul
from bench.compute.precision import Precision, product, product_precision
from bench.compute.topk import exact_topk
from bench.plan.forward import COMPOSED
from bench.plan.work import BEGINS
from bench.sae.bank import Bank
from bench.sae.cpu_bank import make_bank
from bench.sae.families.batchtopk import smallest_selected
from bench.sae.model import SAE
from bench.sae.recipe import Recipe
from bench.sae.trainer import Trainer

# Each is done until so many seconds have passed; the best counts, unless another is asked for.
_SECONDS = 0.4
_LEAST_ROUNDS, _MOST_ROUNDS = 3, 50

# Tokens, width and features of the product, as of a small SAE's step; larger on a device.
_PRODUCT = {"cpu": (512, 768, 4096), "cuda": (8192, 2048, 16384)}
_PAIRS_N, _PAIRS_K, _PAIRS_WIDTH, _PAIRS_TOKENS = 4096, 32, 384, 2048
_UNEVEN = (256, 2047, 48)
_BATCH = {"cpu": (256, 4096, 32), "cuda": (4096, 16384, 64)}
_STREAM = 1 << 24  # elements: 64 MiB, more than a cache holds
_FRESH = 1 << 21  # 8 MiB, as a batch's codes

# Windows, positions, width and heads of a model's block, as those of `bench.plan.forward`'s bytes.
_BLOCK_SHAPE = (32, 192, 96, 4)

# Of the small SAEs that step together, and how many they are.
_SMALL = Recipe(n=256, k=16, batch=256, steps=100, path="sparse")
_SMALL_WIDTH, _SMALL_NUMBER = 64, 8

# More than what a step begins cannot be saved; this much is, of SAEs that are hardly there.
_MOST_SAVED = 1.5

_PRECISIONS: tuple[Precision, ...] = ("float32", "tf32", "bf16")


@dataclass(frozen=True)
class MeasuredRates:
    """As in `bench.plan.devices.Device`."""

    device: str
    threads: int
    products: dict[str, float]
    memory: float
    between: float
    elementwise: float
    gathered: float
    searched: float
    row: float
    uneven: float
    ranked: float
    start: float
    together: float
    python: float
    capacity: int | None

    @property
    def on_cpu(self) -> bool:
        """Whether it is the processor's."""
        return self.device == "cpu"


@torch.no_grad()
def measure_rates(
    device: str = "auto",
    *,
    clock: Callable[[], float] = time.perf_counter,
    typical: Callable[[Sequence[float]], float] = min,
    seconds: float | None = None,
) -> MeasuredRates:
    """The rates of a device, `auto` being CUDA where there is one.

    clock: in seconds. typical: which of the times of several rounds counts. seconds: spent on each
    rate at least.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    on_cpu = device == "cpu"
    long_enough = _SECONDS if seconds is None else seconds

    def best(work: Callable[[], object]) -> float:
        work()
        _wait(device)
        rounds: list[float] = []
        begun = clock()
        while len(rounds) < _MOST_ROUNDS and (
            len(rounds) < _LEAST_ROUNDS or clock() - begun < long_enough
        ):
            start = clock()
            work()
            _wait(device)
            rounds.append(clock() - start)
        return typical(rounds)

    if on_cpu:
        keep_heap()
    with fast_matmul(device):
        element, row = _selection(device, best)
        products, elementwise = _products(device, best), _elementwise(device, best)
        start = _start(device, best)
        return MeasuredRates(
            device=device,
            threads=torch.get_num_threads() if on_cpu else 1,
            products=products,
            memory=_stream(device, best),
            between=_between(best, products["float32"]) if on_cpu else elementwise,
            elementwise=elementwise,
            gathered=_gather(device, best),
            searched=1 / element,
            row=row,
            uneven=_uneven(device, best, row) if on_cpu else 1 / element,
            ranked=_ranked(device, best),
            start=start,
            # On a device one graph is begun for all.
            together=min(_together(best), _MOST_SAVED * start) if on_cpu else start,
            python=best(_plain_python),
            capacity=None if on_cpu else int(0.9 * torch.cuda.mem_get_info(device)[1]),
        )


_Best = Callable[[Callable[[], object]], float]


def _randn(*shape: int, device: str) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)


def _products(device: str, best: _Best) -> dict[str, float]:
    tokens, width, n = _PRODUCT["cpu" if device == "cpu" else "cuda"]
    x, W = _randn(tokens, width, device=device), _randn(n, width, device=device)
    found: dict[str, float] = {}
    for precision in _PRECISIONS[: 1 if device == "cpu" else 3]:
        with product_precision(precision, device):
            found[precision] = 2 * tokens * width * n / best(lambda: product(x, W.T))
    return dict.fromkeys(_PRECISIONS, found["float32"]) | found


def _stream(device: str, best: _Best) -> float:
    source = _randn(_STREAM, device=device)
    target = torch.empty_like(source)
    return 8 * _STREAM / best(lambda: target.copy_(source))


def _elementwise(device: str, best: _Best) -> float:
    x = _randn(_FRESH, device=device)
    return 8 * _FRESH / best(lambda: gelu(x))


def _between(best: _Best, products: float) -> float:
    """Bytes a second between a block's products, where its attention and its activation are made
    of several operations each; `products` operations of them take a second."""
    windows, positions, width, heads = _BLOCK_SHAPE
    x = _randn(windows, positions, width, device="cpu")
    narrow, wide = _randn(width, width, device="cpu"), _randn(4 * width, width, device="cpu")

    def block() -> Tensor:
        y = layer_norm(x, (width,))
        q, k, v = (linear(y, narrow).unflatten(2, (heads, -1)).transpose(1, 2) for _ in range(3))
        q, k = (torch.cat((each, -each), -1)[..., : each.shape[-1]] * each for each in (q, k))
        mixed = softmax(q @ k.transpose(-1, -2) / width, -1) @ v
        y = x + linear(mixed.transpose(1, 2).flatten(2), narrow)
        up = linear(layer_norm(y, (width,)), wide)
        return y + linear(up * 0.5 * (1.0 + torch.erf(up / math.sqrt(2.0))), wide.T)

    tokens = windows * positions
    operations = tokens * (24 * width**2 + 4 * width * positions)
    seconds = best(block)
    return COMPOSED * tokens * width / max(seconds - operations / products, seconds / 10)


def _gather(device: str, best: _Best) -> float:
    W = _randn(_PAIRS_N, _PAIRS_WIDTH, device=device)
    shape = _PAIRS_TOKENS, _PAIRS_K
    rows = torch.randint(_PAIRS_N, shape, generator=torch.Generator().manual_seed(0)).to(device)
    weights = _randn(*shape, device=device)
    seconds = best(lambda: embedding_bag(rows, W, per_sample_weights=weights, mode="sum"))
    return 4 * weights.numel() * _PAIRS_WIDTH / seconds


def _selection(device: str, best: _Best) -> tuple[float, float]:
    """Seconds of an element that is searched, and of a row beside its elements."""
    sizes = ((512, 512, 16), (512, 8192, 64)) if device == "cpu" else ((8192, 8192, 64),)
    per_row = []
    for rows, n, k in sizes:
        pre = _randn(rows, n, device=device)
        per_row.append(best(lambda pre=pre, k=k: exact_topk(pre, k)) / rows)  # type: ignore[misc]
    if len(sizes) == 1:
        return per_row[0] / sizes[0][1], 0.0
    short, long = per_row
    element = max((long - short) / (sizes[1][1] - sizes[0][1]), 0.05 * long / sizes[1][1])
    return element, max(0.0, short - element * sizes[0][1])


def _uneven(device: str, best: _Best, row: float) -> float:
    """Elements a second that a top k is searched in, beside what a row takes, in rows that are not
    sorted in groups."""
    rows, n, k = _UNEVEN
    pre = _randn(rows, n, device=device)
    each = best(lambda: exact_topk(pre, k)) / rows
    return n / max(each - row, each / 2)


def _ranked(device: str, best: _Best) -> float:
    """Elements of a batch a second, among all of which the largest are searched."""
    rows, n, k = _BATCH["cpu" if device == "cpu" else "cuda"]
    pre = _randn(rows, n, device=device)
    return pre.numel() / best(lambda: smallest_selected(pre, k))


def _start(device: str, best: _Best) -> float:
    """Seconds of a step of an SAE that is hardly there."""
    recipe = Recipe(n=32, k=2, batch=8, steps=100, path="sparse")
    trainer = Trainer(SAE.init(8, recipe.n, recipe.k, seed=0, device=device), recipe)
    x = _randn(recipe.batch, 8, device=device)
    if device == "cpu":
        return best(lambda: trainer.step(x))
    bank = Bank([trainer])
    return best(lambda: bank.step([x]))


def _together(best: _Best) -> float:
    """Seconds that a step of one of endlessly many small SAEs takes less than by itself."""

    def trainer(seed: int) -> Trainer:
        sae = SAE.init(_SMALL_WIDTH, _SMALL.n, _SMALL.k, seed=seed)
        return Trainer(sae, _SMALL)

    # Each arm prepares a batch its own way.
    batches = list(_randn(_SMALL_NUMBER, _SMALL.batch, _SMALL_WIDTH, device="cpu"))
    one, bank = trainer(0), make_bank([trainer(seed) for seed, _ in enumerate(batches)])
    of_each = best(lambda: bank.step(batches)) / len(batches)
    return max(0.0, best(lambda: one.step(batches[0])) - of_each) / (1 - BEGINS / len(batches))


def _plain_python() -> int:
    """As corpora are made and cut: numbers drawn, letters joined, words counted."""
    generator = np.random.default_rng(0)
    found: dict[str, int] = {}
    for _ in range(100):
        drawn = generator.standard_normal(256).argsort()
        for word in " ".join(map(str, drawn % 50)).split():
            found[word] = found.get(word, 0) + 1
    return len(found)
