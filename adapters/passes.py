"""A batch of windows as forward passes with little padding, and its tokens in their order again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from adapters.tokens import measured
from adapters.transfer import to_device
from zoo.cards import TokenRule
from zoo.padding import grouped

# What configurations have of models whose passes are not the same at every length: Longformer and
# LED pad to their window inside, Reformer to its chunk; BigBird turns its sparse attention off, for
# good, at a pass that is too short for it.
_OF_ONE_LENGTH = ("attention_window", "local_attn_chunk_length")


def depends_on_length(model: nn.Module) -> bool:
    """Whether what a model gives for a window depends on how long the batch's longest one is."""
    config = getattr(model, "config", None)
    sparse = getattr(config, "attention_type", None) == "block_sparse"
    return sparse or any(getattr(config, name, None) for name in _OF_ONE_LENGTH)


@dataclass(frozen=True)
class Inputs:
    """One batch as the model takes it, on the CPU.

    arguments: keyword arguments of the model's forward pass.
    valid: BoolTensor [batch, length], False for padding.
    special: BoolTensor [batch, length], True for BOS, CLS, EOS, SEP and registers.
    unknown: BoolTensor [batch, length], True where the model is shown nothing that it knows: its
        unknown token, N in DNA, X in a protein. None where there is no such thing.

    `length` is that of the tapped stream (bins, not bases, for a trunk that pools).
    """

    arguments: dict[str, Any]
    valid: Tensor
    special: Tensor
    unknown: Tensor | None = None


@dataclass(frozen=True)
class Pass:
    """Windows of a batch that go through the model together, and the tokens measured of them.

    inputs: what the model takes.
    row, position: LongTensor [tokens], where each token is in it.
    window: LongTensor [tokens], which of the batch's windows it is of.
    place: LongTensor [tokens], the token's number in the batch.
    """

    inputs: Inputs
    row: Tensor
    position: Tensor
    window: Tensor
    place: Tensor

    def __len__(self) -> int:
        return len(self.row)

    def first(self, tokens: int | None) -> Pass:
        """With the tokens alone that are among the first so many of the batch."""
        if tokens is None:
            return self
        kept = self.place < tokens
        parts = ("row", "position", "window", "place")
        return replace(self, **{name: getattr(self, name)[kept] for name in parts})


def passes_of(
    items: list[Any],
    inputs: Callable[[list[Any]], Inputs],
    rule: TokenRule,
    tokens: int | None,
    cost: float,
) -> list[Pass]:
    """The passes that a batch takes; those without a token left out, but where none has one.

    Args:
        items: the batch's windows. Those that are lists or strings are as long as they are; others
            go together.
        inputs: makes the model's input of some of them.
        rule: which tokens are measured.
        tokens: of these the first so many; None for all.
        cost: positions of padding that one more pass is worth (`zoo.padding`).
    """
    groups = [list(range(len(items)))]
    if all(isinstance(item, list | str) for item in items):
        groups = grouped([len(item) for item in items], cost)
    found, before = [], 0
    for group in groups:
        batch = inputs([items[number] for number in group])
        row, position = measured(batch.valid, batch.special, rule).nonzero(as_tuple=True)
        place = torch.arange(before, before + len(row))
        found.append(Pass(batch, row, position, torch.tensor(group)[row], place))
        before += len(row)
    kept = [each.first(tokens) for each in _placed(found)]
    return [each for each in kept if len(each)] or kept[:1]


def _placed(passes: list[Pass]) -> list[Pass]:
    """The tokens' places in the order of the windows."""
    if len(passes) == 1:
        return passes
    # A stable sort: a window's tokens are in order already.
    order = torch.cat([each.window for each in passes]).argsort(stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    pieces = place.split([len(each) for each in passes])
    return [replace(each, place=piece) for each, piece in zip(passes, pieces, strict=True)]


def in_places(pieces: Sequence[Tensor], passes: Sequence[Pass]) -> Tensor:
    """What there is for each token of each pass, [tokens, ...], in the batch's order."""
    if len(pieces) == 1:
        return pieces[0]
    first = pieces[0]
    merged = first.new_empty((sum(map(len, pieces)), *first.shape[1:]))
    for piece, each in zip(pieces, passes, strict=True):
        merged.index_copy_(0, to_device(each.place, merged.device), piece)
    return merged
