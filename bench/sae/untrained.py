"""What sampling alone shows: the dictionary as it was born, followed on the training tokens.

A feature that is dead on the frozen sample may be a rare one that the sample missed. So some fire
in training whatever training does. How many is read from the same dictionary without training, on
the very batches that the trained one sees, with the same clocks.

It is followed on the first 4 N training tokens (N are the tokens of the frozen sample), or on all
if they are fewer, which costs about a third of a step each: N tokens say who is awake by chance,
and what 4 N tokens show carries over to more by extrapolation (`bench.death.extrapolation`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bench.compute.matmul import fast_matmul
from bench.death.firings import FiringClock
from bench.sae.model import SAE

# Times the tokens of the frozen sample.
FOLLOWED = 4


class Untrained:
    """An SAE that is not trained, followed over the first training steps.

    Args:
        sae: as training begins with it; what is kept of it is one matrix.
        born_dead: bool [n], on the frozen sample.
        silence: steps that as many tokens as the frozen sample's take.
        steps: of the whole training.

    Attributes:
        clock: as the trained SAE's.
        counts, first_half: int64 [n], tokens on which each feature fired, and of these those in
            the first half of `steps`.
        steps: over which it is followed. looked: over which it was so far.
    """

    def __init__(self, sae: SAE, born_dead: Tensor, *, silence: int, steps: int) -> None:
        device = sae.b.device
        # Encoder and decoder are equal at birth; only the encoder is read.
        self._sae: SAE | None = replace(sae, W_dec=sae.W_enc)
        self.clock = FiringClock(sae.n, silence=silence, born_dead=born_dead, device=device)
        self.counts = torch.zeros(sae.n, dtype=torch.int64, device=device)
        self.first_half = torch.zeros_like(self.counts)
        self.steps = min(steps, FOLLOWED * silence)
        self.looked = 0

    @torch.no_grad()
    def look(self, x: Tensor, step: int) -> None:
        """Takes in the raw activations x [batch, d] of training step `step`, from 0.

        A step that was taken in already, or is after the last one followed, changes nothing: arms
        that begin with the same dictionary share this.
        """
        if self._sae is None or step != self.looked:
            return
        with fast_matmul(x.device):
            fired = self._sae.firings(x)
        self.counts += fired
        self.clock.tick(fired > 0, step)
        self.looked += 1
        if self.looked == self.steps // 2:
            self.first_half.copy_(self.counts)
        if self.looked == self.steps:
            self._sae = None

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs; tensors are not copied."""
        tensors = {"counts": self.counts, "first_half": self.first_half, **self.clock.tensors()}
        return {"tensors": tensors, "looked": self.looked}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()` of the same dictionary."""
        self.clock.load(state["tensors"])
        self.counts.copy_(state["tensors"]["counts"])
        self.first_half.copy_(state["tensors"]["first_half"])
        self.looked = state["looked"]
        if self.looked == self.steps:
            self._sae = None
