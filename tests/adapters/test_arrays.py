from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from adapters import Adapter, check, open_adapter
from adapters.arrays import ArrayAdapter, StoredArray
from tests.adapters.tiny import make_card
from zoo.arrays import ARRAY_FORMATS
from zoo.cards import Card
from zoo.errors import BadActivations, BadCard, BadCorpus, BadWeights

WIDTH = 12


def _card(layers: int = 1, **options: Any) -> Card:
    return make_card(
        adapter="array",
        tap={"blocks": "layer.{i}", "layers": layers, "width": WIDTH},
        context=8,
        options=options,
    )


def _array(tokens: int, seed: int = 0, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((tokens, WIDTH)).astype(dtype)


def _all(adapter: Adapter, layer: int = 0) -> np.ndarray:
    assert isinstance(adapter, ArrayAdapter)
    stream = adapter.activations([layer], range(adapter.chunks), batch_size=3)
    return np.concatenate([batch.by_layer[layer].numpy() for batch in stream])


def _save(path: Path, array: np.ndarray) -> None:
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez_compressed(path, other=np.zeros(3), x=array)
    else:
        save_file({"x": array}, path)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_gives_back_what_was_saved(suffix: str, dtype: Any, tmp_path: Path) -> None:
    array = _array(21, dtype=dtype)
    _save(tmp_path / f"a{suffix}", array)
    found = _all(open_adapter(_card(key="x"), weights=tmp_path))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, array.astype(np.float32))


def test_layers_and_files_run_in_order(tmp_path: Path) -> None:
    for layer in (0, 1):
        for part in (0, 1):
            _save(tmp_path / f"layer{layer}-{part}.npy", _array(9 + part, 10 * layer + part))
    adapter = open_adapter(_card(2, file="layer{i}-*.npy"), weights=tmp_path)
    np.testing.assert_array_equal(_all(adapter, 1), np.concatenate([_array(9, 10), _array(10, 11)]))
    [batch] = adapter.activations([0], range(4), batch_size=9)
    assert batch.example.tolist() == [0] * 8 + [1] + [2] * 8 + [3] * 2


def test_alphafold_embeddings(tmp_path: Path) -> None:
    """Files as `run_alphafold.py --save_embeddings` writes them; the pair array is not read."""
    for job, tokens in (("a", 5), ("b", 11)):
        folder = tmp_path / job / "seed-1_embeddings"
        folder.mkdir(parents=True)
        np.savez_compressed(
            folder / f"{job}_seed-1_embeddings.npz",
            single_embeddings=_array(tokens, tokens, np.float16),
            pair_embeddings=np.zeros((tokens, tokens, 4), np.float16),
        )
    card = _card(file="**/*embeddings.npz", key="single_embeddings")
    expected = np.concatenate([_array(n, n, np.float16) for n in (5, 11)]).astype(np.float32)
    np.testing.assert_array_equal(_all(open_adapter(card, weights=tmp_path)), expected)


def test_only_the_rows_asked_for_are_read(tmp_path: Path) -> None:
    _save(tmp_path / "a.npy", _array(30))
    with (tmp_path / "a.npy").open("r+b") as file:
        file.truncate(file.seek(0, 2) - 10 * WIDTH * 4)
    with pytest.raises(BadActivations, match=r"a\.npy is broken or truncated \(1088 bytes where"):
        _ = StoredArray(tmp_path / "a.npy", None).header
    _save(tmp_path / "b.npy", _array(30))
    rows = StoredArray(tmp_path / "b.npy", None).rows(8, 16)
    np.testing.assert_array_equal(rows.numpy(), _array(30)[8:16])


def test_conforms(tmp_path: Path) -> None:
    for layer in (0, 1):
        _save(tmp_path / f"l{layer}.npy", _array(21, layer))
    card = _card(2, file="l{i}.npy")
    results = check(lambda: open_adapter(card, weights=tmp_path), range(3))
    assert [f"{r.name}: {r.detail}" for r in results if not r.ok] == []


def _failure(card: Card, folder: Path) -> str:
    with pytest.raises((BadWeights, BadCard)) as failure:
        _ = open_adapter(card, weights=folder).model
    return str(failure.value)


def test_empty_folder(tmp_path: Path) -> None:
    assert _failure(_card(file="x*"), tmp_path) == (
        f"model 'tiny': no arrays ({', '.join(ARRAY_FORMATS)}) at {tmp_path}/x*"
    )


def test_wrong_width(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 5), np.float32))
    assert _failure(_card(), tmp_path) == (
        f"model 'tiny': {tmp_path}/a.npy holds an array of shape (4, 5), the card says [tokens, 12]"
    )


def test_layers_of_different_lengths(tmp_path: Path) -> None:
    _save(tmp_path / "0.npy", _array(4))
    _save(tmp_path / "1.npy", _array(5))
    assert _failure(_card(2, file="{i}.npy"), tmp_path).startswith(
        "model 'tiny': layer 1 holds 5 tokens, layer 0 holds 4"
    )


def test_key_and_layer_number_are_needed(tmp_path: Path) -> None:
    _save(tmp_path / "a.npz", _array(4))
    assert _failure(_card(), tmp_path) == (
        "card 'tiny': options.key must name the array within a.npz"
    )
    assert _failure(_card(2, file="*"), tmp_path) == (
        "card 'tiny': options.file needs '{i}' for the layer's number"
    )


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
def test_truncated_file(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    _save(path, _array(40))
    path.write_bytes(path.read_bytes()[:-300])
    assert _failure(_card(key="x"), tmp_path).startswith("model 'tiny': ")


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[{}] * WIDTH]), allow_pickle=True)
    assert "cannot be loaded" in _failure(_card(), tmp_path)


def test_absent_key(tmp_path: Path) -> None:
    _save(tmp_path / "a.npz", _array(4))
    assert "cannot be loaded" in _failure(_card(key="y"), tmp_path)


@pytest.mark.parametrize("example", [-1, 3, "x"])
def test_chunks_there_are_not(example: Any, tmp_path: Path) -> None:
    _save(tmp_path / "a.npy", _array(20))
    adapter = open_adapter(_card(), weights=tmp_path)
    with pytest.raises(BadCorpus, match=r"no chunk|a chunk number is needed"):
        list(adapter.activations([0], [example], batch_size=1))
    assert torch.equal(
        next(adapter.activations([0], [2], batch_size=1)).by_layer[0],
        torch.from_numpy(_array(20)[16:]),
    )
