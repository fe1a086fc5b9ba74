"""Families of sparse autoencoders: which positive pre-activations become codes, at what price.

A family is a file here (`topk`, `batchtopk`, `matryoshka`, `relu`, `jumprelu`) and an entry in
`FAMILIES`, which is data, no torch: the protocol and the plan read it. What families have in common
is in `base`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from bench.sae.families.base import Family


@dataclass(frozen=True)
class Key:
    """A hyper-parameter that only some families read; it is a key of the protocol.

    default: where it is None the key is off, and in no Spec.
    bounds: as pydantic's `Field` takes them (gt, ge, lt, le). Families that share a key share this.
    """

    default: float | None
    meaning: str
    bounds: Mapping[str, Any]


@dataclass(frozen=True)
class FamilySpec:
    """What is known of a family before it is loaded.

    implementation: the class, as "module:name".
    step_arrays: arrays [batch, n] that a dense step holds at once where gradients are computed.
    selection_arrays: the same where codes are selected, if that is among all of a batch.
    code_arrays: the same while a loss on dead features is computed.
    prefix_copies: arrays [batch, width] that a step holds for each of its prefixes.
    dense: it has no k: half of all features may be active.
    paths: the ways there are of computing its step.
    keys: its own hyper-parameters, which its class takes by name. Of `warmup`, a share of the
        training, it takes `warmup_steps`.
    """

    implementation: str
    step_arrays: float
    selection_arrays: float = 0.0
    code_arrays: float = 1.0
    prefix_copies: int = 0
    dense: bool = False
    paths: tuple[Literal["sparse", "dense"], ...] = ("sparse", "dense")
    keys: Mapping[str, Key] = field(default_factory=dict)


_WARMUP = Key(0.05, "share of the steps in which that price rises", {"ge": 0, "le": 1})
_TARGET_L0 = Key(None, "codes per token that the price aims at; the L0 to compare at", {"gt": 0})
_THRESHOLD_RATE = Key(0.01, "weight of the newest batch in its threshold", {"gt": 0, "le": 1})

FAMILIES: dict[str, FamilySpec] = {
    "topk": FamilySpec("bench.sae.families.topk:TopK", step_arrays=2.1),
    "batchtopk": FamilySpec(
        "bench.sae.families.batchtopk:BatchTopK",
        step_arrays=2.1,
        selection_arrays=4.0,
        keys={"threshold_rate": _THRESHOLD_RATE},
    ),
    "matryoshka": FamilySpec(
        "bench.sae.families.matryoshka:Matryoshka",
        step_arrays=2.1,
        selection_arrays=4.0,
        prefix_copies=2,
        paths=("dense",),
        keys={
            "threshold_rate": _THRESHOLD_RATE,
            "prefixes": Key(
                5, "nested dictionaries, the smallest n / 2^prefixes large", {"ge": 1, "le": 30}
            ),
        },
    ),
    "relu": FamilySpec(
        "bench.sae.families.relu:ReLU",
        step_arrays=3.0,
        dense=True,
        paths=("dense",),
        keys={
            "l1": Key(5.0, "price of a code's size", {"ge": 0}),
            "warmup": _WARMUP,
            "target_l0": _TARGET_L0,
        },
    ),
    "jumprelu": FamilySpec(
        "bench.sae.families.jumprelu:JumpReLU",
        step_arrays=5.0,
        code_arrays=2.25,
        dense=True,
        paths=("dense",),
        keys={
            "l0": Key(1e-3, "price of a code", {"ge": 0}),
            "warmup": _WARMUP,
            "target_l0": _TARGET_L0,
            "threshold": Key(1e-3, "threshold at birth, in units of sqrt(width)", {"gt": 0}),
            "bandwidth": Key(
                1e-3, "width of its gradient's kernel, in units of sqrt(width)", {"gt": 0}
            ),
        },
    ),
}

# What a protocol or a Spec means that names no family.
DEFAULT = "topk"


def is_dense(name: str | None) -> bool:
    """Whether the family has no k. False where a Spec names none, or one that is not known here."""
    return name in FAMILIES and FAMILIES[name].dense


def family_class(name: str) -> type[Family]:
    """The class of the family called `name`. Raises KeyError where there is none."""
    module, _, attribute = FAMILIES[name].implementation.partition(":")
    found: type[Family] = getattr(importlib.import_module(module), attribute)
    return found


def make_family(name: str, settings: Mapping[str, float] = {}, *, steps: int = 0) -> Family:
    """The family called `name` with its hyper-parameters, the defaults where none is given.

    steps: of the whole training, of which `warmup` is a share.
    """
    values: dict[str, Any] = {key: each.default for key, each in FAMILIES[name].keys.items()}
    values |= settings
    if "warmup" in values:
        values["warmup_steps"] = round(values.pop("warmup") * steps)
    return family_class(name)(**values)
