"""Families of sparse autoencoders: which positive pre-activations become codes, at what price.

One file each: `topk`, `batchtopk`, `relu`, `jumprelu`; what they have in common is in `base`. This
file is data, no torch: the names, each family's own hyper-parameters with their defaults,
and what its step holds.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from bench.sae.families.base import Family

Name = Literal["topk", "batchtopk", "relu", "jumprelu"]

# The hyper-parameters that only some families read, with their defaults.
KEYS: dict[Name, dict[str, float]] = {
    "topk": {},
    "batchtopk": {"threshold_rate": 0.01},
    "relu": {"l1": 5.0, "warmup": 0.05},
    "jumprelu": {"l0": 1e-3, "warmup": 0.05, "threshold": 1e-3, "bandwidth": 1e-3},
}

# These have no k, and no sparse way of computing a step: about half of all features may be active.
DENSE: tuple[Name, ...] = ("relu", "jumprelu")

# Arrays [batch, n] that a step holds at once, measured by `ci/bench_memory.py --way`.
STEP_ARRAYS: dict[Name, float] = {"topk": 2.2, "batchtopk": 6.3, "relu": 3.0, "jumprelu": 5.0}

_CLASSES: dict[Name, str] = {
    "topk": "topk:TopK",
    "batchtopk": "batchtopk:BatchTopK",
    "relu": "relu:ReLU",
    "jumprelu": "jumprelu:JumpReLU",
}


def family_class(name: Name) -> type[Family]:
    """The class of the family called `name`. Raises KeyError where there is none."""
    module, _, attribute = _CLASSES[name].partition(":")
    found: type[Family] = getattr(
        importlib.import_module(f"bench.sae.families.{module}"), attribute
    )
    return found


def make_family(name: Name, settings: Mapping[str, float] = {}, *, steps: int = 0) -> Family:
    """The family called `name` with its hyper-parameters, the defaults where none is given.

    steps: of the whole training, of which `warmup` is a share.
    """
    values: dict[str, float] = KEYS[name] | dict(settings)
    if "warmup" in values:
        values["warmup_steps"] = round(values.pop("warmup") * steps)
    return family_class(name)(**values)
