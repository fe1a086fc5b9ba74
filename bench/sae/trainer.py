"""Training of one SAE, one batch at a time, with a clock on every feature.

One recipe for all arms and families: the loss and gradients of `bench.sae.gradients`, the part of
the decoder's gradient along its own rows removed, clipping by the global norm, Adam, decoder rows
set back to unit norm. An arm may add a loss on dead features or start them again
(`bench.sae.dead_features`), and change k or the rate on the way (`bench.sae.schedule`). Nothing is
shared between trainers, so an SAE trained alone and one trained beside others are equal bit for
bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.compute.ahead import host_runs_ahead
from bench.compute.heap import keep_heap
from bench.compute.kernels import why_not
from bench.compute.matmul import fast_matmul
from bench.compute.precision import product_precision
from bench.compute.profiling import marked
from bench.compute.row_shards import anywhere, every_feature, row_shard
from bench.death.firings import FiringClock
from bench.sae import schedule
from bench.sae.arms import Arm
from bench.sae.codes import StepMethod
from bench.sae.dead_features.auxk import AuxK
from bench.sae.dead_features.base import DeadLoss, DeadLossPass, begin
from bench.sae.dead_features.ghost import Ghost
from bench.sae.dead_features.pre_activation import PreActivation
from bench.sae.dead_features.resample import resample, resampling_steps
from bench.sae.gradients import Backward
from bench.sae.model import SAE
from bench.sae.optimizer import LearningRates, Optimizer
from bench.sae.recipe import Recipe
from bench.sae.step_path import faster_path, paths_on
from zoo.errors import TrainingFailed

# Steps between looks at the loss where a look makes the device wait; on a CPU it is every step.
CHECK_EVERY = 64

_LOWER_THE_RATE = "Lower the learning rate, or look for huge activations."


class StepResult(NamedTuple):
    """Scalars on the SAE's device; reading one makes the device wait.

    loss: mean squared error per dimension in the arm's transformed space, where variance is 1.
    aux_loss: the auxiliary loss with its weight, None where it was not in use.
    gradient_norm: global norm before clipping.
    sparsity_loss: the family's penalty with its weight, None where it has none.
    """

    loss: Tensor
    aux_loss: Tensor | None
    gradient_norm: Tensor
    sparsity_loss: Tensor | None = None


class Trainer:
    """Trains `sae` in place; of `arm` it reads the axes that belong to the training.

    Steps count from 0: step s sees the weights after s updates. Every batch must have the size of
    the first one, so that a step is a fixed number of tokens.

    Raises:
        ValueError: the recipe is of another n or k than the SAE.

    Attributes:
        step_number: updates made.
        tokens: tokens seen.
        clock: when each feature fired, and what ended a silence. A feature selected with value 0
            has not fired. Without one given, no silence is long enough to end.
        path: "sparse", "dense" or "kernels", how gradients are computed. `auto` becomes one of them
            at the first step, by one measurement per process and size. They differ in rounding, so
            which it was is part of the state and of the record, and a protocol whose numbers must
            come out again to the last bit names one. A family with only one way takes that.
    """

    def __init__(
        self,
        sae: SAE,
        recipe: Recipe,
        *,
        arm: Arm | None = None,
        clock: FiringClock | None = None,
    ) -> None:
        if (sae.n, sae.k) != (recipe.n, recipe.k):
            raise ValueError(
                f"an SAE of n, k = {sae.n}, {sae.k} and a recipe of {recipe.n}, {recipe.k}"
            )
        self.sae = sae
        self.recipe = recipe
        self.arm = arm or Arm()
        self._resampled_after = (
            resampling_steps(recipe.steps, recipe.resample_share)
            if self.arm.aux == "resample"
            else frozenset()
        )
        paths = sae.family.paths
        self.path = paths[0] if len(paths) == 1 else recipe.path
        self.batch: int | None = None
        self.step_number = 0
        device = sae.W_enc.device
        self.clock = clock or FiringClock(sae.n, device=device)
        trained = {name: sae.family_tensors[name] for name in sae.family.trained}
        self.optimizer = Optimizer({**sae.weights._asdict(), **trained}, recipe)
        self._unchecked: list[Tensor] = []
        self._looks_every = CHECK_EVERY if host_runs_ahead(sae.b) else 1

    @property
    def tokens(self) -> int:
        """Tokens seen."""
        return self.step_number * (self.batch or 0)

    @property
    def rates(self) -> LearningRates:
        """The learning rates of the next step."""
        rate = schedule.learning_rate(self.recipe, self.arm, self.step_number)
        return LearningRates(
            rate, rate * self.recipe.bias_rate if self.arm.bias == "b-fast" else None
        )

    @property
    def helps_dead(self) -> bool:
        """Whether a loss on the dead is on: not while fewer than `dead_after` tokens were seen."""
        off = self.arm.aux in ("none", "resample")
        return not off and self.tokens >= self.recipe.dead_after

    def dead_loss_pass(self, step: int | Tensor) -> DeadLossPass | None:
        """For the step of that number, an int or int64 []; None where the loss is off."""
        assert self.path != "auto"
        return begin(self._dead_loss(step))

    @torch.no_grad()
    def step(self, x: Tensor) -> StepResult:
        """One update on raw activations x [batch, d].

        Raises:
            TrainingFailed: the loss of this or a recent step is not finite; names the step. Looked
                at every step on a CPU, every 64 steps elsewhere (and by `check_finite`).
            ValueError: the batch is not of the size of the first one.
        """
        self.begin_step(x)
        if x.device.type == "cpu":
            keep_heap(self.sae.W_enc.nbytes)
        with row_shard(self.sae.shard), fast_matmul(x.device):
            y = self.sae.transform.apply(x)[0]
            assert self.path != "auto"
            with product_precision(self.recipe.precision, x.device):
                result = self.sae.family.step(
                    self.sae.weights,
                    self.sae.family_tensors,
                    y,
                    schedule.active_features(self.recipe, self.arm, self.step_number),
                    path=self.path,
                    number=self.step_number,
                    aux=self._dead_loss(self.step_number),
                )
            size = self.update(result)
            fired = every_feature(result.activity > 0)
        self.clock.tick(fired, self.step_number)
        self.took_step(result.loss)
        self.resample_if_due(x)
        return StepResult(result.loss, result.aux_loss, size, result.sparsity_loss)

    def begin_step(self, x: Tensor) -> None:
        """Fixes the size of a batch and the path, by the first batch x [batch, d].

        Raises ValueError where the batch is of another size than the first one, and TrainingFailed
        where kernels are asked for and there are none.
        """
        if self.batch is None:
            self.batch = len(x)
        if len(x) != self.batch:
            raise ValueError(f"a batch of {len(x)} tokens after batches of {self.batch}")
        if self.path == "auto":
            with fast_matmul(x.device):
                self.path = self._faster_path()
        elif self.path == "kernels" and not self.step_number:
            self._check_kernels()

    def took_step(self, loss: Tensor) -> None:
        """Counts a step whose update was made, of this loss. Raises TrainingFailed, as `step`."""
        self.step_number += 1
        self._unchecked.append(loss)
        if len(self._unchecked) >= self._looks_every:
            self.check_finite()

    def resample_if_due(self, x: Tensor) -> None:
        """After a step on raw activations x [batch, d]: starts silent features again there, where
        the arm does so now."""
        if self.step_number in self._resampled_after:
            with fast_matmul(x.device):
                y = self.sae.transform.apply(x)[0]
            self._resample(y)

    def check_finite(self) -> None:
        """Look at the losses not looked at yet. Call it after the last step.

        Raises:
            TrainingFailed: one is not finite; names the step.
        """
        if not self._unchecked:
            return
        if self._looks_every == 1:
            finite = [math.isfinite(loss) for loss in self._unchecked]
        else:
            # One transfer, however many there are.
            finite = torch.stack(self._unchecked).isfinite().tolist()
        first = self.step_number - len(finite)
        self._unchecked.clear()
        if not all(finite):
            raise TrainingFailed(
                f"the loss is not finite at step {first + finite.index(False)}",
                _LOWER_THE_RATE,
            )

    def check_weights(self) -> None:
        """Look at the losses not looked at yet, and at what the last update made of the weights.

        Raises:
            TrainingFailed: something is not finite; names the step.
        """
        self.check_finite()
        tensors = [*self.optimizer.trained.values(), *self.sae.family_tensors.values()]
        finite = torch.stack([w.isfinite().all() for w in tensors]).all()
        with row_shard(self.sae.shard):
            broken = bool(anywhere(~finite))
        if broken:
            raise TrainingFailed(
                f"the weights are not finite after step {self.step_number - 1}", _LOWER_THE_RATE
            )

    def state_dict(self, *, copy: bool = True) -> dict[str, Any]:
        """Everything a resumed run needs to equal the uninterrupted one; copies, unless told."""
        self.check_finite()
        tensors = {
            "updates": self.optimizer.updates["b"],
            **self.clock.tensors(),
            **self._groups(),
        }
        return {
            "tensors": {name: t.clone() if copy else t for name, t in tensors.items()},
            "step_number": self.step_number,
            "batch": self.batch,
            "path": self.path,
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()` of a trainer of the same SAE and recipe."""
        tensors = state["tensors"]
        for name, tensor in self._groups().items():
            tensor.copy_(tensors[name])
        self.clock.load(tensors)
        for updates in self.optimizer.updates.values():
            updates.copy_(tensors["updates"])
        self.step_number = state["step_number"]
        self.batch = state["batch"]
        self.path = state["path"]
        self._unchecked.clear()

    # ---------------------------------------------------------------------------------- private

    def _groups(self) -> dict[str, Tensor]:
        """What a checkpoint holds of the SAE and of Adam, by name, not copied."""
        moments = self.optimizer.moments.items()
        return {
            **_named("weights", self.sae.weights._asdict()),
            **_named("family", self.sae.family_tensors),
            **_named("first_moments", {name: both.first for name, both in moments}),
            **_named("second_moments", {name: both.second for name, both in moments}),
        }

    def _dead_loss(self, step: int | Tensor) -> DeadLoss | None:
        """The arm's loss on the dead, if it is on; step: the number of this one."""
        recipe, kind = self.recipe, self.arm.aux
        if not self.helps_dead:
            return None
        silent = (step - 1 - self.clock.last_fired) * (self.batch or 0)
        dead = silent >= recipe.dead_after
        if self.sae.shard is not None:
            # By a mask, so that all shards have a loss where one has dead features.
            dead = dead[self.sae.shard.rows]
        elif not host_runs_ahead(dead):
            # Few as a rule. A device would have to wait for their number, and goes by the mask.
            dead = dead.nonzero().view(-1)
        if kind == "ghost":
            return Ghost(dead)
        if kind == "pre-act":
            return PreActivation(dead, recipe.pre_act_weight)
        return AuxK(dead, recipe.aux_k, recipe.aux_alpha, kind == "auxk-relu")

    @torch.no_grad()
    def _resample(self, y: Tensor) -> None:
        """Start again what was silent for half the steps between two resamplings."""
        every = min(self._resampled_after)
        silent = self.step_number - 1 - self.clock.last_fired
        error = self.sae.decode(self.sae.encode_transformed(y)) - y
        moments = {name: self.optimizer.moments[name] for name in self.sae.weights._fields}
        dead = silent >= max(1, every // 2)
        with row_shard(self.sae.shard):
            resample(
                self.sae.weights,
                moments,
                y,
                error.square().sum(1),
                dead,
                scale=self.recipe.resample_scale,
                seed=self.step_number,
            )

    @marked("optimizer")
    def update(self, result: Backward) -> Tensor:
        """Project, clip, Adam, unit norm; the global norm of the projected gradient.

        A part of `step`, which a bank calls; it uses the gradients up.
        """
        recipe = self.recipe
        if recipe.bias == "frozen":
            result.gradients.b.zero_()
        own = (result.family_gradients[name] for name in self.sae.family.trained)
        gradients = dict(zip(self.optimizer.trained, [*result.gradients, *own], strict=True))
        size = self.optimizer.update(gradients, result.radial, self.rates)
        for name, value in result.family_values.items():
            self.sae.family_tensors[name].copy_(value)
        return size

    def _check_kernels(self) -> None:
        device = self.sae.b.device
        if "kernels" not in paths_on(self.sae.family, self.sae.b.dtype, device):
            reason = why_not("decode", device) or f"the family {self.sae.family.name} has none"
            raise TrainingFailed(f"there are no kernels to train with: {reason}", "Say path=auto.")

    def _faster_path(self) -> StepMethod:
        sae = self.sae
        size = (sae.n, sae.k, sae.width, self.batch or 1)
        kinds = (sae.W_enc.dtype, sae.W_enc.device, sae.family, self.recipe.precision)
        return faster_path(*size, *kinds, self.sae.shard)


def _named(prefix: str, group: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in group.items()}
