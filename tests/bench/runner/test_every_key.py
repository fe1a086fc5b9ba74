"""Every key of a protocol is read: with another value a cell has another hash and other results."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from bench.plan.blocks import Request, make_plan
from bench.plan.protocol import AXES, Protocol, load_protocol
from bench.records.schema import Record
from bench.runner.block import measure_block
from bench.sae.recipe import FAMILY_KEYS
from zoo.registry import load_registry

TINY = (
    "n=32", "k=4", "N=64", "steps=8", "batch=16", "buffer=64", "forward_tokens=128", "lr=0.01",
    "aux_k=4", "dead_after=16", "checkpoints=2", "path=sparse", "resample_share=0.25",
)  # fmt: skip

# Of a model's forward pass, which made activations have none of.
OF_MODELS = {"dtype", "forward_tokens"}

# By key: another value, and the arm that reads it, with its family and that one's settings.
RAW = ("raw",)
DEFAULTS = ("raw", "topk")
CHANGES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "n": (33, RAW), "k": (5, RAW), "family": ("batchtopk", RAW), "steps": (9, RAW),
    "batch": (17, RAW), "lr": (0.02, RAW), "beta1": (0.8, RAW), "beta2": (0.99, RAW),
    "eps": (0.01, RAW), "clip": (1e-3, RAW), "bias": ("frozen", RAW), "path": ("dense", RAW),
    "precision": ("bf16", RAW), "aux_k": (5, ("raw+auxk",)), "aux_alpha": (1.0, ("raw+auxk",)),
    "dead_after": (64, ("raw+auxk",)), "bias_rate": (20, ("raw+b-fast",)),
    "mask_ratio": (1.05, ("raw+mask",)), "active_variance": (0.5, ("raw+subspace",)),
    "pre_act_weight": (1.0, ("raw+pre-act",)), "resample_share": (0.5, ("raw+resample",)),
    "resample_scale": (0.9, ("raw+resample",)), "anneal_from": (3, ("raw+k-anneal",)),
    "anneal_share": (1, ("raw+k-anneal",)), "lr_warmup": (1, ("raw+lr-warmup",)),
    "longer": (2, ("raw+longer",)), "N": (65, RAW), "fit_tokens": (32, ("centered",)),
    "checkpoints": (3, RAW), "data_seed": (1, RAW), "seeds_vary": ("init+data", RAW),
    "mask_norm": (1.05, RAW), "buffer": (80, RAW),
    "buffer_dtype": ("bfloat16", RAW), "threshold_rate": (0.5, ("raw", "batchtopk")),
    "prefixes": (3, ("raw", "matryoshka")), "l1": (50, ("raw", "relu")),
    "warmup": (1, ("raw", "relu")), "target_l0": (4, ("raw", "relu")),
    "l0": (1, ("raw", "jumprelu")), "threshold": (0.5, ("raw", "jumprelu")),
    "bandwidth": (1, ("raw", "jumprelu", "threshold=0.3")),
}  # fmt: skip


@cache
def measured(arm: str, family: str, *settings: str) -> Record:
    own = [] if family == "topk" else [f"family={family}"]
    tiny = [each for each in TINY if not own or not each.startswith("path")]
    protocol = load_protocol("quick", settings=[*tiny, *own, *settings], arms=[arm], seeds=[1])
    registry = load_registry()
    (block,) = make_plan(Request([registry.card("synthetic-gamma4")], protocol), registry)
    (record,) = measure_block(block)
    assert record.failure is None
    return record


@pytest.mark.slow
@pytest.mark.parametrize("key", CHANGES)
def test_a_key_that_is_changed_changes_the_hash_and_what_is_measured(key: str) -> None:
    value, where = CHANGES[key]
    arm, family, *settings = *where, *DEFAULTS[len(where) :]
    plain = measured(arm, family, *settings)
    changed = measured(arm, family, *settings, f"{key}={value}")
    assert plain.hash != changed.hash
    assert plain.result != changed.result


@pytest.mark.slow
def test_what_is_measured_twice_is_the_same() -> None:
    assert measured.__wrapped__(*DEFAULTS).result == measured(*DEFAULTS).result


def test_no_key_is_left_out() -> None:
    keys = set(Protocol.model_fields) - set(AXES) - OF_MODELS
    assert keys == set(CHANGES)
    assert set(FAMILY_KEYS) <= set(CHANGES)
