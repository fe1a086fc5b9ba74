"""A bank on a CPU: equal to separate trainers to the bit, in less time.

What is done for all members by one operation is what gives each the bits it gets by itself: sums
over each one's own tokens or features, and what concerns every number alone. Products of matrices
need not, and are looped. What is saved is the start of each operation: more than half of the time
where SAEs are small, nothing where they are large (`bench.runner.stepping`). Only the sparse way is
worth it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bench.compute.ahead import host_runs_ahead
from bench.compute.heap import keep_heap
from bench.compute.precision import affine, product_precision
from bench.compute.profiling import mark, marked
from bench.compute.topk import exact_topk_of_each
from bench.sae import schedule
from bench.sae.bank import Bank
from bench.sae.codes import Codes, FeatureGradients, SparsePairs
from bench.sae.dead_features.base import DeadLossPass
from bench.sae.gradients import row_slices
from bench.sae.stacked_optimizer import StackedOptimizer
from bench.sae.trainer import Trainer


def make_bank(trainers: Sequence[Trainer]) -> Bank:
    """The bank of a device, or of a CPU. Raises ValueError, as they do."""
    return (Bank if host_runs_ahead(trainers[0].sae.b) else CpuBank)(trainers)


class CpuBank(Bank):
    """Also raises ValueError unless the trainers' path is "sparse"."""

    def __init__(self, trainers: Sequence[Trainer]) -> None:
        super().__init__(trainers)
        if self.trainers[0].path != "sparse":
            raise ValueError("a bank on a CPU steps by the path sparse")
        m, n, _ = self._weights.W_enc.shape
        # All features are in one row: those of the i-th begin at i * n.
        self._first_features = torch.arange(0, m * n, n).view(m, 1, 1)
        self._optimizer = StackedOptimizer(
            [trainer.optimizer for trainer in self.trainers], self._weights._asdict()
        )
        keep_heap(self._weights.W_enc.nbytes)

    # ---------------------------------------------------------------------------------- private

    def _losses(self, batches: list[Tensor]) -> list[Tensor]:
        first = self.trainers[0]
        y = self._transformed(batches)
        with product_precision(first.recipe.precision, y.device):
            losses, gradients, radial, activity = self._backward(y)
        with mark("optimizer"):
            if first.recipe.bias == "frozen":
                gradients["b"].zero_()
            rates = [trainer.rates for trainer in self.trainers]
            self._optimizer.update(gradients, radial, rates)
        self._clock.tick(activity > 0, first.step_number)
        return [losses]

    def _transformed(self, batches: Sequence[Tensor]) -> Tensor:
        """What the SAEs see, y [m, batch, d]: once where they share a preparation and a batch."""
        found: dict[tuple[int, int], Tensor] = {}
        rows = []
        for trainer, x in zip(self.trainers, batches, strict=True):
            transform = trainer.sae.transform
            key = id(transform), id(x)
            if key not in found:
                found[key] = transform.apply(x)[0]
            rows.append(found[key])
        return torch.stack(rows)

    def _backward(self, y: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor, Tensor]:
        """As `bench.sae.gradients.backward` of each: losses [m], gradients [m, ...] by name, and
        radial and activity [m, n]."""
        m, tokens, width = y.shape
        centered = y - self._weights.b.unsqueeze(1)
        passes = [trainer.dead_loss_pass(trainer.step_number) for trainer in self.trainers]
        pairs = self._pairs(centered, passes)
        W_dec, flat = self._weights.W_dec.flatten(0, 1), centered.flatten(0, 1)
        with mark("decode"):
            error = pairs.decode(W_dec).sub_(flat)
        errors, size = error.view(m, tokens, width), tokens * width
        losses = torch.linalg.vector_norm(errors.flatten(1), dim=1).square() / size
        added = {
            i: dead_loss.gradients(
                self._weights.W_dec[i], errors[i], losses[i], centered[i], "sparse"
            )[1]
            for i, dead_loss in enumerate(passes)
            if dead_loss is not None
        }
        error.mul_(2.0 / size)
        with mark("gradients"):
            together = pairs.gradients(W_dec, error, flat, gate=True)
        features = FeatureGradients(*(part.unflatten(0, (m, -1)) for part in together))
        for i, own in added.items():
            dead_loss = passes[i]
            assert dead_loss is not None
            dead_loss.add(FeatureGradients(*(part[i] for part in features)), own)
        rows = zip(features.b_enc, self._weights.W_enc, strict=True)
        by_encoder = torch.stack([b_enc @ W for b_enc, W in rows])
        gradients = {
            "W_enc": features.W_enc,
            "b_enc": features.b_enc,
            "W_dec": features.W_dec,
            "b": errors.sum(1) - by_encoder,
        }
        return losses, gradients, features.radial, features.activity

    def _pairs(self, centered: Tensor, passes: Sequence[DeadLossPass | None]) -> SparsePairs:
        """The codes of centered [m, batch, d]. The passes look at all pre-activations."""
        m, tokens, _ = centered.shape
        n, first = self._weights.W_enc.shape[1], self.trainers[0]
        k = schedule.active_features(first.recipe, first.arm, first.step_number)
        parts = []
        for rows in row_slices(tokens, m * n, centered.device):
            pre = self._pre_activations(centered[:, rows], self._weights.W_enc)
            for dead_loss, of_one in zip(passes, pre, strict=True):
                if dead_loss is not None:
                    dead_loss(of_one)
            parts.append(exact_topk_of_each(pre, k))
        values, indices = (torch.cat(found, 1) for found in zip(*parts, strict=True))
        indices += self._first_features
        codes = Codes(values.clamp_(min=0).flatten(0, 1), indices.flatten(0, 1))
        return SparsePairs(codes, m * n)

    @marked("product")
    def _pre_activations(self, centered: Tensor, directions: Tensor) -> Tensor:
        each = zip(self._weights.b_enc, centered, directions, strict=True)
        return torch.stack([affine(bias, x, W.T) for bias, x, W in each])
