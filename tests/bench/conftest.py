"""Fixtures of the tests that run small models."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench.death.prediction import predict
from bench.records.schema import Prediction
from bench.statistics.layer import LayerStatistics
from tests.made import write_made


@pytest.fixture(scope="session", autouse=True)
def _predictions_are_computed_once() -> Iterator[None]:
    """Most runs of the tests measure the same made layers, and of a small one half the time is the
    prediction's. It has tests of its own, and depends on nothing but what is the key here."""
    known: dict[tuple[object, ...], Prediction] = {}

    def predict_once(
        statistics: LayerStatistics, sample: Tensor, k: int, n: int, *, dense: bool = False
    ) -> Prediction:
        rms = statistics.moments.rms
        parts = (rms.mean, rms.covariance, sample)
        key = (*((x.dtype, x.shape, _digest(x)) for x in parts), k, n, dense)
        if key not in known:
            known[key] = predict(statistics, sample, k, n, dense=dense)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.runner.block.predict", predict_once)
        patch.setattr("bench.diagnosis.diagnose.predict", predict_once)
        yield


def _digest(x: Tensor) -> str:
    content = x.detach().cpu().contiguous().view(torch.uint8)
    return hashlib.blake2b(content.numpy().tobytes()).hexdigest()


@pytest.fixture
def cards(tmp_path: Path) -> Path:
    """A folder with the card `made`, whose activations lie beside it."""
    return write_made(tmp_path / "cards")


@pytest.fixture
def arguments(cards: Path, tiny: list[str]) -> list[str]:
    """Options for a run of it that takes a second: three layers, two arms."""
    return ["--cards", str(cards), "--model", "made", *tiny]
