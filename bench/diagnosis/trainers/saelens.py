"""SAELens: `SAETrainer`, which `LanguageModelSAETrainingRunner` builds too.

Its `step` is the public seam; codes are taken from `training_forward_pass` within it. Numbers join
those of `build_train_step_log_dict`, which SAELens gives to wandb at a frequency of its own.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from bench.diagnosis.reading import ActivationSource
from bench.diagnosis.trainers.watched import LIVE, Watch, WatchedSAE, WatchSettings
from bench.sae.interop import saelens
from bench.sae.model import SAE
from zoo.errors import UsageError

# What SAELens estimates is done to the batches before they reach the SAE, until training ends.
_BY_TRAINER = ("expected_average_only_in", "covariance_whitening")


def attach(trainer: Any, activations: ActivationSource | None, settings: WatchSettings) -> Watch:
    """See `bench.watch`."""
    sae, latest = trainer.sae, dict[str, float]()
    norm = sae.cfg.normalize_activations
    if settings.center and (norm != "none" or not sae.cfg.apply_b_dec_to_input):
        raise UsageError(
            "center begins b_dec at the center, which takes normalize_activations='none' and "
            "apply_b_dec_to_input=True",
            "normalize_activations='covariance_whitening' centers by itself.",
        )
    sample = settings.sample(trainer.data_provider if activations is None else activations)
    watched = WatchedSAE(
        lambda: _view(sae),
        sample,
        settings,
        inputs=lambda x: trainer.activation_scaler(x),
        log=latest.update,
    )
    watched.tell(_advice(norm))
    if settings.center:
        watched.begin_at_center(sae.b_dec)
    _follow(trainer, watched, latest)
    return Watch([watched])


def _advice(norm: str) -> str:
    if norm == "covariance_whitening":
        return "normalize_activations='covariance_whitening' centers and whitens already"
    return (
        "SAELens: normalize_activations='covariance_whitening'; to center alone, "
        "bench.watch(trainer, center=True) begins b_dec at the center"
    )


def _follow(trainer: Any, watched: WatchedSAE, latest: dict[str, float]) -> None:
    forward, step = trainer.sae.training_forward_pass, trainer.step
    log_dict = trainer.build_train_step_log_dict

    def watched_forward(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        given = kwargs["step_input"] if "step_input" in kwargs else args[0]
        watched.saw(_fired(output.feature_acts), given.sae_in.detach())
        return output

    def watched_step(*args: Any, **kwargs: Any) -> Any:
        output = step(*args, **kwargs)
        watched.stepped()
        return output

    def with_ours(*args: Any, **kwargs: Any) -> dict[str, Any]:
        return log_dict(*args, **kwargs) | latest

    trainer.sae.training_forward_pass = watched_forward
    trainer.step = watched_step
    trainer.build_train_step_log_dict = with_ours


def _fired(codes: Tensor) -> Tensor:
    """bool [n]; codes [batch, n] may be sparse."""
    if codes.is_sparse:
        codes = codes.detach().coalesce()
        fired = codes.values().new_zeros(codes.shape[-1]).bool()
        fired[codes.indices()[-1][codes.values() > 0]] = True
        return fired
    return (codes.detach() > 0).flatten(0, -2).any(0)


def _view(sae: Any) -> SAE:
    tensors = {name: tensor.detach() for name, tensor in sae.state_dict().items()}
    if "log_threshold" in tensors:
        tensors["threshold"] = tensors["log_threshold"].exp()
    config = sae.cfg.to_dict()
    if config["normalize_activations"] in _BY_TRAINER:
        config["normalize_activations"] = "none"
    return saelens.build(config, tensors, LIVE)
