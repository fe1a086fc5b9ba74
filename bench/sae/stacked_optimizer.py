"""The updates of SAEs of one shape as one, on a CPU, and to the bit each one's own.

Small tensors cost an optimizer little but the start of its operations, of which it has a dozen for
each of four tensors. Here they are started once for all SAEs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import torch
from torch import Tensor

from bench.compute.stacks import stacked
from bench.sae.optimizer import AdamMoments, LearningRates, Optimizer

# Elements of the longest vector there is. Adam's loop ends with what does not fill one, and rounds
# it otherwise: an SAE's end must not become the middle of a stack.
_VECTOR = 16


class StackedOptimizer:
    """Optimizers of one recipe after as many updates, whose state becomes rows of stacks.

    trained: the stacks [m, ...] of what they train, by name: W_enc and W_dec [m, n, d], b_enc
        [m, n] and b [m, d].
    """

    def __init__(self, optimizers: Sequence[Optimizer], trained: Mapping[str, Tensor]) -> None:
        self._one, self._trained = optimizers[0], dict(trained)
        self._moments = {
            name: AdamMoments(
                stacked([each.moments[name].first for each in optimizers]),
                stacked([each.moments[name].second for each in optimizers]),
            )
            for name in trained
        }
        self._updates = {
            name: stacked([each.updates[name] for each in optimizers]) for name in trained
        }

    def update(
        self, gradients: Mapping[str, Tensor], radial: Tensor, rates: Sequence[LearningRates]
    ) -> None:
        """As `Optimizer.update` of each, of stacks of gradients; radial [m, n]."""
        W_dec = self._trained["W_dec"]
        gradients["W_dec"].addcmul_(radial.unsqueeze(2), W_dec, value=-1)
        norms = [torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients.values()]
        clip = self._one.clip_by(torch.linalg.vector_norm(torch.stack(norms, 1), dim=1))
        for gradient in gradients.values():
            gradient.div_(clip.view(-1, *[1] * (gradient.ndim - 1)))
        for rows, (rate, bias_rate) in _runs(rates):
            own = {name: gradient[rows] for name, gradient in gradients.items()}
            if bias_rate is not None:
                self._adam({"b": own.pop("b")}, rows, bias_rate)
            self._adam(own, rows, rate)
        for updates in self._updates.values():
            updates.add_(1)
        W_dec.div_(torch.linalg.vector_norm(W_dec, dim=2, keepdim=True))

    def _adam(self, gradients: Mapping[str, Tensor], rows: slice, rate: float) -> None:
        """One update of those rows of the tensors named."""
        columns: list[tuple[Tensor, ...]] = []
        for name, gradient in gradients.items():
            moments, updates = self._moments[name], self._updates[name]
            stacks = (self._trained[name][rows], gradient, *(part[rows] for part in moments))
            if gradient[0].numel() % _VECTOR == 0:
                columns.append((*stacks, updates[rows.start].clone()))
            else:
                own = [part.clone() for part in updates[rows]]
                columns += zip(*stacks, own, strict=True)
        self._one.adam(*(list(row) for row in zip(*columns, strict=True)), rate=rate)


def _runs(rates: Sequence[LearningRates]) -> Iterator[tuple[slice, LearningRates]]:
    """Neighbours of the same rates, and these."""
    start = 0
    for rate, run in groupby(rates):
        stop = start + len(list(run))
        yield slice(start, stop), rate
        start = stop
