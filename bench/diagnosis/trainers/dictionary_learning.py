"""dictionary_learning: a trainer, or a configuration from which `trainSAE` makes one.

Codes are what `ae.encode` gives with gradients on, so that neither logging nor resampling counts.
Numbers become logging parameters of the trainer, which `trainSAE` sends to wandb.
"""

from __future__ import annotations

from typing import Any

import torch

from bench.diagnosis.reading import ActivationSource
from bench.diagnosis.trainers.watched import LIVE, Log, Watch, WatchedSAE, WatchSettings, needed
from bench.sae.interop import dictionary_learning
from bench.sae.model import SAE
from zoo.errors import UsageError

_ADVICE = (
    "dictionary_learning: TopK, BatchTopK and Matryoshka trainers begin b_dec at the geometric "
    "median of their first batch, which centers; StandardTrainer takes "
    "bench.watch(..., center=True). It has no switch that whitens."
)


def attach(trainer: Any, activations: ActivationSource | None, settings: WatchSettings) -> Watch:
    """See `bench.watch`."""
    source = needed(activations, "bench.watch(config, buffer)")
    watch = Watch()
    if not isinstance(trainer, dict):
        _attach(trainer, source, settings, watch)
        return watch
    make = trainer["trainer"]

    def watched_trainer(**config: Any) -> Any:
        made = make(**config)
        _attach(made, source, settings, watch)
        return made

    trainer["trainer"] = watched_trainer
    return watch


def _attach(trainer: Any, source: ActivationSource, settings: WatchSettings, watch: Watch) -> None:
    if settings.center and not hasattr(trainer.ae, "bias"):
        raise UsageError(
            f"center cannot be set in a {type(trainer.ae).__name__}: it begins its bias itself, or "
            "does not subtract it before the encoder",
            "Leave center out, or train on activations whose mean is subtracted.",
        )
    watched = WatchedSAE(
        lambda: _view(trainer), settings.sample(source), settings, log=_parameters(trainer)
    )
    watched.tell(_ADVICE)
    if settings.center:
        watched.begin_at_center(trainer.ae.bias)
    _follow(trainer, watched)
    watch.saes.append(watched)


def _follow(trainer: Any, watched: WatchedSAE) -> None:
    encode, update = trainer.ae.encode, trainer.update

    def watched_encode(x: Any, *args: Any, **kwargs: Any) -> Any:
        output = encode(x, *args, **kwargs)
        if torch.is_grad_enabled():
            codes = output[0] if isinstance(output, tuple) else output
            watched.saw((codes.detach() > 0).any(0), x.detach())
        return output

    def watched_update(*args: Any, **kwargs: Any) -> Any:
        loss = update(*args, **kwargs)
        watched.stepped()
        return loss

    trainer.ae.encode = watched_encode
    trainer.update = watched_update


def _parameters(trainer: Any) -> Log:
    def log(numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            if name not in trainer.logging_parameters:
                trainer.logging_parameters.append(name)
            setattr(trainer, name, value)

    return log


def _view(trainer: Any) -> SAE:
    tensors = {name: tensor.detach() for name, tensor in trainer.ae.state_dict().items()}
    config = {"dict_class": type(trainer.ae).__name__, "k": getattr(trainer, "k", None)}
    return dictionary_learning.build(config, tensors, LIVE)
