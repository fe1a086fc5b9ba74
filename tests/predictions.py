"""The prediction of death at birth, computed once for the same layer in whatever run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def predictions_computed_once() -> Iterator[None]:
    """Most runs of the tests measure the same few layers, and of a small one half the time is the
    prediction's. It has tests of its own, and depends on nothing but what is the key here."""
    from torch import Tensor, uint8

    from bench.death.prediction import predict
    from bench.records.schema import Prediction
    from bench.statistics.layer import LayerStatistics

    known: dict[tuple[object, ...], Prediction] = {}

    def digest(x: Tensor) -> str:
        content = x.detach().cpu().contiguous().view(uint8)
        return hashlib.blake2b(content.numpy().tobytes()).hexdigest()

    def predict_once(
        statistics: LayerStatistics, sample: Tensor, k: int, n: int, *, dense: bool = False
    ) -> Prediction:
        rms = statistics.moments.rms
        parts = (rms.mean, rms.covariance, sample)
        key = (*((x.dtype, x.shape, digest(x)) for x in parts), k, n, dense)
        if key not in known:
            known[key] = predict(statistics, sample, k, n, dense=dense)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.runner.block.predict", predict_once)
        patch.setattr("bench.diagnosis.diagnose.predict", predict_once)
        yield
