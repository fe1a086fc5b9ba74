"""What the sealed iterator promises to consumers and asks of authors."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pkgutil import resolve_name
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adapters import ActivationBatch, Adapter, Inputs
from adapters.registry import entry
from adapters.tokens import consecutive, pad
from tests.adapters.tiny import make_card
from zoo.cards import Card
from zoo.errors import BadActivations, BadCard, BadCorpus, BadWeights, UsageError
from zoo.registry import load_registry


class Numbers(Adapter):
    """Examples are lists of numbers; block i of the model adds i + 1 to them. 0 is special."""

    class Model(nn.Module):
        class Add(nn.Module):
            def __init__(self, value: int) -> None:
                super().__init__()
                self.value = value

            def forward(self, x: Tensor) -> Tensor:
                return x + self.value

        def __init__(self, layers: int) -> None:
            super().__init__()
            self.h = nn.Sequential(*(self.Add(i + 1) for i in range(layers)))
            self.batches: list[int] = []

        def forward(self, ids: Tensor) -> Tensor:
            self.batches.append(len(ids))
            return self.h(ids[..., None].expand(-1, -1, 48).float())

    def load(self) -> nn.Module:
        return self.Model(self.card.tap.layers)

    def windows(self, example: Any) -> list[Any]:
        if not isinstance(example, list):
            raise BadCorpus("a list is needed", "Give lists.")
        return [example[cut] for cut in consecutive(len(example), self.card.context)]

    def inputs(self, items: list[Any]) -> Inputs:
        ids, valid = pad(items, -1000)
        return Inputs({"ids": ids}, valid, (ids == 0) & valid)


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(BadCard) as caught:
        _numbers(options={"clss": "X"})
    assert str(caught.value).endswith(
        "options.clss is not read by adapter hf-causal. It reads none."
    )


@pytest.mark.parametrize("card", load_registry().cards.values(), ids=lambda card: card.id)
def test_every_option_of_the_cards_is_read(card: Card) -> None:
    family = resolve_name(entry(card).target)
    family._check_options(card)
    with pytest.raises(BadCard, match="is not read by adapter"):
        family._check_options(card.model_copy(update={"options": {"clss": 1}}))


EXAMPLES = [[0, 5, 6, 7, 8, 9], [], [0, 3], [4]]


def _numbers(**changes: Any) -> Numbers:
    return Numbers(make_card(**({"context": 4} | changes)))


def _flat(batches: Iterator[ActivationBatch], layer: int = 0) -> list[tuple[int, int, float]]:
    return [
        (int(e), int(p), float(x[0]))
        for batch in batches
        for e, p, x in zip(batch.example, batch.position, batch.by_layer[layer], strict=True)
    ]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_tokens_come_in_order_with_their_places(batch_size: int) -> None:
    found = _flat(_numbers().activations([0, 2], EXAMPLES, batch_size=batch_size), layer=2)
    assert found == [
        (0, 1, 5 + 6.0), (0, 2, 6 + 6.0), (0, 3, 7 + 6.0), (0, 0, 8 + 6.0), (0, 1, 9 + 6.0),
        (2, 1, 3 + 6.0), (3, 0, 4 + 6.0),
    ]  # fmt: skip


@pytest.mark.parametrize("tokens", range(9))
@pytest.mark.parametrize("batch_size", [1, 3])
def test_max_tokens_is_exact(tokens: int, batch_size: int) -> None:
    adapter = _numbers()
    whole = _flat(adapter.activations([1], EXAMPLES, batch_size=batch_size), 1)
    part = adapter.activations([1], EXAMPLES, batch_size=batch_size, max_tokens=tokens)
    assert _flat(part, 1) == whole[:tokens]


def test_examples_are_read_no_further_than_needed() -> None:
    taken = []

    def endless() -> Iterator[list[int]]:
        for number in range(1, 10**9):
            taken.append(number)
            yield [number, number]

    found = _flat(_numbers().activations([0], endless(), batch_size=3, max_tokens=10))
    assert len(found) == 10
    assert len(taken) == 6


def test_batches_do_not_depend_on_the_layers() -> None:
    adapter = _numbers()
    model: Any = adapter.model
    shapes = []
    for layers in ([0], [2], [0, 1, 2]):
        model.batches.clear()
        list(adapter.activations(layers, EXAMPLES, batch_size=2))
        shapes.append(list(model.batches))
    assert shapes == [[2, 2]] * 3


def test_layers_come_as_asked_whatever_their_order() -> None:
    batch = next(_numbers().activations([2, 0, 2], EXAMPLES, batch_size=1))
    assert sorted(batch.by_layer) == [0, 2]
    assert len(batch) == 3


def test_a_batch_without_measured_tokens_is_left_out() -> None:
    batches = list(_numbers().activations([0], [[0], [1], [0]], batch_size=1))
    assert [batch.example.tolist() for batch in batches] == [[1]]


def test_previous_batch_is_free_while_the_next_is_computed() -> None:
    alive: list[int] = []
    references: list[weakref.ref[Tensor]] = []

    class Watched(Numbers):
        def inputs(self, items: list[Any]) -> Inputs:
            gc.collect()
            alive.append(sum(ref() is not None for ref in references))
            return super().inputs(items)

    stream = Watched(make_card()).activations([0], [[1], [2], [3]], batch_size=1)
    while (batch := next(stream, None)) is not None:
        references.append(weakref.ref(batch.by_layer[0]))
        del batch
    assert alive == [0, 0, 0]


def test_no_graph_is_kept_and_the_model_is_in_eval_mode() -> None:
    class Learning(Numbers):
        class Model(Numbers.Model):
            def forward(self, ids: Tensor) -> Tensor:
                scale = torch.ones(1, requires_grad=True)
                return self.h(ids[..., None].expand(-1, -1, 48) * scale)

    adapter = Learning(make_card(context=4))
    batch = next(adapter.activations([0], EXAMPLES, batch_size=1))
    assert not batch.by_layer[0].requires_grad
    assert not batch.by_layer[0].is_inference()
    assert not adapter.model.training


def test_unknown_layer_is_refused_before_anything_runs() -> None:
    with pytest.raises(UsageError) as failure:
        _numbers().activations([0, 3], EXAMPLES, batch_size=1)
    assert str(failure.value) == "model 'tiny' has no layer 3. Its layers are 0 to 2."


@pytest.mark.parametrize(
    ("layers", "options"),
    [([], {"batch_size": 1}), ([0], {"batch_size": 0}), ([0], {"batch_size": 1, "max_tokens": -1})],
)
def test_senseless_arguments_are_refused_at_once(layers: list[int], options: dict) -> None:
    with pytest.raises(ValueError, match=r"no layers|batch_size|max_tokens"):
        _numbers().activations(layers, EXAMPLES, **options)


def test_bad_example_is_named_by_its_number() -> None:
    with pytest.raises(BadCorpus) as failure:
        list(_numbers().activations([0], [[1], "text"], batch_size=1))
    assert str(failure.value) == "model 'tiny', example 1: a list is needed. Give lists."


def test_wrong_width_names_both() -> None:
    adapter = _numbers(tap={"blocks": "h.{i}", "layers": 3, "width": 64})
    with pytest.raises(BadWeights) as failure:
        list(adapter.activations([1], EXAMPLES, batch_size=1))
    assert str(failure.value) == (
        "model 'tiny': wrong architecture: block 1 is 48 wide, the card says 64. "
        "Use the checkpoint the card names, or correct tap.width."
    )


def test_wrong_number_of_tokens_names_both() -> None:
    class TooLong(Numbers):
        def inputs(self, items: list[Any]) -> Inputs:
            batch = super().inputs(items)
            longer = torch.ones((len(items), 9), dtype=torch.bool)
            return Inputs(batch.arguments, longer, ~longer)

    with pytest.raises(BadActivations, match=r"block 0 gives \(1, 4\) tokens where \(1, 9\) were"):
        list(TooLong(make_card(context=4)).activations([0], EXAMPLES, batch_size=1))


def test_models_that_take_the_padding_out_are_read_in_their_own_order() -> None:
    class Unpadding(Numbers):
        class Model(Numbers.Model):
            def forward(self, ids: Tensor) -> Tensor:
                return self.h(ids[ids != -1000][:, None].expand(-1, 48).float())

    padded = _flat(_numbers().activations([0, 1], EXAMPLES, batch_size=3))
    unpadded = Unpadding(make_card(context=4)).activations([0, 1], EXAMPLES, batch_size=3)
    assert _flat(unpadded) == padded


@pytest.mark.parametrize("tokens", [None, 0, 1, 2, 5, 9, 11])
@pytest.mark.parametrize("batch_size", [2, 3, 100])
def test_passes_of_windows_alike_give_the_same_tokens(batch_size: int, tokens: int | None) -> None:
    class Known(Numbers):
        def inputs(self, items: list[Any]) -> Inputs:
            batch = super().inputs(items)
            return replace(batch, unknown=batch.arguments["ids"] == 7)

    examples = [[1, 2, 3, 4], [7], [], [5, 6], [0, 7], [8], [9, 10, 11, 12, 13, 7], [0]]
    found = {}
    for cost in (math.inf, 0.0):
        adapter = Known(make_card(context=4))
        adapter.pass_cost = cost
        batches = list(
            adapter.activations([0, 1], examples, batch_size=batch_size, max_tokens=tokens)
        )
        unknown = [batch.unknown.tolist() for batch in batches if batch.unknown is not None]
        ends = [batch.end for batch in batches]
        found[cost] = (_flat(batches), unknown, ends)
        if tokens is None:
            assert (len(adapter.model.batches) > len(batches)) == (cost == 0)
    assert found[0.0] == found[math.inf]


@pytest.mark.parametrize(
    ("config", "passes"),
    [
        ({"attention_window": [32]}, 1),
        ({"local_attn_chunk_length": 64}, 1),
        ({"attention_type": "block_sparse"}, 1),
        ({"attention_type": "original_full"}, 2),
        ({}, 2),
    ],
)
def test_models_that_depend_on_the_length_of_a_pass_have_one_for_each_batch(
    config: dict[str, Any], passes: int
) -> None:
    class Sized(Numbers):
        def load(self) -> nn.Module:
            model = super().load()
            model.config = SimpleNamespace(**config)
            return model

    adapter = Sized(make_card(context=512))
    list(adapter.activations([0], [[1] * 512, [2], [3], [4]], batch_size=4))
    assert len(adapter.model.batches) == passes


def test_hooks_are_off_between_batches() -> None:
    adapter = _numbers()
    stream = adapter.activations([0, 1], EXAMPLES, batch_size=1)
    next(stream)
    assert sum(len(block._forward_hooks) for block in adapter.blocks) == 0


@pytest.mark.parametrize("name", ["activations", "model", "run", "__init__"])
def test_sealed_methods_cannot_be_overridden(name: str) -> None:
    with pytest.raises(TypeError, match=f"^Loose overrides {name}, which is sealed in Adapter$"):
        type("Loose", (Numbers,), {name: lambda self: None})


def test_model_is_loaded_once_and_only_when_needed() -> None:
    class Counting(Numbers):
        loads = 0

        def load(self) -> nn.Module:
            Counting.loads += 1
            return super().load()

    adapter = Counting(make_card(context=4))
    stream = adapter.activations([0], EXAMPLES, batch_size=1)
    assert Counting.loads == 0
    list(stream)
    list(adapter.activations([1], EXAMPLES, batch_size=1))
    assert Counting.loads == 1
