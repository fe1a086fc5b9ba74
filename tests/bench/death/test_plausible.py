"""Measured records raise no doubt, whatever was measured; made-up numbers do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.death.plausible import doubts
from bench.death.theory import predicted_dead, predicted_relu
from bench.records.schema import Death, Record, Statistics
from bench.records.store import RecordStore
from bench.statistics.layer import LayerStatistics
from tests.records import make_record

RESULTS = Path(__file__).parents[3] / "results"


def measured(seed: int, offset: float, scale: float, power: float) -> Statistics:
    """Of 256 tokens with a mean and a spectrum, 24 wide."""
    generator = torch.Generator().manual_seed(seed)
    spectrum = torch.arange(1, 25, dtype=torch.float32) ** -power
    mean = offset * torch.randn(24, generator=generator)
    layer = LayerStatistics(24)
    layer.update(scale * (mean + spectrum * torch.randn(256, 24, generator=generator)))
    return layer.result()


def of(statistics: Statistics, **death: int) -> Record:
    """A raw record whose predictions go with its statistics, and deaths with the predictions."""
    record = make_record(arm="raw")
    assert record.result is not None
    n, k = record.spec.protocol["n"], record.spec.protocol["k"]
    by_relu = predicted_relu(statistics.gamma, statistics.tokens)
    dead = predicted_dead(statistics.gamma, statistics.tokens, k, n)
    born = {"dead_relu": round(n * by_relu), "dead_topk": round(n * (dead - by_relu))} | death
    update: dict[str, Any] = {
        "statistics": statistics,
        "predicted_relu": by_relu,
        "predicted_dead": dead,
        "prediction": None,
        "death_init": Death(**born),
    }
    return record.model_copy(update={"result": record.result.model_copy(update=update)})


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**31),
    offset=st.floats(0, 1e3),
    scale=st.sampled_from([1e-3, 1.0, 1e6]),
    power=st.floats(0, 3),
)
def test_what_is_measured_raises_no_doubt(
    seed: int, offset: float, scale: float, power: float
) -> None:
    assert doubts(of(measured(seed, offset, scale, power))) == []


def test_no_committed_record_raises_one() -> None:
    records = [
        record for folder in (RESULTS, RESULTS / "synthetic") for record in RecordStore(folder)
    ]
    assert len(records) > 100
    assert [line for record in records for line in doubts(record)] == []


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("gamma_raw", 2.0, "gamma_raw is 2, its parts give"),
        ("gamma", 0.01, "does not go with the mean of dimension"),
        ("gamma", 50.0, "does not go with the mean of dimension"),
        ("width", 240, "does not go with the mean of dimension"),
        ("effective_rank", 24.5, "an effective rank of 24.5"),
    ],
)
def test_numbers_that_do_not_go_together_raise_one(key: str, value: float, says: str) -> None:
    statistics = measured(0, 0.2, 1.0, 0.5).model_copy(update={key: value})
    assert any(says in line for line in doubts(of(statistics)))


def test_predictions_that_gamma_does_not_give_raise_one() -> None:
    record = of(measured(0, 0.5, 1.0, 0.5))
    for key in ("predicted_relu", "predicted_dead"):
        other = record.model_copy(
            update={"result": record.result.model_copy(update={key: 0.987})}  # type: ignore[union-attr]
        )
        assert any(line.startswith(f"{key} is 0.987") for line in doubts(other))


def test_deaths_far_from_what_is_predicted_raise_one() -> None:
    statistics = measured(0, 0.2, 1.0, 0.0)
    assert doubts(of(statistics, dead_relu=0, dead_topk=200)) == []
    (line,) = doubts(of(statistics, dead_relu=400, dead_topk=0))
    assert line.startswith("52.1% are dead by ReLU at initialisation, 0.0% are predicted")
    (line,) = doubts(of(statistics, dead_relu=0, dead_topk=700))
    assert "91.1% are dead at initialisation" in line
