"""What `bench.diagnose` takes: whatever holds activations in the libraries people use."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import bench
from bench.diagnosis.batches import TokenReader
from zoo.errors import BadActivations, UsageError

SMALL = {"n": 64, "k": 4}


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(300, 8, generator=torch.Generator().manual_seed(0))


class ActivationsStore:
    """As SAELens' is: an iterator that never ends."""

    def __init__(self, x: torch.Tensor) -> None:
        self.batches = itertools.cycle(x.split(50))

    def __iter__(self) -> ActivationsStore:
        return self

    def __next__(self) -> torch.Tensor:
        return next(self.batches)

    def next_batch(self) -> torch.Tensor:
        return next(self)


class ActivationCache:
    """As TransformerLens' is: no mapping by its class."""

    def __init__(self, **entries: Any) -> None:
        self.cache_dict = entries
        self.keys, self.items = entries.keys, entries.items


class Dataset:
    """As the datasets library's is: batches are dictionaries of columns."""

    def __init__(self, **columns: np.ndarray) -> None:
        self.columns = columns

    def with_format(self, kind: str) -> Dataset:
        assert kind == "numpy"
        return self

    def iter(self, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
        for start in range(0, len(next(iter(self.columns.values()))), batch_size):
            yield {name: c[start : start + batch_size] for name, c in self.columns.items()}


class Proxy:
    """As nnsight's is, after its trace."""

    __module__ = "nnsight.intervention"

    def __init__(self, value: torch.Tensor) -> None:
        self.value = value


SOURCES: dict[str, Callable[[torch.Tensor], Any]] = {
    "batch, sequence, width": lambda x: x.reshape(10, 30, 8),
    "a leading one": lambda x: x[None],
    "numpy": lambda x: x.reshape(10, 30, 8).numpy(),
    "loader of tuples": lambda x: DataLoader(TensorDataset(x, torch.arange(300)), batch_size=64),
    "dataset of tuples": lambda x: TensorDataset(x),
    "saev's batches": lambda x: [
        {"act": part, "image_i": torch.zeros(len(part)).long()} for part in x.split(70)
    ],
    "saev's examples": lambda x: ({"act": row, "patch_i": 3} for row in x),
    "datasets": lambda x: Dataset(acts=x.reshape(10, 30, 8).numpy(), ids=np.zeros((10, 30), int)),
    "cache": lambda x: ActivationCache(resid=x.reshape(10, 30, 8), logits_argmax=torch.arange(3)),
    "nested": lambda x: {"blocks": {"5": {"resid": x}}, "tokens": torch.arange(300)},
    "a key per sequence": lambda x: {"p10": x[20:], "p2": x[:20]},
    "proxy": lambda x: Proxy(x),
    "proxies": lambda x: [Proxy(part) for part in x.split(100)],
    "lists of sequences": lambda x: [[x[:100], x[100:120]], [x[120:]]],
}


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_gives_its_tokens_in_order(name: str, x: torch.Tensor) -> None:
    found = torch.cat(list(TokenReader().batches(SOURCES[name](x))))
    torch.testing.assert_close(found, x, rtol=0, atol=0)


def test_bfloat16_with_gradients_is_measured(x: torch.Tensor) -> None:
    half = (x + 1).bfloat16().requires_grad_()
    found = bench.diagnose({"acts": half}, **SMALL)
    exact = half.detach().double()
    expected = exact.mean(0).norm() / exact.var(0, correction=0).sum().sqrt()
    assert found.statistics.gamma_raw == pytest.approx(float(expected), rel=1e-4)


def test_endless_stores_end(x: torch.Tensor) -> None:
    found = bench.diagnose(ActivationsStore(x), tokens=120, **SMALL)
    assert found.statistics.tokens == 120
    assert found.notes == ("the source is endless: its first 120 tokens are measured",)
    counted = itertools.count()
    endless = (next(counted) * 0 + part for part in itertools.cycle(x.split(50)))
    found = bench.diagnose(endless, max_tokens=130, **SMALL)
    assert (found.statistics.tokens, found.notes) == (130, ())
    assert next(counted) == 3  # no batch more was taken


def test_what_was_done_is_said_once(x: torch.Tensor) -> None:
    loader = (x.reshape(10, 30, 8)[i : i + 3] for i in (0, 3, 6, 9))
    found = bench.diagnose(loader, **SMALL)
    assert found.notes[0].startswith("[3, 30, 8] taken as 90 tokens of width 8; padding")
    # The last batch has a single sequence.
    assert found.notes[1:] == ("[1, 30, 8] taken as [30, 8]: the leading 1 is dropped",)
    turned = bench.diagnose(torch.randn(8, 300) + 1, **SMALL)
    assert turned.notes == (
        "8 tokens are fewer than the 300 dimensions: if the axes are turned, give the transpose",
    )
    assert "note: 8 tokens are fewer" in str(turned)


def test_which_entry_is_meant(x: torch.Tensor) -> None:
    cache = ActivationCache(**{"blocks.0.resid": x, "blocks.1.resid": x + 1})
    with pytest.raises(UsageError, match=r"several arrays: blocks\.0\.resid, blocks\.1\.resid"):
        bench.diagnose(cache, **SMALL)
    found = torch.cat(list(TokenReader("blocks.1.resid").batches(cache)))
    assert torch.equal(found, x + 1)
    with pytest.raises(UsageError, match=r"holds no 'x'\. It holds blocks\.0"):
        bench.diagnose(cache, key="x", **SMALL)
    with pytest.raises(UsageError, match="looks like the layers of a model"):
        bench.diagnose((x[None], x[None]), **SMALL)
    pairs = DataLoader(TensorDataset(x, x + 1), batch_size=64)
    assert torch.equal(torch.cat(list(TokenReader("1").batches(pairs))), x + 1)
    for bad in ([{"a": "text"}], [["text"]], {"a": 1}):
        with pytest.raises(BadActivations, match="not a tensor or an array"):
            bench.diagnose(bad, **SMALL)
