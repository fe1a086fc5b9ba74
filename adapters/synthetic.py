"""Activations with known features and a chosen gamma; no weights."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adapters.base import Adapter
from adapters.passes import Inputs
from zoo.cards import Card
from zoo.errors import BadCard, BadCorpus


@dataclass(frozen=True)
class Options:
    """`options` of a synthetic card.

    gamma: ||mu|| / ||sigma|| of the activations.
    features: number of features. active: expected number of active ones per token.
    spectrum: exponent s of the features' frequencies, p_j proportional to (j + 1)^-s; 0 makes
        them equally frequent.
    rank: how many dimensions the features fill: the size of their coordinates along random axes
        falls as exp(-j / rank), to a hundredth at least; None lets them fill all alike.
    massive: share of the tokens that are massive: one fixed direction, `massive_norm` times the
        expected norm of the others, give or take a fifth. gamma is that of the others.
    seed: of the features, of the mean's direction, and of every draw.
    """

    gamma: float
    features: int
    active: float
    spectrum: float = 0.0
    rank: float | None = None
    massive: float = 0.0
    massive_norm: float = 100.0
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
        if options.rank is not None and options.rank <= 0:
            raise BadCard(f"card {card.id!r}: options: rank must be positive")
        if not 0 <= options.massive < 0.5 or options.massive_norm <= 0:
            raise BadCard(
                f"card {card.id!r}: options: massive must be a share below one half, and "
                "massive_norm positive"
            )
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
        width = self.card.tap.width
        features = torch.from_numpy(self._normal(0, (self.options.features, width)))
        if self.options.rank is not None:
            sizes = torch.arange(width).double().div(-self.options.rank).exp().clamp(min=0.01)
            axes = torch.linalg.qr(torch.from_numpy(self._normal(3, (width, width)))).Q
            features = (features * sizes) @ axes
        return nn.functional.normalize(features, dim=1).float()

    @functools.cached_property
    def sigma(self) -> float:
        """The expected ||sigma|| of the tokens that are not massive."""
        p = self.options.frequencies
        return math.sqrt((p / 3 - p**2 / 4).sum())

    @functools.cached_property
    def _sink(self) -> Tensor:
        """The direction of massive tokens, unit norm, float32 [width]."""
        direction = torch.from_numpy(self._normal(4, (self.card.tap.width,)))
        return (direction / direction.norm()).float()

    def load(self) -> nn.Module:
        p, sigma = self.options.frequencies, self.sigma
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
        tokens = torch.from_numpy(values) @ self.truth
        if self.options.massive:
            chosen = random.random(self.card.context) < self.options.massive
            norm = self.options.massive_norm * self.sigma * math.hypot(self.options.gamma, 1)
            sizes = norm * random.uniform(0.8, 1.2, size=(int(chosen.sum()), 1))
            tokens[torch.from_numpy(chosen)] = torch.from_numpy(sizes).float() * self._sink
        return [tokens]

    def inputs(self, items: list[Tensor]) -> Inputs:
        x = torch.stack(items)
        valid = torch.ones(x.shape[:2], dtype=torch.bool)
        return Inputs({"x": x}, valid, ~valid)

    def _normal(self, stream: int, shape: tuple[int, ...]) -> np.ndarray:
        return np.random.default_rng([self.options.seed, stream]).standard_normal(shape)
