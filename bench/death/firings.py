"""When each feature fired in training: clocks on every feature, exact to the step.

Steps count from 0; a step is one batch of tokens. Let N be the tokens of the frozen sample that
death is defined on, and W = ceil(N / batch) the whole steps that N tokens take.

- *silent* after a step: fired on none of the last N training tokens, which is in none of the last
  W steps.
- *revival*: the step at which a silence of W steps or more ends, or death at birth, which is a
  silence of N tokens before the first step.

So in a run of fewer than W steps nothing that has fired can be silent again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from bench.compute.stacks import stacked

NEVER = -1

# Longer than any run: without a stated silence no feature is ever silent.
_ENDLESS = 2**62


def silence_steps(tokens: int, batch: int) -> int:
    """W: whole steps of `batch` tokens that together hold `tokens` tokens at least."""
    return -(-tokens // batch)


class FiringClock:
    """Clocks of n features: a few int64 [n] on one device, updated without waiting for it.

    Args:
        silence: W, the steps without firing after which a feature is silent; None for no such.
        born_dead: bool [n], features that fired on none of the frozen sample's N tokens at birth.

    Attributes:
        first_fired: step of the first firing; -1 where there was none.
        last_fired: step of the last firing. Below 0 where there was none in training: -1, or
            -1 - W for a feature born dead, which is silent already when training begins.
        last_revived: step of the last revival; -1 where there was none.
        revivals: number of revivals.

    Raises:
        ValueError: `silence` is less than 1.
    """

    def __init__(
        self,
        n: int,
        *,
        silence: int | None = None,
        born_dead: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if silence is not None and silence < 1:
            raise ValueError(f"a silence takes at least one step, not {silence}")
        self.silence = _ENDLESS if silence is None else silence
        self.first_fired = torch.full((n,), NEVER, dtype=torch.int64, device=device)
        self.last_fired = self.first_fired.clone()
        self.last_revived = self.first_fired.clone()
        self.revivals = torch.zeros_like(self.first_fired)
        if born_dead is not None:
            self.last_fired.masked_fill_(born_dead.to(device), NEVER - self.silence)

    @classmethod
    def stacked(cls, clocks: Sequence[FiringClock]) -> FiringClock:
        """The clocks of m dictionaries of one size as one of [m, n], whose rows they become.

        Raises ValueError where their silences differ.
        """
        if len({clock.silence for clock in clocks}) > 1:
            raise ValueError("the clocks' silences differ")
        joined = cls(0, silence=clocks[0].silence)
        for name in joined.tensors():
            setattr(joined, name, stacked([getattr(clock, name) for clock in clocks]))
        return joined

    def tick(self, fired: Tensor, step: int | Tensor) -> None:
        """Takes in which features, bool [n], fired in step `step`, the one after the last.

        step: a number, or int64 [] on the clocks' device.
        """
        revived = (step - 1 - self.last_fired >= self.silence).logical_and_(fired)
        _note(self.last_revived, revived, step)
        self.revivals.add_(revived)
        _note(self.last_fired, fired, step)
        _note(self.first_fired, fired & (self.first_fired < 0), step)

    def silent(self, steps: int) -> Tensor:
        """bool [n], who is silent after `steps` steps, all that were taken in so far."""
        return steps - 1 - self.last_fired >= self.silence

    @property
    def fired(self) -> Tensor:
        """bool [n], who has fired in training."""
        return self.first_fired >= 0

    def tensors(self) -> dict[str, Tensor]:
        """The clocks by name, not copied."""
        return {
            "first_fired": self.first_fired,
            "last_fired": self.last_fired,
            "last_revived": self.last_revived,
            "revivals": self.revivals,
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from `tensors()` of a clock of the same features."""
        for name, clock in self.tensors().items():
            clock.copy_(tensors[name])


def _note(clock: Tensor, where: Tensor, step: int | Tensor) -> None:
    """Sets a clock [n] to `step` where bool [n] is true."""
    # Not masked_fill_: a CUDA device's asks the host for the value of a tensor.
    clock.copy_(torch.where(where, step, clock))
