"""saev: an SAE, or the module `saev.training`, whose `train` makes SAEs and its logger within.

saev has no place for callbacks. `make_saes` of the module is replaced, so that its SAEs are watched
from their first batch on, and numbers join those that `ParallelWandbRun.log` gets next. A census is
of the weights that a step begins with.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from bench.diagnosis.reading import ActivationSource
from bench.diagnosis.trainers.watched import LIVE, Log, Watch, WatchedSAE, WatchSettings, needed
from bench.sae.interop import saev
from bench.sae.model import SAE

_ADVICE = (
    "saev: keep its data's scale_mean on, which subtracts the mean; an SAE that gets raw "
    "activations takes bench.watch(sae, x, center=True). It has no switch that whitens."
)


def attach(trainer: Any, activations: ActivationSource | None, settings: WatchSettings) -> Watch:
    """See `bench.watch`."""
    source = needed(activations, "bench.watch(saev.training, saev.activations.Dataset(cfg.data))")
    sample = settings.sample(source)
    watch = Watch()
    if isinstance(trainer, ModuleType):
        _replace(trainer, sample, settings, watch)
    else:
        watch.saes.append(_watched(trainer, sample, settings))
    return watch


def _replace(training: Any, sample: Tensor, settings: WatchSettings, watch: Watch) -> None:
    # Watching the module again replaces what watched it before.
    make_saes = getattr(training.make_saes, "replaced", training.make_saes)
    run = getattr(training.ParallelWandbRun, "replaced", training.ParallelWandbRun)
    latest: list[dict[str, float]] = []

    def watched_saes(*args: Any, **kwargs: Any) -> Any:
        made = make_saes(*args, **kwargs)
        latest.clear()
        watch.saes.clear()
        for sae in made[0]:
            latest.append({})
            watch.saes.append(_watched(sae, sample, settings, latest[-1].update))
        return made

    class WatchedRun(run):  # type: ignore[misc, valid-type]
        replaced = run

        def log(self, metrics: list[dict[str, object]], *, step: int) -> None:
            joined = [theirs | ours for theirs, ours in zip(metrics, latest, strict=True)]
            super().log(joined, step=step)

    watched_saes.replaced = make_saes  # type: ignore[attr-defined]
    training.make_saes, training.ParallelWandbRun = watched_saes, WatchedRun


def _watched(
    sae: Any, sample: Tensor, settings: WatchSettings, log: Log | None = None
) -> WatchedSAE:
    watched = WatchedSAE(lambda: _view(sae), sample, settings, log=log)
    watched.tell(_ADVICE)
    if settings.center:
        watched.begin_at_center(sae.b_dec)

    def hook(module: nn.Module, args: tuple[Tensor], output: Any) -> None:
        if torch.is_grad_enabled():
            watched.saw((output[1].detach() > 0).any(0), args[0].detach())
            watched.stepped()

    sae.register_forward_hook(hook)
    return watched


def _view(sae: nn.Module) -> SAE:
    return saev.build({name: t.detach() for name, t in sae.state_dict().items()}, LIVE)
