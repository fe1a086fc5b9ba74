"""One SAE while it is trained: its birth, its firings, and a census every so many steps."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from bench.death.census import Census
from bench.death.firings import FiringClock, silence_steps
from bench.death.revival import fates
from bench.diagnosis.batches import TokenReader
from bench.diagnosis.diagnose import Diagnosis, diagnose
from bench.diagnosis.reading import ActivationSource
from bench.diagnosis.trained import learned_share
from bench.sae.interop.files import NO_K
from bench.sae.model import SAE
from bench.statistics.geometric_median import geometric_median
from zoo.errors import BadActivations, BadWeights, UsageError

Log = Callable[[dict[str, float]], None]

# What an SAE in memory is called where a file would be named.
LIVE = Path("the SAE in training")

_PREFIX = "gammabench/"

# Batches this many times larger or smaller than the sample are on another scale.
_OTHER_SCALE = 2.0


@dataclass(frozen=True)
class WatchSettings:
    """What `bench.watch` was asked for; see there."""

    center: bool
    warn_above: float
    every: int
    tokens: int
    log: Log | None
    show: Callable[[str], None]

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UsageError(f"a census every {self.every} steps makes no sense", "Give 1 or more.")

    def sample(self, source: ActivationSource) -> Tensor:
        """The first `tokens` tokens, float32 [tokens, width]."""
        batches = list(TokenReader(max_tokens=self.tokens).batches(source))
        if not batches:
            raise BadActivations("no tokens", "Give a sample of what the trainer gets.")
        return torch.cat([batch.detach().float().cpu() for batch in batches])


class WatchedSAE:
    """An SAE in training, and what was found of it.

    view: the SAE as it is now, on what the trainer gives it. inputs: what the trainer makes of
    activations [tokens, width] before they reach the SAE.

    Attributes:
        name: what it is called in the log; "" where a trainer has one SAE only.
        diagnosis: of the sample, before training.
        history: what was logged, in order, each with its `step`.
    """

    def __init__(
        self,
        view: Callable[[], SAE],
        sample: Tensor,
        settings: WatchSettings,
        *,
        name: str = "",
        inputs: Callable[[Tensor], Tensor] = lambda x: x,
        log: Log | None = None,
    ) -> None:
        self.name, self.history = name, list[dict[str, float]]()
        self._view, self._sample, self._settings = view, sample, settings
        self._inputs, self._log = inputs, log
        sae = view()
        # Where only the sign selects, a k that leaves no positive value out.
        k = sae.n - 1 if sae.k == NO_K else sae.k
        self.diagnosis: Diagnosis = diagnose(sample, n=sae.n, k=k, tokens=len(sample))
        self._born: Census | None = None
        self._clock: FiringClock | None = None
        self._fired: Tensor | None = None
        self._tokens = self._steps = 0

    # -- before training ----------------------------------------------------------------------

    def tell(self, advice: str) -> None:
        """Shows the verdict, and the library's own switch where there is something to mend."""
        found = self.diagnosis
        of = f" of {self.name}" if self.name else ""
        text = f"gammabench: verdict{of}: {found.verdict.action}\n{found.verdict.reason}"
        if self._settings.center:
            text += "\nthe decoder bias begins at the center"
        elif found.verdict.action == "center, AuxK":
            text += f"\n{advice}"
        self._settings.show(text)
        gamma, limit = found.statistics.gamma_rms, self._settings.warn_above
        if gamma > limit:
            warnings.warn(f"gamma rms{of} is {gamma:.3g}, above {limit:g}", stacklevel=4)

    def begin_at_center(self, bias: Tensor) -> None:
        """Puts the bias [width] that is subtracted before the encoder at the geometric median."""
        bias.data.copy_(geometric_median(self._sample).point)

    # -- in training --------------------------------------------------------------------------

    @torch.no_grad()
    def saw(self, fired: Tensor, batch: Tensor) -> None:
        """Takes in which features, bool [n], fired on a batch [tokens, width] in training.

        Call it before the weights change, once for every part of a step's batch.
        """
        if self._born is None:
            self._check_scale(batch)
            self._born = self._report()
        self._fired = fired if self._fired is None else self._fired | fired
        self._tokens += len(batch)

    @torch.no_grad()
    def stepped(self) -> None:
        """The step whose batch was seen is done; without one nothing happens."""
        if self._fired is None:
            return
        if self._clock is None:
            born_dead = None if self._born is None else self._born.dead_mask
            self._clock = FiringClock(
                len(self._fired),
                silence=silence_steps(len(self._sample), max(1, self._tokens)),
                born_dead=born_dead,
                device=self._fired.device,
            )
        self._clock.tick(self._fired, self._steps)
        self._fired, self._tokens = None, 0
        self._steps += 1
        if self._steps % self._settings.every == 0:
            self._report()

    def _report(self) -> Census | None:
        """Takes a census and logs it; None, with a warning, where the SAE is broken."""
        try:
            sae = self._view()
            sae = sae.to(sae.W_enc.device)
            inputs = self._inputs(self._sample.to(sae.W_enc.device)).float()
            census = sae.census(inputs)
        except (BadWeights, BadActivations) as error:
            # What watches a training does not end it.
            warnings.warn(f"step {self._steps}: no census ({error.message})", stacklevel=2)
            return None
        found = {"dead_relu": census.dead_relu / sae.n, "dead_topk": census.dead_topk / sae.n}
        born_dead = (self._born or census).dead_mask
        if bool(born_dead.any()):
            found["durable"] = self._durable(born_dead, census) / int(born_dead.sum())
        progress = learned_share(sae.b, sae.transform.apply(inputs)[0])
        if progress is not None:
            found["bias_progress"] = progress
        self.history.append({"step": self._steps} | found)
        suffix = f"/{self.name}" if self.name else ""
        named = {f"{_PREFIX}{key}{suffix}": value for key, value in found.items()}
        for log in (self._log, self._settings.log):
            if log is not None:
                log(named)
        return census

    def _durable(self, born_dead: Tensor, census: Census) -> int:
        if self._clock is None:
            return 0
        return int(fates(self._clock, born_dead, census.dead_mask, self._steps).durable.sum())

    def _check_scale(self, batch: Tensor) -> None:
        """Warns where the sample is not what the trainer gets."""
        inputs = self._inputs(self._sample.to(batch.device))
        sizes = [float(x.float().square().mean().sqrt()) for x in (batch, inputs)]
        if not 1 / _OTHER_SCALE < sizes[0] / max(sizes[1], 1e-30) < _OTHER_SCALE:
            warnings.warn(
                f"the root mean square of what the trainer gets is {sizes[0]:.3g}, the sample's "
                f"{sizes[1]:.3g}: give bench.watch what the trainer gets, normalized as there",
                stacklevel=2,
            )


@dataclass
class Watch:
    """What `bench.watch` found: an entry per SAE, one in most trainers, in the trainer's order.

    With a configuration for `trainSAE` or with `saev.training` it is filled when training begins.
    """

    saes: list[WatchedSAE] = field(default_factory=list)

    @property
    def diagnosis(self) -> Diagnosis:
        """Of the first SAE; see `WatchedSAE`."""
        return self._first().diagnosis

    @property
    def history(self) -> list[dict[str, float]]:
        """Of the first SAE; see `WatchedSAE`."""
        return self._first().history

    def _first(self) -> WatchedSAE:
        if not self.saes:
            raise UsageError("nothing was watched so far", "Begin training first.")
        return self.saes[0]


def needed(activations: ActivationSource | None, example: str) -> ActivationSource:
    """The activations, where a trainer has none to ask. Raises `UsageError`."""
    if activations is None:
        raise UsageError("this trainer holds no activations to diagnose", f"Give them: {example}.")
    return activations
