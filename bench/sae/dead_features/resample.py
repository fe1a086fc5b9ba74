"""Resampling: features that are silent for long start again, at tokens the SAE reconstructs badly.

At each event a token is drawn for every dead feature, with a probability proportional to the square
of the token's loss. The feature's decoder row becomes that token, as the SAE sees it, at unit norm;
its encoder row the same at `scale` times the average norm of the others; its encoder bias 0; the
optimizer forgets the rows. Bricken et al., "Towards Monosemanticity" (2023), who do so at steps
25, 50, 75 and 100 thousand of 200 thousand, for features silent over the 12,500 steps before; the
same shares of a training here. They draw from 819,200 tokens, we from the step's batch.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import normalize

from bench.compute.row_shards import current_shard, every_feature
from bench.sae.gradients import Weights


def resampling_steps(steps: int, share: float) -> frozenset[int]:
    """After how many of all the steps: every `share` of them, up to the middle."""
    every = max(1, round(share * steps))
    return frozenset(range(every, steps // 2 + 1, every))


def resample(
    weights: Weights,
    moments: Mapping[str, tuple[Tensor, Tensor]],
    y: Tensor,
    losses: Tensor,
    dead: Tensor,
    *,
    scale: float,
    seed: int,
) -> None:
    """Start the features `dead`, bool [n], again, in place; of a shard's rows those among them.

    moments: the optimizer's two of W_enc, b_enc and W_dec, by name. y: a batch [tokens, d] as the
    SAE sees it, and its squared errors `losses` [tokens]. Nothing happens where no token has a
    loss; a token of zeros has no direction and is not drawn.
    """
    chances = (losses.double().square() * y.any(1)).cpu()
    rows = dead.nonzero().view(-1)
    if not len(rows) or not float(chances.sum()) > 0:
        return
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.multinomial(chances, len(rows), replacement=True, generator=generator)
    norms = every_feature(torch.linalg.vector_norm(weights.W_enc, dim=1))
    alive = norms[~dead]
    shard = current_shard()
    if shard is not None:
        own = (rows >= shard.start) & (rows < shard.stop)
        rows, drawn = rows[own] - shard.start, drawn[own.cpu()]
    directions = normalize(y[drawn.to(y.device)], dim=1)
    length = scale * (alive.mean() if len(alive) else norms.mean())
    weights.W_dec[rows] = directions
    weights.W_enc[rows] = directions * length
    weights.b_enc[rows] = 0
    for name in ("W_enc", "b_enc", "W_dec"):
        for moment in moments[name]:
            moment[rows] = 0
