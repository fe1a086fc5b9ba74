from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adapters.taps import Taps, find_blocks, pick
from zoo.cards import Tap
from zoo.errors import BadActivations, BadWeights

FIRST = functools.partial(pick, which=0)


class Ladder(nn.Module):
    """Adds 1 in each of its steps, in the order given, and counts the steps made."""

    class Step(nn.Module):
        def __init__(self, in_place: bool) -> None:
            super().__init__()
            self.in_place = in_place

        def forward(self, x: Tensor) -> Tensor:
            return x.add_(1) if self.in_place else x + 1

    def __init__(self, steps: int = 4, in_place: bool = False, order: Any = None) -> None:
        super().__init__()
        self.steps = nn.ModuleList(self.Step(in_place) for _ in range(steps))
        self.order = order or range(steps)
        self.made = 0

    def forward(self, x: Tensor) -> Tensor:
        for number in self.order:
            x = self.steps[number](x)
            self.made += 1
        return x


def _tapped(model: Ladder, layers: list[int]) -> dict[int, float]:
    blocks = {layer: model.steps[layer] for layer in layers}
    with Taps(blocks, FIRST, lambda layer, x: x.clone()) as taps:
        model(torch.zeros(1))
    return {layer: float(x) for layer, x in taps.kept.items()}


def _hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def test_pass_stops_after_the_deepest_tap() -> None:
    model = Ladder()
    assert _tapped(model, [0, 2]) == {0: 1.0, 2: 3.0}
    assert model.made == 2  # the third step was left from within
    assert _hooks(model) == 0


def test_blocks_may_run_in_any_order() -> None:
    model = Ladder(order=[3, 1, 0, 2])
    assert _tapped(model, [0, 1]) == {1: 2.0, 0: 3.0}


def test_what_is_kept_survives_a_model_that_writes_in_place() -> None:
    assert _tapped(Ladder(in_place=True), [0, 1, 3]) == {0: 1.0, 1: 2.0, 3: 4.0}


def test_foreign_exceptions_propagate_and_the_hooks_come_off() -> None:
    model = Ladder()
    with pytest.raises(ZeroDivisionError), Taps({0: model.steps[0]}, FIRST, lambda layer, x: 1 / 0):
        model(torch.zeros(1))
    assert _hooks(model) == 0


def test_a_block_that_never_runs_is_an_error() -> None:
    model = Ladder(order=[0, 1])
    with pytest.raises(BadActivations, match=r"^block 3 did not run in the forward pass$"):
        _tapped(model, [0, 3])
    assert _hooks(model) == 0


@pytest.mark.parametrize("layers", [[0], [2], [0, 1, 2]])
def test_of_a_trunk_that_recycles_the_last_pass_is_kept(layers: list[int]) -> None:
    model = Ladder(3, in_place=True, order=[0, 1, 2] * 4)
    blocks = {layer: model.steps[layer] for layer in layers}
    with Taps(blocks, FIRST, lambda layer, x: x.clone(), passes=4) as taps:
        model(torch.zeros(1))
    assert {layer: float(x) for layer, x in taps.kept.items()} == {i: 10.0 + i for i in layers}
    assert model.made == 9 + max(layers)


def test_a_trunk_that_recycles_less_than_expected_is_an_error() -> None:
    model = Ladder(2, order=[0, 1] * 2)
    taps = Taps({0: model.steps[0]}, FIRST, lambda layer, x: x.clone(), passes=4)
    message = r"block 0 did not run .*, or 2 times too few$"
    with pytest.raises(BadActivations, match=message), taps:
        model(torch.zeros(1))


def test_model_is_usable_after_a_stop() -> None:
    model = Ladder()
    _tapped(model, [0])
    assert float(model(torch.zeros(1))) == 4.0


def test_pick_knows_tensors_tuples_and_sums() -> None:
    x, y = torch.ones(2), torch.full((2,), 3.0)
    assert pick(x, 0) is x
    assert pick((x, y), 1) is y
    assert pick((None, y), 1) is y
    assert pick((x, None, y), "sum").tolist() == [4.0, 4.0]


@pytest.mark.parametrize(
    ("output", "which", "text"),
    [
        (torch.ones(1), 1, "tap.output is 1, but the block returns one tensor"),
        (torch.ones(1), "sum", "tap.output is 'sum', but the block returns one tensor"),
        ((None,), "sum", "tap.output is 'sum', but the block returns no tensors"),
        ((None, torch.ones(1)), 0, "the block's output (tuple) has no tensor at tap.output 0"),
        ((torch.ones(1),), 3, "the block's output (tuple) has no tensor at tap.output 3"),
    ],
)
def test_pick_says_what_is_not_there(output: Any, which: Any, text: str) -> None:
    with pytest.raises(BadActivations) as failure:
        pick(output, which)
    assert str(failure.value).startswith(text)


def _tap(*patterns: str, layers: int = 4) -> Tap:
    return Tap(blocks=patterns, layers=layers, width=1)


def test_first_pattern_that_fits_is_taken() -> None:
    model = Ladder()
    assert find_blocks(model, _tap("moved.{i}", "steps.{i}"), "m") == list(model.steps)


def test_wrong_number_of_blocks_names_both() -> None:
    with pytest.raises(BadWeights) as failure:
        find_blocks(Ladder(3), _tap("steps.{i}"), "m")
    assert str(failure.value) == (
        "model 'm': wrong architecture: 3 blocks at 'steps.{i}', the card says 4. "
        "Use the checkpoint the card names, or correct tap.layers."
    )


def test_no_blocks_says_what_the_model_has() -> None:
    with pytest.raises(BadWeights) as failure:
        find_blocks(Ladder(), _tap("h.{i}", "layer.{i}"), "m")
    assert str(failure.value) == (
        "model 'm': wrong architecture: no blocks at 'h.{i}' or 'layer.{i}' in Ladder "
        "(it has steps). Use the checkpoint the card names, or correct tap.blocks."
    )
