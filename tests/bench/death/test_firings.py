"""The clocks against a plain replay of the definitions, feature by feature and step by step."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from bench.death.firings import FiringClock, silence_steps

N = 60


@dataclass
class Replayed:
    """One feature, as the definitions have it: what it did before and in each step of training."""

    window: int
    born_dead: bool
    history: list[bool] = field(init=False)
    firings: list[int] = field(default_factory=list)
    revivals: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.history = [False] * self.window if self.born_dead else [True]

    def silent(self) -> bool:
        return len(self.history) >= self.window and not any(self.history[-self.window :])

    def step(self, fires: bool, number: int) -> None:
        if fires:
            if self.silent():
                self.revivals.append(number)
            self.firings.append(number)
        self.history.append(fires)


def patterns(seed: int, steps: int) -> np.ndarray:
    """Who fires in which step, bool [steps, N]: at very different rates, some never, in bursts."""
    random = np.random.default_rng(seed)
    rates = 10 ** random.uniform(-3, 0, N)
    rates[:5] = 0
    asleep = random.random((steps // 10 + 1, N)) < 0.4
    return (random.random((steps, N)) < rates) & ~np.repeat(asleep, 10, axis=0)[:steps]


def last(values: list[int]) -> int:
    return values[-1] if values else -1


@pytest.mark.parametrize("window", [1, 2, 7, 40, 500])
@pytest.mark.parametrize("seed", range(3))
def test_clocks_equal_a_replay_of_every_firing(window: int, seed: int) -> None:
    steps = 200
    fires = patterns(seed, steps)
    born_dead = torch.from_numpy(np.random.default_rng(seed).random(N) < 0.5)
    features = [Replayed(window, bool(dead)) for dead in born_dead]
    clock = FiringClock(N, silence=window, born_dead=born_dead)
    assert clock.silent(0).tolist() == [feature.silent() for feature in features]
    for number in range(steps):
        for feature, fired in zip(features, fires[number], strict=True):
            feature.step(bool(fired), number)
        clock.tick(torch.from_numpy(fires[number].copy()), number)
        assert clock.silent(number + 1).tolist() == [each.silent() for each in features]
    assert clock.first_fired.tolist() == [(each.firings or [-1])[0] for each in features]
    assert clock.last_revived.tolist() == [last(each.revivals) for each in features]
    assert clock.revivals.tolist() == [len(each.revivals) for each in features]
    assert clock.fired.tolist() == [bool(each.firings) for each in features]
    for feature, step in zip(features, clock.last_fired.tolist(), strict=True):
        assert step == last(feature.firings) if feature.firings else step < 0
    assert any(len(each.revivals) > 2 for each in features) == (window < 500)


def test_a_run_shorter_than_the_silence_has_none_but_that_of_birth() -> None:
    fires = patterns(0, 30)
    born_dead = torch.arange(N) < 20
    clock = FiringClock(N, silence=31, born_dead=born_dead)
    for number, fired in enumerate(fires):
        clock.tick(torch.from_numpy(fired.copy()), number)
    assert torch.equal(clock.silent(30), born_dead & ~clock.fired)
    assert torch.equal(clock.revivals > 0, born_dead & clock.fired)
    assert torch.equal(clock.last_revived[born_dead], clock.first_fired[born_dead])


def test_a_clock_goes_on_from_its_tensors() -> None:
    fires = [torch.from_numpy(fired.copy()) for fired in patterns(1, 90)]
    born_dead = torch.arange(N) % 3 == 0
    whole, first, second = (FiringClock(N, silence=6, born_dead=born_dead) for _ in range(3))
    for number, fired in enumerate(fires):
        whole.tick(fired, number)
        if number < 50:
            first.tick(fired, number)
    second.load({name: each.clone() for name, each in first.tensors().items()})
    for number, fired in enumerate(fires[50:], 50):
        second.tick(fired, number)
    assert all(map(torch.equal, whole.tensors().values(), second.tensors().values()))
    assert int(whole.revivals.sum()) > int(first.revivals.sum())


def test_without_a_silence_nothing_is_silent_or_revives() -> None:
    clock = FiringClock(3)
    clock.tick(torch.tensor([True, False, False]), 0)
    clock.tick(torch.tensor([False, True, False]), 10**9)
    assert not clock.silent(10**9 + 1).any()
    assert clock.revivals.tolist() == [0, 0, 0]
    assert clock.first_fired.tolist() == [0, 10**9, -1]


def test_what_fired_is_not_changed() -> None:
    fired = torch.tensor([True, False])
    FiringClock(2, silence=1, born_dead=torch.tensor([True, True])).tick(fired, 0)
    assert fired.tolist() == [True, False]


@pytest.mark.parametrize(
    ("tokens", "batch", "steps"), [(4096, 256, 16), (4097, 256, 17), (100, 256, 1), (256, 256, 1)]
)
def test_a_silence_is_whole_steps_of_at_least_its_tokens(
    tokens: int, batch: int, steps: int
) -> None:
    assert silence_steps(tokens, batch) == steps
    assert (steps - 1) * batch < tokens <= steps * batch


def test_a_silence_takes_a_step_at_least() -> None:
    with pytest.raises(ValueError, match="at least one step"):
        FiringClock(2, silence=0)
