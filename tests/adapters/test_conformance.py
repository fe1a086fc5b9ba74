"""The conformance checks find what is wrong: each faulty adapter fails the check it should."""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from adapters import Adapter, CheckResult, Inputs, check, open_adapter
from adapters.card_checks import disagreements
from adapters.language import CausalLanguage, MaskedLanguage
from tests.adapters.tiny import FAMILIES, SENTENCES, make_card
from zoo.cards import Card

Make = Callable[..., dict[str, CheckResult]]


@pytest.fixture
def checked(checkpoint: Callable[[str], Path]) -> Make:
    """Checks an adapter class on a tiny checkpoint; the failures by name."""

    def run(
        adapter: type[Adapter], family: str = "gpt2", card: Card | None = None
    ) -> dict[str, CheckResult]:
        chosen, folder = card or FAMILIES[family].card, checkpoint(family)
        results = check(lambda: adapter(chosen, weights=folder), SENTENCES)
        return {result.name: result for result in results if not result.ok}

    return run


def test_faultless_adapters_pass(checked: Make) -> None:
    assert checked(CausalLanguage) == {}
    assert checked(MaskedLanguage, "bert") == {}


def test_wrong_stream(checked: Make) -> None:
    tap = {"blocks": "h.{i}.mlp", "layers": 3, "width": 48}
    failures = checked(CausalLanguage, card=make_card(tap=tap))
    assert set(failures) == {"residual stream"}
    assert failures["residual stream"].detail == ("block 1 does not take what is tapped at block 0")


def test_model_that_changes_the_stream_between_blocks(checked: Make) -> None:
    class Changing(CausalLanguage):
        def load(self) -> nn.Module:
            model: Any = super().load()
            model.h[1].register_forward_pre_hook(lambda block, args: (args[0] * 1.5, *args[1:]))
            return model

    assert set(checked(Changing)) == {"residual stream"}


def test_padding_that_is_attended_to(checked: Make) -> None:
    class Unmasked(MaskedLanguage):
        def inputs(self, items: list[Any]) -> Inputs:
            batch = super().inputs(items)
            batch.arguments["attention_mask"].fill_(1)
            return batch

    failures = checked(Unmasked, "bert")
    assert set(failures) == {"padding", "batch size"}
    assert "relative error" in failures["padding"].detail


def test_padding_that_reaches_the_consumer(checked: Make) -> None:
    class Leaking(CausalLanguage):
        def inputs(self, items: list[Any]) -> Inputs:
            batch = super().inputs(items)
            return Inputs(batch.arguments, torch.ones_like(batch.valid), batch.special)

    failures = checked(Leaking)
    assert {"padding", "token rule"} <= set(failures)
    assert failures["padding"].detail.startswith("other tokens: ")


def test_special_tokens_that_are_not_marked(checked: Make) -> None:
    """Which tokens are special only the adapter knows; that the rule is applied is checked."""

    class Misshapen(MaskedLanguage):
        def inputs(self, items: list[Any]) -> Inputs:
            batch = super().inputs(items)
            return Inputs(batch.arguments, batch.valid, batch.special[:, :1])

    failures = checked(Misshapen, "bert")
    assert failures["token rule"].detail == "valid and special must be boolean and of one shape"


def test_hooks_that_stay(checked: Make) -> None:
    class Leaving(CausalLanguage):
        def inputs(self, items: list[Any]) -> Inputs:
            self.blocks[0].register_forward_hook(lambda block, args, output: None)
            return super().inputs(items)

    failures = checked(Leaving)
    assert set(failures) == {"hooks gone"}
    assert "hooks are left on the model after the stream ended" in failures["hooks gone"].detail


def test_state_that_is_carried_along(checked: Make) -> None:
    class Drifting(CausalLanguage):
        def load(self) -> nn.Module:
            model: Any = super().load()
            count = itertools.count(1)
            model.wte.register_forward_hook(lambda part, args, out: out * (1 + 0.01 * next(count)))
            return model

    failures = checked(Drifting)
    assert {"determinism", "early stop", "padding", "batch size", "exact cut"} <= set(failures)
    assert failures["determinism"].detail == "layer 0 is different again"


def test_weights_that_are_drawn_anew_each_time(checked: Make) -> None:
    class Random(CausalLanguage):
        def load(self) -> nn.Module:
            model: Any = super().load()
            nn.init.normal_(model.h[0].mlp.c_fc.weight)
            return model

    failures = checked(Random)
    assert set(failures) == {"determinism"}
    assert failures["determinism"].detail == "layer 0 is different in a model loaded anew"


def test_inputs_that_depend_on_the_batch(checked: Make) -> None:
    class Mixing(CausalLanguage):
        def inputs(self, items: list[Any]) -> Inputs:
            batch = super().inputs(items)
            batch.arguments["input_ids"][:, 0] = len(items)
            return batch

    assert {"padding", "batch size"} <= set(checked(Mixing))


def test_constant_and_non_finite_activations(checked: Make) -> None:
    class Constant(CausalLanguage):
        value = 0.0

        def load(self) -> nn.Module:
            model: Any = super().load()
            model.h[2].register_forward_hook(
                lambda block, args, out: (torch.full_like(_first(out), self.value),)
            )
            return model

    class Infinite(Constant):
        value = float("inf")

    assert checked(Constant)["shapes"].detail == "layer 2 is constant"
    assert checked(Infinite)["shapes"].detail == "layer 2 has values that are not finite"


def _first(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def test_what_cannot_be_loaded_is_one_failed_result(checkpoint: Callable[[str], Path]) -> None:
    folder = checkpoint("bert")
    [result] = check(lambda: open_adapter(make_card(), weights=folder), SENTENCES)
    assert (result.name, result.ok) == ("load", False)
    assert "wrong architecture" in result.detail


def test_examples_without_tokens_are_not_a_pass(checkpoint: Callable[[str], Path]) -> None:
    folder = checkpoint("gpt2")
    [result] = check(lambda: open_adapter(make_card(), weights=folder), ["", ""])
    assert not result.ok
    assert result.detail == "the examples give no tokens to check with"


@pytest.mark.parametrize(
    ("family", "changes", "says"),
    [
        (
            "gpt-neox",
            {"adapter": "hf-masked"},
            "it is GPTNeoXForCausalLM, not what hf-masked is for",
        ),
        ("gpt-neox", {"parameters": 11111}, "parameters, the card says 11,111"),
        ("bert", {"adapter": "hf-causal"}, "it is BertForMaskedLM, not what hf-causal is for"),
    ],
)
def test_a_card_that_says_what_the_checkpoint_is_not(
    family: str, changes: dict[str, Any], says: str, checkpoint: Callable[[str], Path]
) -> None:
    card = FAMILIES[family].card.model_copy(update=changes)
    results = check(lambda: open_adapter(card, weights=checkpoint(family)), SENTENCES)
    (failed,) = [result for result in results if not result.ok]
    assert failed.name == "card"
    assert re.search(says, failed.detail), failed.detail


def test_parameters_may_be_counted_with_the_head_that_is_stored(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(checkpoint("gpt2"), tmp_path / "with head"))
    weights = load_file(folder / "model.safetensors")
    loaded = sum(tensor.numel() for tensor in weights.values())
    head = torch.zeros(200, 48)
    save_file(weights | {"lm_head.weight": head}, folder / "model.safetensors", {"format": "pt"})
    for said, fine in ((loaded, True), (loaded + head.numel(), True), (2 * loaded, False)):
        card = FAMILIES["gpt2"].card.model_copy(update={"parameters": said})
        found = disagreements(open_adapter(card, weights=folder))
        assert (found == []) is fine, said
