"""What a block carries along: its layers, and its cells on their way to a result."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from bench.births import Births
from bench.census import Census
from bench.plan import Spec
from bench.quality import bias_progress
from bench.records import Attribution, Checkpoint, SpecialTokens
from bench.stats import LayerStats
from bench.trainer import Trainer


@dataclass
class Layer:
    """What the cells of one layer share."""

    sample: Tensor
    stats: LayerStats
    births: Births
    special: SpecialTokens | None = None


@dataclass
class Cell:
    """One SAE on its way through the block."""

    spec: Spec
    layer: Layer
    trainer: Trainer
    born: Census
    attribution: Attribution
    last: Census | None = None
    checkpoints: list[Checkpoint] = field(default_factory=list)

    def count(self, step: int, loss: float, *, last: bool) -> None:
        """Adds a checkpoint; the last one's census counts firings too, and is the result's."""
        found = self.trainer.sae.census(self.layer.sample, counts=last)
        if last:
            self.last = found
        self.checkpoints.append(
            Checkpoint(
                step=step,
                tokens=self.trainer.tokens,
                dead_relu=found.dead_relu,
                dead_topk=found.dead_topk,
                loss=loss,
                bias_progress=bias_progress(self.trainer.sae, self.layer.sample),
            )
        )
