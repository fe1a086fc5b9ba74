"""The SAE: its init, its reconstruction, and what it looks like on disk."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.sae.arms import Arm, all_arms
from bench.sae.families import FAMILIES as SPECS
from bench.sae.families import make_family
from bench.sae.families.base import Family
from bench.sae.model import SAE, load_sae
from bench.sae.recipe import Recipe
from bench.sae.transform import WHITENING_NORMS, Transform
from zoo.errors import BadWeights, OutputError

WIDTH, N, K = 12, 64, 4
FAMILIES = [make_family(name) for name in SPECS]
INPUT_ARMS = [arm for arm in all_arms() if arm.aux == "none"]
ids = [arm.name for arm in INPUT_ARMS]


def activations(dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    mixing = torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64)
    x = torch.randn(300, WIDTH, generator=generator, dtype=torch.float64) @ mixing
    return (x + 5 * torch.randn(WIDTH, generator=generator, dtype=torch.float64)).to(dtype)


def used(arm: Arm, x: Tensor, family: Family | None = None) -> SAE:
    """An SAE as training leaves it: no longer tied, biases and thresholds not zero."""
    generator = torch.Generator().manual_seed(5)
    transform = Transform.fit(arm, x)
    sae = SAE.init(WIDTH, N, K, seed=1, transform=transform, family=family, dtype=x.dtype)
    for tensor in sae.family_tensors.values():
        tensor.add_(torch.rand(tensor.shape, generator=generator))
    sae.W_enc.add_(0.2 * torch.randn(N, WIDTH, generator=generator))
    sae.b_enc.add_(0.2 * torch.randn(N, generator=generator))
    sae.b.add_(0.2 * torch.randn(WIDTH, generator=generator))
    return sae


def test_init_is_tied_and_of_unit_norm() -> None:
    sae = SAE.init(WIDTH, N, K, seed=7)
    assert torch.equal(sae.W_enc, sae.W_dec)
    assert sae.W_enc.data_ptr() != sae.W_dec.data_ptr()
    assert np.allclose(np.linalg.norm(sae.W_dec.numpy(), axis=1), 1, atol=1e-6)
    assert not sae.b_enc.any()
    assert not sae.b.any()


def test_init_depends_on_the_seed_and_on_nothing_else() -> None:
    x = activations()
    torch.manual_seed(123)
    first = SAE.init(WIDTH, N, K, seed=7)
    for arm in INPUT_ARMS:
        torch.rand(3)
        again = SAE.init(WIDTH, N, K, seed=7, transform=Transform.fit(arm, x))
        assert all(map(torch.equal, first.weights, again.weights))
    assert not torch.equal(first.W_dec, SAE.init(WIDTH, N, K, seed=8).W_dec)
    double = SAE.init(WIDTH, N, K, seed=7, dtype=torch.float64)
    assert torch.equal(double.W_dec, first.W_dec.double())


@pytest.mark.parametrize("arm", INPUT_ARMS, ids=ids)
def test_reconstruction_equals_the_formula(arm: Arm) -> None:
    x = activations()
    sae = used(arm, x)
    y, taken = sae.transform.apply(x)
    pre = ((y - sae.b) @ sae.W_enc.T + sae.b_enc).numpy()
    kept = np.where(pre >= np.sort(pre, 1)[:, -K, None], np.maximum(pre, 0), 0)
    expected = sae.transform.invert(torch.from_numpy(kept) @ sae.W_dec + sae.b, taken)
    assert torch.allclose(sae.reconstruct(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("arm", INPUT_ARMS, ids=ids)
def test_saved_and_loaded_is_the_same(arm: Arm, family: Family, tmp_path: Path) -> None:
    x = activations(torch.float32)
    sae = used(arm, x, family)
    sae.save(tmp_path / "sae")
    loaded = load_sae(str(tmp_path / "sae"))
    assert torch.equal(loaded.reconstruct(x), sae.reconstruct(x))
    assert all(map(torch.equal, loaded.weights, sae.weights))
    assert loaded.family == family
    assert loaded.family_tensors.keys() == sae.family_tensors.keys()


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("arm", INPUT_ARMS, ids=ids)
def test_folded_export_reconstructs_equally_from_plain_weights(
    arm: Arm, family: Family, tmp_path: Path
) -> None:
    x = activations()
    sae = used(arm, x, family)
    sae.folded().save(tmp_path)
    folded = load_sae(tmp_path)
    assert folded.transform.scale == 1.0
    assert folded.transform.matrix is None
    assert not folded.transform.center.any()
    assert torch.allclose(folded.reconstruct(x), sae.reconstruct(x), rtol=1e-8, atol=1e-8)
    assert torch.allclose(folded.directions(), sae.directions(), atol=1e-12)
    if arm.norm not in WHITENING_NORMS:
        norms = torch.linalg.vector_norm(folded.W_dec, dim=1)
        assert torch.allclose(norms, torch.ones_like(norms))


def test_directions_are_raw_ones() -> None:
    x = activations()
    sae = used(Arm("mean", "whiten"), x)
    y, _ = sae.transform.apply(x[:1])
    moved = sae.transform.invert(y + sae.W_dec[3]) - sae.transform.invert(y)
    cosine = torch.nn.functional.cosine_similarity(moved[0], sae.directions()[3], dim=0)
    assert float(cosine) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("k", [0, N, N + 1])
def test_an_impossible_k_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=f"k = {k}"):
        SAE.init(WIDTH, N, k, seed=0)


def test_saving_again_replaces_the_sae_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "sae"
    SAE.init(WIDTH, N, K, seed=0).save(folder)
    (folder / "notes.txt").write_text("mine")
    second = SAE.init(WIDTH, N, K, seed=1)
    second.save(folder)
    assert torch.equal(load_sae(folder).W_enc, second.W_enc)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["notes.txt", "sae.json", "sae.safetensors"]
    assert [path.name for path in tmp_path.iterdir()] == ["sae"]


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("killed_at", [0, 1])
def test_an_interrupted_save_leaves_no_mixture(
    before: bool, killed_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "sae"
    if before:
        SAE.init(WIDTH, N, K, seed=0).save(folder)
    calls = []
    replace = os.replace

    def dying(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) > killed_at:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr("bench.sae.model.os.replace", dying)
    second = SAE.init(WIDTH, N, K, seed=1)
    with suppress(KeyboardInterrupt):
        second.save(folder)
    if not before and killed_at:
        assert torch.equal(load_sae(folder).W_enc, second.W_enc)
    else:
        with pytest.raises(BadWeights):
            load_sae(folder)
    assert [path.name for path in tmp_path.iterdir()] == (["sae"] if before or killed_at else [])


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write the SAE .*file/sae"):
        SAE.init(WIDTH, N, K, seed=0).save(tmp_path / "file" / "sae")


def test_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadWeights, match=r"sae\.json: cannot be read"):
        load_sae(tmp_path)
    SAE.init(WIDTH, N, K, seed=0).save(tmp_path)
    weights = tmp_path / "sae.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(BadWeights, match=r"sae\.safetensors: cannot be read"):
        load_sae(tmp_path)
    (tmp_path / "sae.json").write_text('{"format": "other"}')
    with pytest.raises(BadWeights, match="not an SAE of format"):
        load_sae(tmp_path)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    SAE.init(WIDTH, N, K, seed=0).save(tmp_path)
    config = tmp_path / "sae.json"
    config.write_text(config.read_text().replace(f'"n": {N}', '"n": 32'))
    with pytest.raises(BadWeights, match=r"W_enc is \[64, 12\], not \[32, 12\]"):
        load_sae(tmp_path)


def test_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    SAE.init(WIDTH, N, K, seed=0).save(tmp_path)
    config = tmp_path / "sae.json"
    whole = config.read_text()
    config.write_text(whole.replace('"architecture": "topk"', '"architecture": "gated"'))
    with pytest.raises(BadWeights, match="unknown architecture 'gated'"):
        load_sae(tmp_path)
    config.write_text(whole.replace('"family": {}', '"family": {"l1": 2}'))
    with pytest.raises(BadWeights, match=r"its settings do not fit \(.*l1"):
        load_sae(tmp_path)


@pytest.mark.parametrize(
    ("name", "tensor", "says"),
    [
        ("b_enc", torch.zeros(3), r"b_enc is \[3\], not \[64\]"),
        ("b", torch.zeros(1), r"b is \[1\], not \[12\]"),
        ("center", torch.zeros(12, 1), r"center is \[12, 1\], not \[12\]"),
        ("W_dec", torch.zeros(N, WIDTH, dtype=torch.float64), "W_dec is of dtype torch.float64"),
        ("b_enc", torch.zeros(N, dtype=torch.int64), "b_enc is of dtype torch.int64"),
        ("b", None, "b is missing"),
        ("matrix", torch.eye(WIDTH), "inverse is missing"),
        ("inverse", torch.eye(WIDTH), "matrix is missing"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(
    tmp_path: Path, name: str, tensor: Tensor | None, says: str
) -> None:
    SAE.init(WIDTH, N, K, seed=0).save(tmp_path)
    weights = tmp_path / "sae.safetensors"
    tensors = {key: value for key, value in load_file(weights).items() if key != name}
    save_file(tensors | ({} if tensor is None else {name: tensor}), weights)
    with pytest.raises(BadWeights, match=says):
        load_sae(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("k", 0), ("k", N), ("k", "few"), ("scale", "large"), ("scale", 0), ("scale", 1e999)],
)
def test_settings_that_no_sae_has_are_refused(tmp_path: Path, key: str, value: object) -> None:
    SAE.init(WIDTH, N, K, seed=0).save(tmp_path)
    config = tmp_path / "sae.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {key: value}))
    with pytest.raises(BadWeights, match=r"no SAE has|its settings do not fit"):
        load_sae(tmp_path)


def test_what_was_saved_before_there_were_families_is_topk(tmp_path: Path) -> None:
    sae = SAE.init(WIDTH, N, K, seed=0)
    sae.save(tmp_path)
    config = json.loads((tmp_path / "sae.json").read_text())
    del config["family"]
    (tmp_path / "sae.json").write_text(json.dumps(config))
    assert load_sae(tmp_path).family == sae.family


def test_an_unknown_norm_is_refused(tmp_path: Path) -> None:
    SAE.init(WIDTH, N, K, seed=0).save(tmp_path)
    config = tmp_path / "sae.json"
    config.write_text(config.read_text().replace('"norm": null', '"norm": "l7"'))
    with pytest.raises(BadWeights, match="unknown norm 'l7'"):
        load_sae(tmp_path)


def test_the_rate_falls_with_the_root_of_n() -> None:
    assert Recipe(n=16384, k=32, lr=1e-4).rate == pytest.approx(1e-4)
    assert Recipe(n=4096, k=32, lr=1e-4).rate == pytest.approx(2e-4)


@pytest.mark.parametrize("name", ["W_enc", "b_enc", "W_dec", "b", "center"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, name: str, value: float) -> None:
    """As a training that diverged leaves them: an SAE of NaN would look alive, or dead."""
    SAE.init(6, 32, 4, seed=0).save(tmp_path / "sae")
    file = tmp_path / "sae" / "sae.safetensors"
    tensors = load_file(file)
    tensors[name].view(-1)[0] = value
    save_file(tensors, file)
    with pytest.raises(BadWeights, match=f"{name} has values that are not finite"):
        load_sae(tmp_path / "sae")
