"""Windows of a batch in passes with little padding: the best groups there are, whatever comes."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from zoo.padding import grouped, pass_cost
from zoo.registry import load_registry


def taken(lengths: list[int], groups: list[list[int]], cost: float) -> float:
    return sum(len(group) * max(lengths[i] for i in group) + cost for group in groups)


def partitions(numbers: list[int]) -> list[list[list[int]]]:
    """All ways to put things in groups, without regard to their lengths."""
    if not numbers:
        return [[]]
    first, *rest = numbers
    found = []
    for size in range(len(rest) + 1):
        for others in itertools.combinations(rest, size):
            left = [number for number in rest if number not in others]
            found += [[[first, *others], *more] for more in partitions(left)]
    return found


@pytest.mark.parametrize("seed", range(30))
def test_no_other_groups_take_less(seed: int) -> None:
    rng = random.Random(seed)
    lengths = [rng.randint(1, rng.choice([3, 40])) for _ in range(rng.randint(1, 7))]
    cost = rng.choice([0.0, 1.0, 7.5, 30.0])
    groups = grouped(lengths, cost)
    assert sorted(itertools.chain(*groups)) == list(range(len(lengths)))
    assert all(group == sorted(group) for group in groups)
    longest = [max(lengths[i] for i in group) for group in groups]
    assert longest == sorted(longest, reverse=True)
    least = min(taken(lengths, each, cost) for each in partitions(list(range(len(lengths)))))
    assert taken(lengths, groups, cost) == pytest.approx(least)


def test_speeches_are_a_quarter_of_their_padding() -> None:
    rng = random.Random(1)
    lengths = [min(256, round(rng.expovariate(1 / 35)) + 2) for _ in range(63)] + [256]
    padded, tokens = 64 * 256, sum(lengths)
    groups = grouped(lengths, 256)
    assert padded > 6 * tokens
    assert taken(lengths, groups, 0) < 1.5 * tokens
    assert grouped(lengths, math.inf) == [list(range(64))]
    assert grouped([128] * 64, 0) == [list(range(64))], "nothing is won where all are of a length"


def test_a_card_takes_fewer_passes_of_a_small_model_than_of_a_large_one() -> None:
    registry = load_registry()
    small, large = registry.card("esm2-35m"), registry.card("esm2-3b")
    assert pass_cost(small, on_card=True) > 10 * pass_cost(large, on_card=True)
    assert pass_cost(large, on_card=True) > pass_cost(large, on_card=False) / 2
    assert pass_cost(small, on_card=False) == pass_cost(large, on_card=False)
