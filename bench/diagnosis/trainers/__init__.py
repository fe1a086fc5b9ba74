"""SAEs watched while another library trains them: `bench.watch(trainer)`.

One file per library with `attach(trainer, activations, settings)`, one line in the table below. A
library is told by the class of its trainer, and nothing of it is imported here. `watched` holds
what they have in common.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from bench.diagnosis.reading import ActivationSource
from bench.diagnosis.trainers.watched import Log, Watch, WatchSettings
from zoo.errors import UsageError

# By the package that a trainer's class, or a class that it is derived from, is defined in.
_ATTACH = {
    "sae_lens": "bench.diagnosis.trainers.saelens",
    "sparsify": "bench.diagnosis.trainers.sparsify",
    "dictionary_learning": "bench.diagnosis.trainers.dictionary_learning",
    "saev": "bench.diagnosis.trainers.saev",
}


def watch(
    trainer: Any,
    activations: ActivationSource | None = None,
    *,
    center: bool = False,
    warn_above: float = 1.0,
    every: int = 500,
    tokens: int = 20_000,
    log: Log | None = None,
    show: Callable[[str], None] = print,
) -> Watch:
    """Diagnose what an SAE will be trained on, and log who is dead while it is trained.

    trainer: SAELens' `SAETrainer`; sparsify's `Trainer`; a trainer of dictionary_learning, or a
        configuration for its `trainSAE`, which is changed in place; an SAE of saev, or the
        module `saev.training`, in which `make_saes` is replaced. Call it before training.
    activations: a sample of what the trainer gets, as `bench.diagnose` takes it. By default
        SAELens' `data_provider` is asked, whose batches are used up, and sparsify's model is run.
    center: begin the SAE's decoder bias at the sample's geometric median. Where the bias is
        subtracted before the encoder that trains the same SAE as subtracting the center from all
        activations does, and the SAE stays one of raw activations.
    warn_above: warn where `gamma_rms`, the mean that a raw SAE meets over its spread, is larger. At
        1 half of a dictionary of n 16,384 and k 32 is dead on 20,000 Gaussian tokens of full rank.
    every: training steps from one census to the next. tokens: the frozen sample they are taken on.
    log: called with each set of numbers. They go to the library's own logger in any case.
    show: called with the verdict and what to do in that library.

    Logged, with `gammabench/` in front: `dead_relu` and `dead_topk`, shares of all features;
    `durable`, the share of the features born dead that have fired and are neither silent nor dead
    again; `bias_progress`, the share of the mean that the bias has learned. The last two are left
    out where no feature was born dead, or where there is no mean.

    Raises:
        UsageError: the trainer is of no library that is known, or cannot do what is asked.
        BadActivations, BadWeights: the sample cannot be diagnosed, or the SAE is not understood.
    """
    settings = WatchSettings(center, warn_above, every, tokens, log, show)
    attach = importlib.import_module(_ATTACH[_package(trainer)]).attach
    watching: Watch = attach(trainer, activations, settings)
    return watching


def _package(trainer: Any) -> str:
    """The library that a trainer is of."""
    kind = trainer.get("trainer") if isinstance(trainer, Mapping) else trainer
    classes = kind.__mro__ if isinstance(kind, type) else type(kind).__mro__
    names = [getattr(kind, "__name__", ""), *(each.__module__ for each in classes)]
    for name in names:
        if name.split(".")[0] in _ATTACH:
            return name.split(".")[0]
    raise UsageError(
        f"a {type(trainer).__name__} is no trainer of {', '.join(_ATTACH)}",
        "bench.diagnose tells before training, bench.diagnose_sae after it.",
    )
