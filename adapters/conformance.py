"""Does an adapter keep the contract? The checks of `bench check MODEL`, as pure functions.

Each check measures the adapter through its public iterator and compares with something that does
not go through it: plain hooks on a whole forward pass, or the token rule written out in loops.
"""

from __future__ import annotations

import functools
import itertools
import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adapters.base import ActivationBatch, Adapter
from adapters.card_checks import disagreements
from adapters.passes import Inputs
from adapters.registry import open_adapter
from adapters.taps import pick
from adapters.tokens import check_known
from adapters.windows import length_of
from zoo.cards import Card
from zoo.errors import BadCorpus, BenchError


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check. `detail` says what was compared, or what is wrong."""

    name: str
    ok: bool
    detail: str


class _Failed(Exception):
    """A check that does not hold."""


def check(
    adapter: Card | Callable[[], Adapter],
    examples: Iterable[Any],
    *,
    count: int = 3,
    tolerance: float | None = None,
) -> list[CheckResult]:
    """Runs every check; the first failure to load ends them.

    Args:
        adapter: a card, or a function that makes a fresh adapter each time.
        examples: `count` are taken; strings and lists are also cut to different lengths.
        tolerance: largest relative error per token where the batch's shape differs (kernels may
            then sum in another order). By default 1e-4 in float32 on the CPU, 5e-3 on a GPU, whose
            convolutions round to TF32, and 0.05 in half precision.
    """
    make = functools.partial(open_adapter, adapter) if isinstance(adapter, Card) else adapter
    try:
        subject = _Subject.of(make, list(itertools.islice(examples, count)), tolerance)
    except BenchError as error:
        return [CheckResult("load", False, str(error))]
    blocks = f"{len(subject.adapter.blocks)} blocks of {type(subject.adapter.model).__name__}"
    return [CheckResult("load", True, blocks), *(_run(name, f, subject) for name, f in _CHECKS)]


def _run(name: str, function: Callable[[_Subject], str], subject: _Subject) -> CheckResult:
    try:
        return CheckResult(name, True, function(subject))
    except (_Failed, BenchError) as failure:
        return CheckResult(name, False, str(failure))
    except Exception as error:  # what a faulty adapter raises is the finding
        return CheckResult(name, False, f"{type(error).__name__}: {error}")


@dataclass(frozen=True)
class _Subject:
    """What is checked: a loaded adapter, a way to load another, and examples."""

    make: Callable[[], Adapter]
    adapter: Adapter
    examples: list[Any]
    tolerance: float

    @classmethod
    def of(
        cls, make: Callable[[], Adapter], examples: list[Any], tolerance: float | None
    ) -> _Subject:
        adapter = make()
        _ = adapter.model
        if tolerance is None:
            tolerance = _tolerance(adapter)
        varied = [_shortened(adapter, example, i) for i, example in enumerate(examples)]
        if not any(adapter.windows(example) for example in varied):
            raise BadCorpus("the examples give no tokens to check with")
        return cls(make, adapter, varied, tolerance)

    @property
    def layers(self) -> list[int]:
        return list(self.adapter.card.layers)

    def stream(
        self,
        layers: Sequence[int] | None = None,
        examples: Iterable[Any] | None = None,
        *,
        batch_size: int = 2,
        max_tokens: int | None = None,
    ) -> ActivationBatch:
        """All activations in one batch."""
        batches = self.adapter.activations(
            self.layers if layers is None else layers,
            self.examples if examples is None else examples,
            batch_size=batch_size,
            max_tokens=max_tokens,
        )
        return _joined(list(batches))

    def batch(self) -> Inputs:
        """The first windows of all examples as one batch, of one length where it must be."""
        firsts = [windows[0] for e in self.examples if (windows := self.adapter.windows(e))]
        if self.adapter.equal_lengths:
            firsts = [window for window in firsts if length_of(window) == length_of(firsts[0])]
        return self.adapter.inputs(firsts)


def _shortened(adapter: Adapter, example: Any, number: int) -> Any:
    """A string or list cut to a few windows, every second one to a part of a window.

    So that checking is quick and there is padding to check; left as it is where the adapter does
    not take it so short.
    """
    if not isinstance(example, str | list | array):
        return example
    for length in [adapter.card.context // 2] * (number % 2) + [4 * adapter.card.context]:
        try:
            if adapter.windows(example[:length]):
                return example[:length]
        except BadCorpus:
            continue
    return example


def _joined(batches: list[ActivationBatch]) -> ActivationBatch:
    if not batches:
        raise _Failed("the token rule leaves no token of the examples")
    layers = batches[0].by_layer
    return ActivationBatch(
        {layer: torch.cat([batch.by_layer[layer] for batch in batches]) for layer in layers},
        torch.cat([batch.example for batch in batches]),
        torch.cat([batch.position for batch in batches]),
    )


# -------------------------------------------------------------------------------------- checks


def _card(subject: _Subject) -> str:
    """The card's task, layers and number of parameters are the checkpoint's."""
    found = disagreements(subject.adapter)
    if found:
        raise _Failed("; ".join(found))
    said = subject.adapter.card.parameters
    return f"{said:,} parameters, as the card says" if said else "the card counts no parameters"


def _shapes(subject: _Subject) -> str:
    """Every batch has float32 rows of the card's width for each layer, finite and not constant."""
    batch = subject.stream()
    width = subject.adapter.card.tap.width
    for layer in subject.layers:
        x = batch.by_layer[layer]
        if x.shape != (len(batch), width) or x.dtype != torch.float32:
            raise _Failed(f"layer {layer} gives {tuple(x.shape)} {x.dtype}")
        if not bool(x.isfinite().all()):
            raise _Failed(f"layer {layer} has values that are not finite")
        if len(x) > 1 and bool((x == x[0]).all()):
            raise _Failed(f"layer {layer} is constant")
    if bool((batch.example.diff() < 0).any()):
        raise _Failed("examples are not in order")
    return f"{len(batch)} tokens x {width} at {len(subject.layers)} layers"


def _residual_stream(subject: _Subject) -> str:
    """What is tapped at block i is, bit for bit, what block i + 1 takes as input."""
    blocks, output = subject.adapter.blocks, subject.adapter.card.tap.output
    given: dict[int, Tensor] = {}
    taken: dict[int, list[Tensor]] = {}

    def before(i: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
            tensors = [t.clone() for t in (*args, *kwargs.values()) if isinstance(t, Tensor)]
            taken[i] = [sum(tensors[1:], tensors[0])] if output == "sum" and tensors else tensors

        return hook

    def after(i: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, result: Any) -> None:
            given[i] = pick(result, output).clone()

        return hook

    with _hooks() as handles:
        for i, block in enumerate(blocks):
            handles.append(block.register_forward_pre_hook(before(i), with_kwargs=True))
            handles.append(block.register_forward_hook(after(i)))
        _whole_pass(subject.adapter, subject.batch(), given)
    for i in range(1, len(blocks)):
        if not taken[i]:
            return "the blocks take no tensors: nothing to compare"
        stream = given[i - 1]
        if not any(t.shape == stream.shape and torch.equal(t, stream) for t in taken[i]):
            raise _Failed(f"block {i} does not take what is tapped at block {i - 1}")
    if len(blocks) == 1:
        return "one block: nothing to compare"
    return f"{len(blocks) - 1} of {len(blocks) - 1} blocks take the tapped stream, bit for bit"


def _early_stop(subject: _Subject) -> str:
    """Each layer alone, and all together, give the bits of a whole forward pass."""
    adapter, inputs = subject.adapter, subject.batch()
    full: dict[int, Tensor] = {}

    def hook(i: int) -> Callable[..., None]:
        def keep(module: nn.Module, args: Any, result: Any) -> None:
            full[i] = adapter.stream(result).clone()

        return keep

    with _hooks() as handles:
        for i, block in enumerate(adapter.blocks):
            handles.append(block.register_forward_hook(hook(i)))
        note = _whole_pass(adapter, inputs, full)
    row, position = inputs.valid.nonzero(as_tuple=True)
    together = adapter.run(subject.layers, inputs, row, position)
    for layer in subject.layers:
        alone = adapter.run([layer], inputs, row, position)[layer]
        stream = full[layer]
        whole = stream if stream.ndim == 2 else stream[row, position]
        for found, how in ((alone, "alone"), (together[layer], "beside the others")):
            if not torch.equal(found, whole.float()):
                raise _Failed(f"layer {layer} {how} differs from a whole forward pass")
    return f"{len(subject.layers)} layers equal a whole forward pass{note}"


def _padding(subject: _Subject) -> str:
    """An example in a padded batch gives what it gives alone, and so in one with less padding."""
    lengths = {int(row.sum()) for row in subject.batch().valid}
    adapter, alone = subject.adapter, subject.stream(batch_size=1)
    errors, usual = [], adapter.pass_cost
    try:
        for cost in (math.inf, 0.0):
            adapter.pass_cost = cost
            together = subject.stream(batch_size=1024)
            errors.append(_compare(alone, together, subject.tolerance))
    finally:
        adapter.pass_cost = usual
    which = "all of one length" if len(lengths) == 1 else f"{min(lengths)} to {max(lengths)} long"
    return f"windows {which}; largest relative error {max(errors):.1e}"


def _batch_size(subject: _Subject) -> str:
    """The number of windows per forward pass changes nothing."""
    examples = [subject.examples[0]] * 4
    alone = subject.stream(examples=examples, batch_size=1)
    errors = [
        _compare(alone, subject.stream(examples=examples, batch_size=size), subject.tolerance)
        for size in (2, 3)
    ]
    return f"1, 2 and 3 windows at a time; largest relative error {max(errors):.1e}"


def _token_rule(subject: _Subject) -> str:
    """The tokens given are those that the card's rule means, padding never among them."""
    adapter, rule = subject.adapter, subject.adapter.card.tokens
    expected: list[tuple[int, int]] = []
    for number, example in enumerate(subject.examples):
        for item in adapter.windows(example):
            inputs = adapter.inputs([item])
            if inputs.valid.dtype != torch.bool or inputs.special.shape != inputs.valid.shape:
                raise _Failed("valid and special must be boolean and of one shape")
            left = [
                position
                for position in range(inputs.valid.shape[1])
                if inputs.valid[0, position]
                and (
                    rule.special == "keep"
                    or inputs.special[0, position] == (rule.special == "only")
                )
            ]
            last = len(left) - rule.skip_last
            expected += [(number, position) for position in left[rule.skip_first : last]]
    batch = subject.stream(batch_size=1024)
    found = list(zip(batch.example.tolist(), batch.position.tolist(), strict=True))
    if found != expected:
        raise _Failed(f"{len(found)} tokens given, {len(expected)} expected, or in other places")
    return f"{len(found)} tokens: special ones {rule.special}, as the card says"


def _exact_cut(subject: _Subject) -> str:
    """`max_tokens` gives exactly that many, the first ones."""
    whole = subject.stream()
    tokens = max(1, len(whole) // 2)
    part = subject.stream(max_tokens=tokens)
    if len(part) != tokens:
        raise _Failed(f"{len(part)} tokens given, {tokens} asked for")
    for layer, x in part.by_layer.items():
        if not torch.equal(x, whole.by_layer[layer][:tokens]):
            raise _Failed(f"layer {layer}: they are not the first ones")
    return f"{tokens} of {len(whole)} tokens"


def _known(subject: _Subject) -> str:
    """The model knows what it is shown: the tokens are no filler, and of its alphabet."""
    unknown, tokens = None, 0
    for batch in subject.adapter.activations(subject.layers[:1], subject.examples, batch_size=2):
        tokens += len(batch)
        if batch.unknown is not None:
            unknown = (unknown or 0) + int(batch.unknown.sum())
    if unknown is None:
        return "no token can be unknown"
    share = check_known(unknown, tokens, "these examples")
    return f"{unknown} of {tokens} tokens ({share:.1%}) are unknown"


def _hooks_gone(subject: _Subject) -> str:
    """No hook is left when the stream ends, is left early, or fails."""
    before = _count_hooks(subject.adapter.model)
    subject.stream()
    _expect_hooks(subject, before, "the stream ended")
    stream = subject.adapter.activations(subject.layers, subject.examples, batch_size=1)
    next(stream)
    _expect_hooks(subject, before, "one batch was taken")
    del stream
    _expect_hooks(subject, before, "the consumer left early")

    def failing() -> Iterator[Any]:
        yield subject.examples[0]
        raise BadCorpus("the corpus ends in an error")

    try:
        subject.stream(examples=failing(), batch_size=1)
    except BadCorpus:
        _expect_hooks(subject, before, "the corpus failed")
    else:
        raise _Failed("an error of the corpus was swallowed")
    return "after the end, an early leave and an error"


def _determinism(subject: _Subject) -> str:
    """The same examples give the same bits, again and in a model loaded anew."""
    first = subject.stream()
    fresh = _Subject(subject.make, subject.make(), subject.examples, subject.tolerance)
    for other, when in ((subject.stream(), "again"), (fresh.stream(), "in a model loaded anew")):
        for layer, x in first.by_layer.items():
            if not torch.equal(x, other.by_layer[layer]):
                raise _Failed(f"layer {layer} is different {when}")
    return "equal again, and in a model loaded anew"


_CHECKS: tuple[tuple[str, Callable[[_Subject], str]], ...] = (
    ("card", _card),
    ("shapes", _shapes),
    ("residual stream", _residual_stream),
    ("early stop", _early_stop),
    ("padding", _padding),
    ("batch size", _batch_size),
    ("token rule", _token_rule),
    ("exact cut", _exact_cut),
    ("known tokens", _known),
    ("hooks gone", _hooks_gone),
    ("determinism", _determinism),
)


# ------------------------------------------------------------------------------------- helpers


@contextmanager
def _hooks() -> Iterator[list[Any]]:
    """Collects hook handles and removes them at the end."""
    handles: list[Any] = []
    try:
        yield handles
    finally:
        for handle in handles:
            handle.remove()


def _whole_pass(adapter: Adapter, inputs: Inputs, given: dict[int, Tensor]) -> str:
    """Runs the model to its end. What it raises after the last block is reported, not raised.

    Parts after the blocks may ask for more than a measurement gives them (a crop to a length).
    """
    try:
        with torch.no_grad():
            adapter.model(**adapter.placed(inputs))
    except Exception as error:
        if len(given) < len(adapter.blocks):
            raise
        return f" (after the blocks it raises {type(error).__name__}: {error})"
    return ""


def _compare(one: ActivationBatch, other: ActivationBatch, tolerance: float) -> float:
    """The largest relative error of a token. Raises `_Failed` above the tolerance."""
    if not (torch.equal(one.example, other.example) and torch.equal(one.position, other.position)):
        raise _Failed(f"other tokens: {len(one)} and {len(other)}")
    worst = 0.0
    for layer, x in one.by_layer.items():
        scale = x.norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
        error = float(((x - other.by_layer[layer]).norm(dim=1) / scale).max())
        if not error <= tolerance:
            raise _Failed(f"layer {layer}: relative error {error:.1e}, above {tolerance:.0e}")
        worst = max(worst, error)
    return worst


def _tolerance(adapter: Adapter) -> float:
    if adapter.dtype != torch.float32:
        return 0.05
    return 1e-4 if adapter.device.type == "cpu" else 5e-3


def _count_hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def _expect_hooks(subject: _Subject, before: int, when: str) -> None:
    now = _count_hooks(subject.adapter.model)
    if now != before:
        raise _Failed(f"{now - before} hooks are left on the model after {when}")
