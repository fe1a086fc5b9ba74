"""What an arm changes on the way: features active per token, learning rates. No torch.

Functions of the number of steps taken, so that a resumed training needs nothing to go on.
"""

from __future__ import annotations

from bench.sae.arms import Arm
from bench.sae.recipe import Recipe


def active_features(recipe: Recipe, arm: Arm, step: int) -> int:
    """k of training step `step`, from 0.

    Of `k-anneal` it falls linearly from `anneal_from` times k to k in the first `anneal_share` of
    the steps, as OpenMOSS' Language-Model-SAEs have it (`initial_k`, `k_warmup_steps`).
    """
    if arm.schedule != "k-anneal":
        return recipe.k
    falls = max(1.0, recipe.anneal_share * recipe.steps)
    left = max(0.0, 1.0 - step / falls)
    return min(recipe.n - 1, round(recipe.k * (1.0 + (recipe.anneal_from - 1.0) * left)))


def learning_rate(recipe: Recipe, arm: Arm, step: int) -> float:
    """The learning rate of training step `step`, from 0.

    Of `lr-warmup` it rises linearly in the first `lr_warmup` of the steps.
    """
    if arm.schedule != "lr-warmup":
        return recipe.rate
    return recipe.rate * min(1.0, (step + 1) / max(1.0, recipe.lr_warmup * recipe.steps))
