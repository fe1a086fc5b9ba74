"""Untrained SAEs of a layer, with their dead features.

Arms of one seed begin from the same directions, so that their deaths differ by the arm alone. Each
arm's dictionary is counted on the activations as the arm gives them: W x and W (x - center) would
share a product, but at a large mean the difference of two products holds few correct digits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.compute.row_shards import Processes
from bench.death.census import Census
from bench.sae.arms import PRESETS, Arm
from bench.sae.families.base import Family
from bench.sae.model import SAE
from bench.sae.recipe import ACTIVE_VARIANCE
from bench.sae.start import started
from bench.sae.transform import PerTokenNorm, Transform, per_token, sample_median
from bench.sae.untrained import Untrained


class InitialSAEs:
    """Fresh SAEs of one layer, and their censuses on its sample [tokens, width], taken once each.

    Arms that differ in their training alone (`Arm.born`) share everything.

    fitted: tokens [fitted, width] that center, scale and whitening are fitted on, and that start an
    arm which begins from tokens; the sample where none are given.
    active_variance: of the arms that start in a subspace (`bench.sae.start`).
    processes: that hold the SAEs together, a part of the rows each.
    """

    def __init__(
        self,
        sample: Tensor,
        n: int,
        k: int,
        family: Family | None = None,
        *,
        fitted: Tensor | None = None,
        active_variance: float = ACTIVE_VARIANCE,
        processes: Processes | None = None,
    ) -> None:
        self.sample, self.n, self.k, self.family = sample, n, k, family
        self._fitted: Tensor | None = sample if fitted is None else fitted
        self._active_variance = active_variance
        self._shard = None if processes is None else processes.rows(n)
        self._transforms: dict[Arm, Transform] = {}
        self._medians: dict[PerTokenNorm | None, Tensor] = {}
        self._censuses: dict[tuple[Arm, int], Census] = {}
        self._untrained: dict[tuple[Arm, str, int], Untrained] = {}

    def sae(self, arm: Arm, seed: int) -> SAE:
        """A new SAE, as training would begin with it. Raises BadActivations if nothing varies."""
        inputs = Arm(arm.center, arm.norm)
        if inputs not in self._transforms:
            found = Transform.fit(inputs, self.fitted, self._median(inputs))
            # As SAEs have it: those of one preparation share it.
            self._transforms[inputs] = found.to(torch.float32, self.sample.device)
        sae = SAE.init(
            self.sample.shape[1],
            self.n,
            self.k,
            seed=seed,
            transform=self._transforms[inputs],
            family=self.family,
            device=self.sample.device,
            shard=self._shard,
        )
        return started(sae, arm, self.fitted, seed, active_variance=self._active_variance)

    def forget_fitted(self) -> None:
        """Lets go of the tokens to fit on; arms that were not asked for cannot be any more."""
        self._fitted = None

    @property
    def fitted(self) -> Tensor:
        """The tokens [fitted, width] that transforms are fitted on, while they are kept."""
        if self._fitted is None:
            raise ValueError("the tokens to fit on are gone")
        return self._fitted

    def _median(self, arm: Arm) -> Tensor:
        """Of the tokens to fit on, once for all arms of one per-token norm: it takes as long as a
        census."""
        norm = per_token(arm.norm)
        if norm not in self._medians:
            self._medians[norm] = sample_median(arm, self.fitted)
        return self._medians[norm]

    def census(self, arm: Arm, seed: int, *, counts: bool = False) -> Census:
        """The census of that SAE. counts: with each feature's firings."""
        key = arm.born, seed
        found = self._censuses.get(key)
        if found is None or (counts and found.counts is None):
            found = self.sae(arm, seed).census(self.sample, counts=counts)
            self._censuses[key] = found
        return found

    def untrained(self, arm: Arm, seed: int, *, silence: int, steps: int) -> Untrained | None:
        """That SAE, to be followed through the training; None where no feature is born dead.

        silence, steps: of the first call, as of every other.
        """
        born = self.census(arm, seed)
        if not born.dead:
            return None
        # Masked tokens are other ones.
        key = arm.born, arm.tokens, seed
        if key not in self._untrained:
            self._untrained[key] = Untrained(
                self.sae(arm, seed), born.dead_mask, silence=silence, steps=steps
            )
        return self._untrained[key]

    def presets(self, seed: int) -> dict[str, Census]:
        """The censuses of the preset arms, which `theory.attribution` compares."""
        return {name: self.census(arm, seed) for name, arm in PRESETS.items()}
