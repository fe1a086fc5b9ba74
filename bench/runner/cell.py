"""What a block carries along: its layers, and its cells on their way to a result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bench.compute.ahead import host_runs_ahead
from bench.compute.timing import compute_seconds
from bench.death import revival
from bench.death.census import Census
from bench.records.schema import (
    Fates,
    Prediction,
    Samples,
    SpecialTokens,
    Statistics,
    TrainingCheckpoint,
)
from bench.records.spec import Spec
from bench.sae.initial import InitialSAEs
from bench.sae.model import SAE
from bench.sae.quality import bias_target
from bench.sae.trainer import Trainer
from bench.sae.untrained import Untrained
from bench.statistics.token_norms import stand_in


@dataclass
class BlockLayer:
    """What the cells of one layer share."""

    sample: Tensor
    stats: Statistics
    initial: InitialSAEs
    prediction: Prediction
    samples: Samples
    mask_norm: float | None = None  # in units of the median norm
    masked: Tensor | int = 0  # training tokens left out so far
    special: SpecialTokens | None = None
    first_pass: int = 0  # tokens read to train on that were not read before
    unknown_share: float | None = None
    _masked_batch: tuple[Tensor, Tensor, Tensor] | None = None  # and `masked_by_arms` of it

    def kept(self, batch: Tensor) -> Tensor:
        """The training tokens [batch, d] with ordinary ones in the place of those left out."""
        if self.mask_norm is None or self.stats.median_norm is None:
            return batch
        kept, masked = stand_in(batch, self.mask_norm * self.stats.median_norm)
        self.masked = masked + self.masked
        return kept

    def masked_by_arms(self, batch: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
        """`stand_in` of the training tokens as arms with `mask` do it, all by one ratio: once for a
        batch."""
        found = self._masked_batch
        if found is None or found[0] is not batch:
            assert self.stats.median_norm is not None
            most = ratio * self.stats.median_norm
            found = self._masked_batch = (batch, *stand_in(batch, most))
        return found[1:]


@dataclass
class Cell:
    """One SAE on its way through the block."""

    spec: Spec
    layer: BlockLayer
    trainer: Trainer
    born: Census
    attribution: dict[str, int]  # dead features at birth, by preset arm
    untrained: Untrained | None  # None where no feature was born dead
    last: Census | None = None
    checkpoints: list[TrainingCheckpoint] = field(default_factory=list)
    was_topk: Tensor = field(init=False)  # bool [n], dead by TopK at some census so far
    masked: Tensor | int = 0  # training tokens that the arm left out so far
    seconds: float = 0.0  # in training steps
    bias: BiasClock = field(init=False)

    def __post_init__(self) -> None:
        self.was_topk = self.born.never_selected.clone()
        self.bias = BiasClock(self.trainer.sae, self.layer.initial.fitted)

    def step(self, batch: Tensor) -> Tensor:
        """One training step on raw activations [batch, d]; the loss. Raises `TrainingFailed`."""
        batch = self.begin_step(batch)
        start = compute_seconds()
        loss = self.trainer.step(batch).loss
        self.seconds += compute_seconds() - start
        self.end_step()
        return loss

    def begin_step(self, batch: Tensor) -> Tensor:
        """The raw activations [batch, d] that the next step is to train on."""
        if self.trainer.arm.tokens == "mask" and self.layer.stats.median_norm is not None:
            start = compute_seconds()
            batch, masked = self.layer.masked_by_arms(batch, self.trainer.recipe.mask_ratio)
            self.masked = masked + self.masked
            self.seconds += compute_seconds() - start
        if self.untrained is not None:
            self.untrained.look(batch, self.trainer.step_number)
        return batch

    def end_step(self) -> None:
        """Notes what the step that was taken has changed."""
        self.bias.look(self.trainer.step_number)

    def count(self, step: int, loss: float, *, last: bool) -> None:
        """Adds a checkpoint; the last one's census is the result's. Raises `TrainingFailed`."""
        self.trainer.check_weights()
        found = self.count_last() if last else self.trainer.sae.census(self.layer.sample)
        self.was_topk |= found.never_selected
        self.checkpoints.append(
            TrainingCheckpoint(
                step=step,
                tokens=self.trainer.tokens,
                dead_relu=found.dead_relu,
                dead_topk=found.dead_topk,
                loss=loss,
                bias_progress=self.bias.share(),
                fates_relu=Fates(**self.fates(self.born.never_positive, found).counts()),
                fates_topk=Fates(**self.fates(self.born.never_selected, found).counts()),
            )
        )

    @property
    def step_seconds(self) -> float | None:
        """The mean of its training steps; None on a device, which does not wait for them."""
        steps = self.trainer.step_number
        on_cpu = self.trainer.sae.b.device.type == "cpu"
        return self.seconds / steps if steps and on_cpu else None

    def fates(self, born_dead: Tensor, found: Census) -> revival.FateMasks:
        """What has become of features born dead, bool [n], by a census taken now."""
        clock, steps = self.trainer.clock, self.trainer.step_number
        return revival.fates(clock, born_dead, found.dead_mask, steps)

    def count_last(self) -> Census:
        """The census at the end of training, which counts firings too."""
        self.last = self.trainer.sae.census(self.layer.sample, counts=True)
        return self.last

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run cannot measure again; tensors are not copied."""
        return {
            "trainer": self.trainer.state_dict(copy=False),
            "checkpoints": [point.model_dump() for point in self.checkpoints],
            "was_topk": self.was_topk,
            "masked": int(self.masked),
            "seconds": self.seconds,
            "bias_reached": self.bias.reached,
            "untrained": None if self.untrained is None else self.untrained.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()` of the same cell."""
        self.trainer.load_state_dict(state["trainer"])
        self.checkpoints = [
            TrainingCheckpoint.model_validate(point) for point in state["checkpoints"]
        ]
        self.was_topk.copy_(state["was_topk"])
        self.masked, self.seconds = state["masked"], state["seconds"]
        self.bias.load(state["bias_reached"])
        if self.untrained is not None:
            self.untrained.load_state_dict(state["untrained"])


class BiasClock:
    """When the decoder bias had learned 50, 90 and 99 % of the mean, to the step.

    `reached` is int64 [3], on the SAE's device, -1 where it has not been reached; one look costs
    one inner product and makes no device wait.
    """

    SHARES = (0.5, 0.9, 0.99)

    def __init__(self, sae: SAE, fitted: Tensor) -> None:
        # Where the center was found: elsewhere it leaves what two samples differ by.
        self._b = sae.b
        self._target = bias_target(sae, fitted)
        self.reached = torch.full((len(self.SHARES),), -1, device=sae.b.device)
        self._shares = torch.tensor(self.SHARES, dtype=torch.float64, device=sae.b.device)
        self._to_come = list(self.SHARES)

    def look(self, step: int) -> None:
        """Notes what was reached for the first time after `step` steps."""
        if self._target is None or not self._to_come:
            return
        with torch.no_grad():
            learned = self._b.double() @ self._target
        if host_runs_ahead(learned):
            self.reached.masked_fill_((self.reached < 0) & (learned >= self._shares), step)
            return
        share = float(learned)
        while self._to_come and share >= self._to_come[0]:
            self.reached[-len(self._to_come)] = step
            del self._to_come[0]

    def load(self, reached: Tensor) -> None:
        """Go on from what had been reached."""
        self.reached.copy_(reached)
        if not host_runs_ahead(self.reached):
            self._to_come = list(self.SHARES[int((self.reached >= 0).sum()) :])

    def share(self) -> float | None:
        """The share learned now; None where there is no mean to learn."""
        return None if self._target is None else float(self._b.double() @ self._target)

    def steps(self) -> list[int | None] | None:
        """The steps, None for a share not reached; None where there is no mean to learn."""
        if self._target is None:
            return None
        return [step if step >= 0 else None for step in self.reached.tolist()]
