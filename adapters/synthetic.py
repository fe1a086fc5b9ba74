"""Activations with known features and a chosen gamma; no weights."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adapters.base import Adapter, Inputs
from zoo.cards import Card
from zoo.errors import BadCard, BadCorpus


@dataclass(frozen=True)
class Options:
    """`options` of a synthetic card.

    gamma: ||mu|| / ||sigma|| of the activations.
    features: number of features. active: expected number of active ones per token.
    spectrum: exponent s of the features' frequencies, p_j proportional to (j + 1)^-s; 0 makes
        them equally frequent.
    seed: of the features, of the mean's direction, and of every draw.
    """

    gamma: float
    features: int
    active: float
    spectrum: float = 0.0
    seed: int = 0

    @classmethod
    def of(cls, card: Card) -> Options:
        """Raises `BadCard` where an option is unknown, absent or out of range."""
        try:
            options = cls(**card.options)
        except TypeError as error:
            reason = str(error).split("__init__() ")[-1]
            raise BadCard(f"card {card.id!r}: options: {reason}") from None
        if options.features < 1 or options.active <= 0 or options.gamma < 0:
            raise BadCard(f"card {card.id!r}: options: gamma, features and active must be positive")
        if options.frequencies.max() > 1:
            raise BadCard(
                f"card {card.id!r}: options.active {options.active} would make a feature active "
                "more often than always",
                "Lower active or spectrum.",
            )
        return options

    @functools.cached_property
    def frequencies(self) -> np.ndarray:
        """Probability of each feature to be active at a token, float64 [features]."""
        weights = np.arange(1, self.features + 1, dtype=np.float64) ** -self.spectrum
        return weights * (self.active / weights.sum())


class SyntheticLayer(nn.Module):
    """Adds the mean to the features' signal, in the one module there is to tap: `layer`."""

    class AddMean(nn.Module):
        mean: Tensor

        def __init__(self, mean: Tensor) -> None:
            super().__init__()
            self.register_buffer("mean", mean)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.mean

    def __init__(self, mean: Tensor) -> None:
        super().__init__()
        self.layer = self.AddMean(mean)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class SyntheticAdapter(Adapter):
    """Sparse sums of known unit-norm features around a mean of the chosen size.

    A token is x = m + sum_j a_j f_j. Feature j is active with probability p_j, then with a value
    uniform on [0, 1], independently of the others (the data of Elhage et al. 2022, "Toy Models of
    Superposition"). As E a_j = p_j / 2 and Var a_j = p_j / 3 - p_j^2 / 4, the expected
    ||sigma||^2 is the sum of the variances, whatever the features' angles, and m is set so that
    the expected mean is gamma ||sigma|| times a random unit vector.

    An example is a draw number. It stands for `context` tokens, the same on every CPU.
    """

    known_options = tuple(option.name for option in fields(Options))

    @functools.cached_property
    def options(self) -> Options:
        return Options.of(self.card)

    @functools.cached_property
    def truth(self) -> Tensor:
        """The features, unit norm, float32 [features, width]."""
        shape = (self.options.features, self.card.tap.width)
        return nn.functional.normalize(torch.from_numpy(self._normal(0, shape)), dim=1).float()

    def load(self) -> nn.Module:
        p = self.options.frequencies
        sigma = math.sqrt((p / 3 - p**2 / 4).sum())
        signal = torch.from_numpy(p / 2) @ self.truth.double()
        direction = torch.from_numpy(self._normal(1, (self.card.tap.width,)))
        mean = self.options.gamma * sigma * direction / direction.norm() - signal
        return SyntheticLayer(mean.to(self.dtype))

    def windows(self, example: Any) -> list[Tensor]:
        if isinstance(example, bool) or not isinstance(example, int | np.integer):
            raise BadCorpus(f"a draw number is needed, not {type(example).__name__}")
        random = np.random.default_rng([self.options.seed, 2, int(example)])
        shape = (self.card.context, self.options.features)
        active = random.random(shape) < self.options.frequencies
        values = (active * random.random(shape)).astype(np.float32)
        return [torch.from_numpy(values) @ self.truth]

    def inputs(self, items: list[Tensor]) -> Inputs:
        x = torch.stack(items)
        valid = torch.ones(x.shape[:2], dtype=torch.bool)
        return Inputs({"x": x}, valid, ~valid)

    def _normal(self, stream: int, shape: tuple[int, ...]) -> np.ndarray:
        return np.random.default_rng([self.options.seed, stream]).standard_normal(shape)
