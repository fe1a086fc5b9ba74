"""Activations as people publish them: the files of others, where they lie beside this checkout."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from bench.diagnosis.diagnose import diagnose

SMALL = {"n": 512, "k": 16}


def real(name: str) -> Path:
    """A file in the folder that the environment names, or in one beside this checkout."""
    named = os.environ.get("GAMMABENCH_REAL")
    folders = [Path(named)] if named else list(Path(__file__).parents[4].glob("*/real"))
    found = [folder / name for folder in folders if (folder / name).exists()]
    if not found:
        pytest.skip(f"{name} is not here; set GAMMABENCH_REAL to a folder that holds it")
    return found[0]


@pytest.mark.slow  # spectra of width 3,584
@pytest.mark.parametrize(
    ("name", "raw", "layernorm"), [("moon_01", 0.4405, 1.1315), ("ship_02", 0.4072, 1.0725)]
)
def test_two_massive_tokens_of_gemma_are_named_first(name, raw, layernorm):
    path = real(f"residual_gemma2/{name}.npz")
    with np.load(path) as file:
        (key,) = [key for key in file.files if key != "all_probs" and "resid" in key]
        x = file[key]
    found = diagnose(np.asarray(x, dtype=np.float32), **SMALL)
    stats = found.statistics
    assert stats.gamma_raw == pytest.approx(raw, abs=2e-4)
    assert stats.gamma == pytest.approx(layernorm, abs=2e-4)
    assert stats.massive_share * stats.tokens == pytest.approx(2)
    assert stats.norm_ratio == pytest.approx(14, abs=1.5)
    assert stats.energy_share > 0.95
    reason = found.verdict.reason
    assert "massive, over 10 times the median norm" in reason.split(". ")[0]
    assert "hide the mean from the raw gamma" in reason


def test_proteins_show_no_massive_token_and_each_alone_an_inflated_gamma():
    h5py = pytest.importorskip("h5py")
    with h5py.File(real("prott5_sample.h5")) as file:
        proteins = [file[name][...] for name in file]
    together = diagnose(proteins, **SMALL)
    assert together.statistics.gamma == pytest.approx(0.2015, abs=5e-4)
    assert together.statistics.norm_ratio == pytest.approx(2.05, abs=0.01)
    assert together.without_massive is None
    assert together.gamma_without_chance < together.statistics.gamma
    # Five proteins: part of what they show is theirs alone.
    assert "few sequences" in together.verdict.reason
