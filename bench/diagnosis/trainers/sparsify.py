"""sparsify: its `Trainer`, which runs a model and trains an SAE per hookpoint and seed.

It starts every SAE's b_dec at the mean of its first batch. A step ends where the trainer asks for
`get_current_k`, once for all optimizers that it knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from bench.diagnosis.reading import ActivationSource
from bench.diagnosis.trainers.watched import LIVE, Log, Watch, WatchedSAE, WatchSettings
from bench.sae.interop import sparsify
from bench.sae.model import SAE
from zoo.errors import UsageError

_ADVICE = (
    "sparsify: it begins b_dec at the mean of its first batch, which centers; keep batch_size "
    "large enough for that mean. It has no switch that whitens."
)


def attach(trainer: Any, activations: ActivationSource | None, settings: WatchSettings) -> Watch:
    """See `bench.watch`."""
    if settings.center:
        raise UsageError(
            "sparsify begins b_dec at the mean of its first batch itself, over what center sets",
            "Leave center out.",
        )
    samples: dict[str, Tensor] = {}
    watch = Watch()
    for name, sae in trainer.saes.items():
        hookpoint = name.partition("/")[0]
        if hookpoint not in samples:
            source = _hooked(trainer, hookpoint) if activations is None else activations
            samples[hookpoint] = settings.sample(source)
        watched = WatchedSAE(
            lambda sae=sae: _view(sae),  # type: ignore[misc]
            samples[hookpoint],
            settings,
            name=name if len(trainer.saes) > 1 else "",
            log=_wandb(trainer),
        )
        watched.tell(_ADVICE)
        _follow(sae, watched)
        watch.saes.append(watched)
    _follow_steps(trainer, watch)
    return watch


def _follow(sae: Any, watched: WatchedSAE) -> None:
    def hook(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        if not torch.is_grad_enabled():
            return
        acts, indices = output.latent_acts.detach(), output.latent_indices
        fired = torch.zeros(sae.num_latents, dtype=torch.bool, device=acts.device)
        fired[indices[acts > 0]] = True
        watched.saw(fired, kwargs["x"] if "x" in kwargs else args[0])

    sae.register_forward_hook(hook, with_kwargs=True)


def _follow_steps(trainer: Any, watch: Watch) -> None:
    current_k = trainer.get_current_k

    def watched_k() -> int:
        for watched in watch.saes:
            watched.stepped()
        k: int = current_k()
        return k

    trainer.get_current_k = watched_k


def _wandb(trainer: Any) -> Log:
    def log(numbers: dict[str, float]) -> None:
        if not trainer.cfg.log_to_wandb:
            return
        import wandb

        if wandb.run is not None:
            step = (trainer.global_step + 1) // trainer.cfg.grad_acc_steps
            wandb.log(numbers, step=step)

    return log


@torch.no_grad()
def _hooked(trainer: Any, hookpoint: str) -> Iterator[Tensor]:
    """The activations of a hookpoint [tokens, width], batch by batch of the trainer's data."""
    module = trainer.model.base_model.get_submodule(hookpoint)
    found: list[Tensor] = []
    handle = module.register_forward_hook(
        lambda _, __, out: found.append(out[0] if isinstance(out, tuple) else out)
    )
    try:
        for batch in DataLoader(trainer.dataset, batch_size=trainer.cfg.batch_size):
            ids = batch["input_ids"].to(trainer.model.device)
            trainer.model(ids)
            yield found.pop()[torch.isin(ids, trainer.exclude_tokens, invert=True)]
    finally:
        handle.remove()


def _view(sae: Any) -> SAE:
    return sparsify.build(vars(sae.cfg), _detached(sae), LIVE)


def _detached(sae: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in sae.state_dict().items()}
