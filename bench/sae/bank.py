"""A bank: SAEs of one shape that take their steps as one.

Arms, seeds and layers of a block that have one shape and one recipe are a stack [m, ...]. A step
of all of them is one product, one selection, one decode and one pass over the (token, feature)
pairs of all, as of one dictionary of m * n features of which each token sees the n of its own SAE.
The rest is done for each by its trainer's own code. On a CUDA device all of it is one captured
graph, so that the host starts a step by one call. Members share nothing but the time of a step:
one that diverges does not show in the others' numbers, and the rest makes a bank of its own.

Here is a device's bank; batched products and selections may have other bits than separate ones.
That of a CPU, which is equal to separate trainers, is `bench.sae.cpu_bank`.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from bench.compute.ahead import host_runs_ahead
from bench.compute.graphs import StepGraph
from bench.compute.matmul import fast_matmul
from bench.compute.precision import affine, factor, product, product_precision
from bench.compute.profiling import mark, marked
from bench.compute.stacks import stacked
from bench.compute.topk import exact_topk
from bench.death.firings import FiringClock
from bench.sae import schedule
from bench.sae.codes import Codes, DensePairs, KernelPairs, SparsePairs
from bench.sae.dead_features.base import DeadLossPass
from bench.sae.gradients import Backward, Weights, backward, row_slices
from bench.sae.trainer import Trainer


def shape_key(trainer: Trainer) -> Hashable | None:
    """Trainers of one key can be in one bank; None of one that steps by itself.

    Alone are the families without a fixed number of codes per token; what is divided over
    processes; and on a device, where a step is captured, arms whose steps change on the way: k, the
    rate, or rows that start again.
    """
    arm, sae = trainer.arm, trainer.sae
    changes = arm.schedule in ("k-anneal", "lr-warmup") or arm.aux == "resample"
    alone = sae.shard is not None or (changes and host_runs_ahead(sae.b))
    if sae.family.name != "topk" or alone:
        return None
    shape = tuple(sae.W_enc.shape), sae.k, sae.b.dtype, sae.b.device, trainer.clock.silence
    # In a step resampling is nothing, and the rate each trainer's own; k is the same for all.
    loss = "none" if arm.aux == "resample" else arm.aux
    return *shape, trainer.recipe, trainer.step_number, loss, arm.schedule == "k-anneal"


class Bank:
    """Trainers of one `shape_key`, which must take steps through the bank alone.

    Their tensors become views of stacks, so all that reads a trainer, its SAE or its clock goes on
    as before: censuses, checkpoints, records.
    """

    def __init__(self, trainers: Sequence[Trainer]) -> None:
        if len({shape_key(trainer) for trainer in trainers} | {None}) != 2:
            raise ValueError("the trainers are not of one shape and recipe")
        self.trainers = list(trainers)
        self._weights = Weights(
            *(stacked(w) for w in zip(*(t.sae.weights for t in trainers), strict=True))
        )
        self._clock = FiringClock.stacked([t.clock for t in trainers])
        self._graph = StepGraph()
        self._step = torch.zeros((), dtype=torch.int64, device=self._weights.b.device)

    @property
    def note(self) -> str | None:
        """Why steps are not captured, where they could not be."""
        return self._graph.note

    @property
    def captured(self) -> bool:
        """Whether steps run as a captured graph by now."""
        return self._graph.captured

    @torch.no_grad()
    def step(self, batches: Sequence[Tensor]) -> list[Tensor]:
        """One step of each on its raw activations [batch, d]; the losses, one [] each.

        The losses are looked at by `Trainer.took_step`, and rows start again by
        `Trainer.resample_if_due`, which the caller has to call.
        """
        for trainer, x in zip(self.trainers, batches, strict=True):
            trainer.begin_step(x)
        first = self.trainers[0]
        # What a captured step cannot decide.
        kind = (first.path, first.helps_dead)
        self._step.fill_(first.step_number)
        with fast_matmul(batches[0].device):
            (losses,) = self._graph.run(kind, self._losses, list(batches))
        return list(losses.unbind())

    # ---------------------------------------------------------------------------------- private

    def _losses(self, batches: list[Tensor]) -> list[Tensor]:
        """All of a step that is done on the device; the losses as one [m]."""
        first = self.trainers[0]
        y = torch.stack(
            [t.sae.transform.apply(x)[0] for t, x in zip(self.trainers, batches, strict=True)]
        )
        with product_precision(first.recipe.precision, y.device):
            results = self._results(y)
        for trainer, result in zip(self.trainers, results, strict=True):
            trainer.update(result)
        self._clock.tick(torch.stack([r.activity > 0 for r in results]), self._step)
        return [torch.stack([result.loss for result in results])]

    def _results(self, y: Tensor) -> list[Backward]:
        """Loss and gradients of each on its tokens, y [m, batch, d]."""
        m, tokens, _ = y.shape
        n, first = self._weights.W_enc.shape[1], self.trainers[0]
        k = schedule.active_features(first.recipe, first.arm, first.step_number)
        centered = y - self._weights.b.unsqueeze(1)
        passes = [t.dead_loss_pass(self._step) for t in self.trainers]
        parts = []
        directions = factor(self._weights.W_enc)
        for rows in row_slices(tokens, m * n, y.device):
            parts.append(self._selected(centered[:, rows], directions, k, passes))
        values, indices = (torch.cat(found, 1) for found in zip(*parts, strict=True))
        values = values.clamp_(min=0)
        if self.trainers[0].path == "dense":
            return self._dense(values, indices, centered, passes)
        # Features of all SAEs in one row: those of the i-th begin at i * n.
        indices = indices + torch.arange(0, m * n, n, device=y.device).view(m, 1, 1)
        codes = Codes(values.flatten(0, 1), indices.flatten(0, 1))
        kind = KernelPairs if self.trainers[0].path == "kernels" else SparsePairs
        pairs = kind(codes, m * n)
        return self._sparse(pairs, centered, passes)

    def _selected(
        self,
        centered: Tensor,
        directions: Tensor,
        k: int,
        passes: Sequence[DeadLossPass | None],
    ) -> tuple[Tensor, Tensor]:
        """Of some rows of each, centered [m, rows, d], the k largest pre-activations and their
        features: [m, rows, k] each. directions: W_enc. The passes look at all of them."""
        if passes.count(None) == len(passes):
            with mark("product"):
                pre = product(centered, directions.mT)
            # The selection adds the bias where it reads.
            return _largest(pre, k, self._weights.b_enc)
        pre = self._pre_activations(centered, directions)
        for dead_loss, of_one in zip(passes, pre, strict=True):
            if dead_loss is not None:
                dead_loss(of_one)
        return _largest(pre, k)

    @marked("product")
    def _pre_activations(self, centered: Tensor, directions: Tensor) -> Tensor:
        """[m, rows, n] of centered [m, rows, d]. directions: W_enc."""
        return affine(self._weights.b_enc.unsqueeze(1), centered, directions.mT)

    def _dense(
        self,
        values: Tensor,
        indices: Tensor,
        centered: Tensor,
        passes: Sequence[DeadLossPass | None],
    ) -> list[Backward]:
        found = []
        for i, trainer in enumerate(self.trainers):
            pairs = DensePairs(Codes(values[i], indices[i]), trainer.sae.n)
            weights = trainer.sae.weights
            found.append(backward(pairs, weights, centered[i], "dense", passes[i]))
        return found

    def _sparse(
        self, pairs: SparsePairs, centered: Tensor, passes: Sequence[DeadLossPass | None]
    ) -> list[Backward]:
        """As `bench.sae.gradients.backward`, for all at once."""
        m, tokens, width = centered.shape
        W_dec, flat = self._weights.W_dec.flatten(0, 1), centered.flatten(0, 1)
        with mark("decode"):
            error = pairs.decode(W_dec).sub_(flat)
        errors = error.view(m, tokens, width)
        size = tokens * width
        losses = [torch.linalg.vector_norm(e).square() / size for e in errors]
        path = self.trainers[0].path
        assert path != "auto"
        aux: list[Any] = [(None, None)] * m
        for i, dead_loss in enumerate(passes):
            if dead_loss is not None:
                W = self._weights.W_dec[i]
                aux[i] = dead_loss.gradients(W, errors[i], losses[i], centered[i], path)
        error.mul_(2.0 / size)
        with mark("gradients"):
            all_features = pairs.gradients(W_dec, error, flat, gate=True)
        found = []
        for i in range(m):
            features = all_features.part(i, m)
            aux_loss, added = aux[i]
            dead_loss = passes[i]
            if dead_loss is not None and added is not None:
                dead_loss.add(features, added)
            b = errors[i].sum(0) - features.b_enc @ self._weights.W_enc[i]
            gradients = Weights(features.W_enc, features.b_enc, features.W_dec, b)
            found.append(
                Backward(losses[i], aux_loss, gradients, features.radial, features.activity)
            )
        return found


def _largest(pre: Tensor, k: int, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The k largest of each row of pre [m, rows, n], and their columns: [m, rows, k] each.

    bias: [m, n], added first.
    """
    values, indices = exact_topk(pre.flatten(0, 1), k, bias=bias)
    shape = (*pre.shape[:2], k)
    return values.view(shape), indices.view(shape)
