"""A trained SAE on activations: counts against the definition, and what centering would save."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.diagnosis.trained import diagnose_sae
from bench.sae.interop import library
from bench.sae.model import SAE
from bench.sae.origin import Origin
from zoo.errors import BadActivations

WIDTH, N, K = 16, 128, 4


def activations(gamma: float) -> Tensor:
    """Gaussian tokens [tokens, width] with ||mu|| = gamma ||sigma||."""
    generator = torch.Generator().manual_seed(3)
    mean = torch.randn(WIDTH, generator=generator)
    x = torch.randn(4000, WIDTH, generator=generator)
    return x + gamma * WIDTH**0.5 * mean / mean.norm()


def test_the_counts_are_those_of_the_definition() -> None:
    x, sae = activations(3.0), SAE.init(WIDTH, N, K, seed=0)
    found = diagnose_sae(x, sae)
    pre = x.double() @ sae.W_enc.double().T
    least = pre.topk(K, dim=1).values[:, -1:]
    fires = (pre >= least) & (pre > 0)
    never_positive = ~(pre > 0).any(0)
    assert found.by_relu.value == float(never_positive.double().mean())
    assert found.dead.value == float((~fires.any(0)).double().mean())
    assert found.by_topk.value == pytest.approx(found.dead.value - found.by_relu.value)
    assert found.l0 == pytest.approx(float(fires.sum()) / len(x))
    assert found.mean_learned == pytest.approx(0.0, abs=1e-9)


def test_a_bias_at_the_mean_is_what_centering_would_give() -> None:
    x, sae = activations(6.0), SAE.init(WIDTH, N, K, seed=0)
    raw = diagnose_sae(x, sae)
    assert raw.dead.value is not None
    assert raw.dead.value > 0.5
    assert raw.dead_if_centered.value == 0
    assert "Subtract it from the activations before training" in raw.verdict
    assert "learned 0%" in raw.verdict
    moved = diagnose_sae(x, replace(sae, b=x.mean(0)))
    assert moved.dead.value == 0
    assert moved.mean_learned == pytest.approx(1.0, abs=1e-3)
    assert moved.verdict.endswith("nothing to mend.")


def test_rows_that_centering_does_not_revive_are_told_apart() -> None:
    sae = SAE.init(WIDTH, N, K, seed=0)
    buried = replace(sae, b_enc=torch.where(torch.arange(N) < N // 2, -100.0, 0.0))
    found = diagnose_sae(activations(0.0), buried)
    assert found.by_relu.value == 0.5
    assert found.mean_learned is None
    assert "are not revived by moving the bias" in found.verdict


def test_another_width_is_named() -> None:
    with pytest.raises(BadActivations, match="width 16, the SAE takes 8"):
        diagnose_sae(activations(1.0), SAE.init(8, N, K, seed=0))


def test_on_the_command_line(bench: Callable[..., tuple[int, str, str]]) -> None:
    np.save("x.npy", activations(6.0).numpy())
    sae = SAE.init(WIDTH, N, K, seed=0)
    library("saelens").write(sae, Path("sae"), Origin(model="gpt2", layer=3))
    code, out, err = bench("diagnose", "x.npy", "--sae", "sae")
    assert (code, err) == (0, "")
    assert "sae: saelens, topk, n 128, k 4" in out
    assert "Subtract it" in out
    found = json.loads(bench("diagnose", "x.npy", "--sae", "sae", "--json")[1])
    assert found["origin"]["layer"] == 3
    assert found["dead_if_centered"]["value"] == 0
    for wrong in (["-n", "9"], ["-k", "2"], ["--plot", "a.png"]):
        code, out, err = bench("diagnose", "x.npy", "--sae", "sae", *wrong)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "for fresh dictionaries" in err
    code, _, err = bench("diagnose", "x.npy", "--sae", "x.npy")
    assert code == 2
    assert "not an SAE of a library that is known" in err
