"""Array files of anybody: read, or one line and code 2; whatever the bytes."""

from __future__ import annotations

import io
import itertools
import json
import os
import time
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from bench.cli.main import run_cli
from bench.diagnosis.files import open_activations
from bench.sae.interop import read_sae
from tests.hostile.arrays import GOOD, KINDS, flipped, write_nasty_arrays
from zoo.errors import BadActivations, BadWeights, UsageError

SETTINGS = ["-n", "16", "-k", "2", "-N", "64"]


@pytest.mark.parametrize("suffix", KINDS)
def test_each_file_is_diagnosed_or_refused_in_one_line(
    suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = 0
    for wrong, path in write_nasty_arrays(tmp_path, suffix):
        began = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            code = run_cli(["diagnose", str(path), *SETTINGS])
        out, err = capsys.readouterr()
        assert time.process_time() - began < 5, wrong
        refused += code != 0
        if code == 0:
            assert (out.count("verdict: "), err) == (1, ""), wrong
            continue
        assert code == 2, wrong
        assert out == "", wrong
        assert err.startswith(f"bench: {path}"), (wrong, err)
        assert err.count("\n") == 1, (wrong, err)
        assert len(err) < 600, (wrong, err)
    assert refused > 20


def good(suffix: str) -> bytes:
    """A file of the format as it should be."""
    file = io.BytesIO()
    if suffix == ".npy":
        np.save(file, GOOD)
    elif suffix == ".npz":
        np.savez_compressed(file, a=GOOD)
    elif suffix == ".pt":
        torch.save(torch.from_numpy(GOOD), file)
    elif suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"a": pa.array(GOOD.tolist())}), file)
    else:
        from safetensors.torch import save

        return save({"a": torch.from_numpy(GOOD)})
    return file.getvalue()


@pytest.mark.parametrize("suffix", KINDS)
@given(data=st.data())
def test_any_bytes_are_read_or_refused(
    suffix: str, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Bytes turned, cut, put in, or doubled at places that are drawn."""
    content = good(suffix)
    path = tmp_path_factory.getbasetemp() / f"fuzzed-{os.getpid()}{suffix}"
    for _ in range(data.draw(st.integers(1, 3))):
        # Headers are at the ends.
        place = data.draw(st.integers(0, min(300, len(content) - 1)))
        place = len(content) - 1 - place if data.draw(st.booleans()) else place
        how = data.draw(st.sampled_from(["turn", "cut", "put in", "double"]))
        if how == "turn":
            content = flipped(place)(content)
        elif how == "cut":
            content = content[: max(1, place)]
        elif how == "put in":
            content = content[:place] + data.draw(st.binary(max_size=20)) + content[place:]
        else:
            content = content[:place] + content[max(0, place - 40) :]
    path.write_bytes(content)
    with suppress(BadActivations, UsageError):
        found = open_activations(path)
        assert sum(map(len, itertools.islice(found.chunks(), 4))) == found.tokens


# ---------------------------------------------------------------------------------- files of SAEs


def saes(folder: Path) -> None:
    """An SAE in two libraries' layouts, whose weights and settings are to be spoiled."""
    tensors = {
        "W_enc": torch.randn(8, 16),
        "W_dec": torch.randn(16, 8),
        "b_enc": torch.zeros(16),
        "b_dec": torch.zeros(8),
    }
    lens = {"architecture": "topk", "k": 2, "d_in": 8, "d_sae": 16, "dtype": "float32"}
    (folder / "saelens").mkdir(parents=True)
    save_file(tensors, folder / "saelens" / "sae_weights.safetensors")
    (folder / "saelens" / "cfg.json").write_text(json.dumps(lens))
    linear = {"encoder.weight": tensors["W_enc"].mT.contiguous(), "encoder.bias": tensors["b_enc"]}
    (folder / "sparsify").mkdir()
    save_file(
        linear | {"W_dec": tensors["W_dec"], "b_dec": tensors["b_dec"]},
        folder / "sparsify" / "sae.safetensors",
    )
    (folder / "sparsify" / "cfg.json").write_text(json.dumps({"d_in": 8, "k": 2}))


@pytest.mark.parametrize("layout", ["saelens/sae_weights", "sparsify/sae"])
def test_weights_of_an_sae_are_read_or_refused(layout: str, tmp_path: Path) -> None:
    saes(tmp_path)
    path = tmp_path / f"{layout}.safetensors"
    assert read_sae(path.parent)[0].n == 16
    for wrong, nasty in write_nasty_arrays(tmp_path / "nasty", ".safetensors"):
        path.write_bytes(nasty.read_bytes())
        with pytest.raises(BadWeights) as caught:
            read_sae(path.parent)
        assert "\n" not in str(caught.value), wrong
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(BadWeights):
        read_sae(path.parent)


@pytest.mark.parametrize("layout", ["saelens", "sparsify"])
@pytest.mark.parametrize("value", ["x", None, [], {}, -1, 0, 1e400, 10**30, True, "1e5", [[2]]])
def test_settings_of_an_sae_are_read_or_refused(layout: str, value: object, tmp_path: Path) -> None:
    saes(tmp_path)
    path = tmp_path / layout / "cfg.json"
    before = json.loads(path.read_text())
    for key in before:
        path.write_text(json.dumps(before | {key: value}))
        with suppress(BadWeights):
            assert read_sae(path.parent)[0].n == 16
