"""One reading of activations: the statistics of all tokens, and a sample of them."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bench.compute.device import check_device
from bench.diagnosis.batches import TokenReader
from bench.diagnosis.files import Activations
from bench.records.schema import Statistics
from bench.statistics import mean_error
from bench.statistics.layer import LayerStatistics
from bench.statistics.reservoir import Reservoir
from zoo.errors import BadActivations, UsageError

# What `bench.diagnosis.batches` says; `Mapping` are dictionaries and batches of loaders.
ActivationSource = Tensor | np.ndarray | Activations | Iterable[Any] | Mapping[Any, Any]

# The share of the spread that rounding to float32 may lose.
_MOST_ROUNDED = 1e-3


def whole_numbers(**given: Any) -> tuple[int, ...]:
    """Values given as whole numbers, numpy's too, in their order. Raises UsageError."""
    found = []
    for name, value in given.items():
        try:
            found.append(operator.index(value))
        except TypeError:
            raise UsageError(f"{name} is {value!r}, not a whole number") from None
    return tuple(found)


class Read(NamedTuple):
    """What was read: statistics of all tokens, and at most so many of them, [sample, width]."""

    statistics: Statistics
    sample: Tensor
    collected: LayerStatistics
    gamma_without_chance: float | None
    notes: tuple[str, ...]


def read_sample(
    activations: ActivationSource,
    tokens: int,
    seed: int,
    device: str,
    *,
    max_tokens: int | None = None,
    key: str | None = None,
) -> Read:
    """The statistics of all tokens, and at most `tokens` of them; see `diagnose`.

    Raises:
        BadActivations, UsageError: as `diagnose` does.
    """
    tokens, seed = whole_numbers(tokens=tokens, seed=seed)
    if not 0 <= seed < 2**63:
        raise UsageError(f"seed = {seed} is not between 0 and 2^63 - 1")
    if max_tokens is not None:
        (max_tokens,) = whole_numbers(max_tokens=max_tokens)
        if max_tokens < 2:
            raise UsageError(f"max_tokens = {max_tokens} is fewer than two")
    check_device(device)
    reader = TokenReader(key, max_tokens, endless=tokens)
    collected: _Collected | None = None
    for batch in reader.batches(activations):
        if collected is None:
            collected = _Collected(batch.shape[1], tokens, seed, device)
        collected.update(batch)
    if collected is None:
        raise BadActivations("no tokens", "Give at least two.")
    return collected.result(reader.notes)


class _Collected:
    """What batches of tokens [*, width] give, one after the other."""

    def __init__(self, width: int, tokens: int, seed: int, device: str) -> None:
        self._device = device
        self._statistics = LayerStatistics(width, seed=seed)
        self._error = mean_error.MeanError(width, "layernorm")
        self._sample = Reservoir(width, capacity=tokens, seed=seed)
        self._largest, self._zeros = 0.0, 0

    def update(self, batch: Tensor) -> None:
        """Raises BadActivations where a number is not finite, or larger than float32 holds."""
        self._largest = max(self._largest, _largest(batch))
        perhaps = batch[batch[:, 0] == 0]  # which are few
        self._zeros += int((perhaps == 0).all(1).sum())
        self._statistics.update(batch.to(self._device))
        self._sample.update(batch)
        self._error.update(batch)

    def result(self, notes: Iterable[str]) -> Read:
        """What was read, and notes on it after those. Raises BadActivations."""
        seen, statistics = self._sample.seen, self._statistics
        if seen == 1:
            raise BadActivations(
                "one token has no variance", "Give at least two, better thousands."
            )
        if 0 < self._largest < torch.finfo(torch.float32).tiny:
            raise BadActivations(
                f"the largest of the activations is {self._largest:.1g}, smaller than float32 "
                "holds",
                "Multiply them by one number, in float64: it decides nothing.",
            )
        found, squared = statistics.result(), self._error.squared()
        variance = float(statistics.moments.layernorm.variance.sum())
        without = (
            None if squared is None else mean_error.without_chance(found.gamma, squared, variance)
        )
        rows = _as_float32(self._sample.rows().to(self._device), found.sigma_norm)
        every_note = (*notes, *self._notes(found.width))
        return Read(found, rows, statistics, without, every_note)

    def _notes(self, width: int) -> list[str]:
        seen, zeros, notes = self._sample.seen, self._zeros, []
        if zeros:
            notes.append(
                f"{zeros:,} of {seen:,} tokens ({zeros / seen:.1%}) are all zero: where they are "
                "padding, leave them out, as they count as tokens here"
            )
        if seen < width:
            notes.append(
                f"{seen:,} tokens are fewer than the {width:,} dimensions: if the axes are turned, "
                "give the transpose"
            )
        return notes


def _largest(batch: Tensor) -> float:
    """The largest size of a number in float64; 0 in types that float32 holds.

    Raises:
        BadActivations: float32 does not hold it.
    """
    if batch.dtype != torch.float64 or not batch.numel():
        return 0.0
    # NaN and infinity are told of with their place, by the statistics.
    largest = float(torch.nan_to_num(batch, posinf=0, neginf=0).abs().max())
    if torch.finfo(torch.float32).max < largest:
        raise BadActivations(
            "the activations are finite in float64, but larger than float32 holds",
            "Divide them by one number: it decides nothing.",
        )
    return largest


def _as_float32(sample: Tensor, sigma_norm: float) -> Tensor:
    """The sample as dictionaries see it, [tokens, width].

    Raises:
        BadActivations: what is rounded away is too much of the spread.
    """
    rounded = sample.float()
    if sample.dtype != torch.float64:
        return rounded
    error = sample - rounded
    lost = float(torch.linalg.vector_norm(error - error.mean(0))) / len(sample) ** 0.5
    if lost > _MOST_ROUNDED * sigma_norm:
        raise BadActivations(
            f"rounding the activations from float64 to float32 loses {lost / sigma_norm:.1%} of "
            "their spread, which is small beside their mean or beside float32's least number",
            "Subtract their mean, or multiply them by one number, in float64.",
        )
    return rounded
