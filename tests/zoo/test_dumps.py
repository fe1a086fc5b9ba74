"""Folders of activations: what is found in them, and manifests that must tell the truth."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from zoo.dumps import dump_cards
from zoo.errors import BadManifest
from zoo.manifest import (
    DumpStream,
    checked_manifest,
    make_manifest,
    read_manifest,
    verify,
    write_manifest,
)
from zoo.scan import scan
from zoo.weights import weights_identity


def _array(tokens: int, width: int = 6, seed: int = 0, dtype: Any = np.float16) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((tokens, width)).astype(dtype)


def _dump(folder: Path) -> Path:
    """Layers 3 and 11, each in shards 2 and 10."""
    folder.mkdir(parents=True, exist_ok=True)
    for layer in (3, 11):
        for shard, tokens in ((2, 20), (10, 5)):
            np.save(folder / f"layer_{layer}-{shard}.npy", _array(tokens, seed=layer + shard))
    return folder


def _written(folder: Path) -> Path:
    write_manifest(folder, make_manifest(folder, scan(folder), "language"))
    return folder


def _layers(streams: tuple[DumpStream, ...]) -> dict[int, list[tuple[str, str | None]]]:
    (stream,) = streams
    return {layer.layer: [(p.path, p.key) for p in layer.parts] for layer in stream.layers}


def test_layers_are_read_from_names_and_shards_keep_their_natural_order(tmp_path: Path) -> None:
    assert _layers(scan(_dump(tmp_path))) == {
        3: [("layer_3-2.npy", None), ("layer_3-10.npy", None)],
        11: [("layer_11-2.npy", None), ("layer_11-10.npy", None)],
    }


def test_layers_are_read_from_keys_and_other_arrays_left_out(tmp_path: Path) -> None:
    save_file({f"model.layers.{i}": _array(4, seed=i) for i in (0, 10)}, tmp_path / "a.safetensors")
    np.savez(
        tmp_path / "b.npz", layer0=_array(3), layer10=_array(3), ids=np.zeros((3, 6), np.int64)
    )
    first, second = scan(tmp_path)  # two files of other names are two streams
    assert (first.name, second.name) == ("a-model-layers", "b-layer")
    assert _layers((first,)) == {
        0: [("a.safetensors", "model.layers.0")],
        10: [("a.safetensors", "model.layers.10")],
    }
    assert _layers((second,)) == {0: [("b.npz", "layer0")], 10: [("b.npz", "layer10")]}


def test_a_pattern_or_a_key_says_where_the_number_stands(tmp_path: Path) -> None:
    (tmp_path / "run1").mkdir()
    for i in (0, 1):
        np.save(tmp_path / "run1" / f"acts{i}.npy", _array(3))
    np.save(tmp_path / "other.npy", _array(9))
    found = _layers(scan(tmp_path, pattern="**/acts{i}.npy"))
    assert found == {0: [("run1/acts0.npy", None)], 1: [("run1/acts1.npy", None)]}
    np.savez(tmp_path / "k.npz", h4=_array(2), h5=_array(2), w4=_array(2))
    found = _layers(scan(tmp_path, pattern="k.npz", key="h{i}"))
    assert found == {4: [("k.npz", "h4")], 5: [("k.npz", "h5")]}


def test_alphafold_embeddings_are_two_streams_of_all_jobs(tmp_path: Path) -> None:
    for job, tokens in (("a", 5), ("b", 3)):
        folder = tmp_path / job / "seed-1_embeddings"
        folder.mkdir(parents=True)
        np.savez_compressed(
            folder / f"{job}_seed-1_embeddings.npz",
            single_embeddings=_array(tokens, 8),
            pair_embeddings=np.ones((tokens, tokens, 4), np.float16),
        )
    single, pair = scan(tmp_path)
    assert (single.name, single.width, single.tokens) == ("single", 8, 8)
    assert (pair.name, pair.width, pair.tokens) == ("pair", 4, 34)
    cards = dump_cards(tmp_path)  # without a manifest: the layout is known
    assert [card.domain for card in cards] == ["protein", "protein"]
    assert [card.id.rsplit(".", 1)[1] for card in cards] == ["single", "pair"]


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({}, "holds no activations (.npy, .npz, .safetensors, .pt, .pth, .parquet"),
        ({"layer0": _array(3), "layer1": _array(4)}, "layer 1 holds 4 tokens in 1 arrays, layer 0"),
        ({"layer0": _array(3), "x": _array(3)}, "which layer a.npz, x belongs to cannot be told"),
        ({"x": np.ones((2, 3, 4))}, "a.npz, x has shape (2, 3, 4), not [tokens, width]. If no pad"),
        ({"x": np.ones((0, 4))}, "has shape (0, 4), not [tokens, width]"),
        ({"x": np.ones((3, 4), np.int32)}, "holds no activations"),
    ],
)
def test_a_folder_that_cannot_be_read_says_why(
    arrays: dict[str, np.ndarray], says: str, tmp_path: Path
) -> None:
    if arrays:
        np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(BadManifest) as caught:
        scan(tmp_path)
    assert says in str(caught.value)


def test_all_axes_but_the_last_count_tokens_where_flattened(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((2, 3, 4), np.float32))
    (stream,) = scan(tmp_path, flatten=True)
    assert (stream.tokens, stream.width) == (6, 4)


def test_a_manifest_that_is_true_makes_a_card_of_the_layers_there_are(tmp_path: Path) -> None:
    (card,) = dump_cards(_written(_dump(tmp_path / "My Acts")))
    assert card.id == "dump.my-acts"
    assert list(card.layers) == [3, 11]
    assert card.tap.width == 6
    assert verify(tmp_path / "My Acts", read_manifest(tmp_path / "My Acts"), contents=True) == []


def _edit(folder: Path, old: str, new: str) -> None:
    path = folder / "manifest.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def _rewrite(folder: Path, **changes: Any) -> None:
    np.save(folder / "layer_3-2.npy", _array(20, seed=9, **changes))


LIES = {
    "absent": (
        lambda folder: (folder / "layer_3-2.npy").unlink(),
        "layer_3-2.npy is absent",
    ),
    "longer": (
        lambda folder: np.save(folder / "layer_3-2.npy", _array(21)),
        "layer_3-2.npy has 380 bytes, not 368",
    ),
    "contents": (_rewrite, "layer_3-2.npy has other contents (SHA-256 "),
    "shape": (
        lambda folder: _edit(folder, " 20,\n", " 19,\n"),
        "layer_3-2.npy is float16 [20, 6], not float16 [19, 6]",
    ),
    "dtype": (
        lambda folder: _edit(folder, '"float16"', '"float32"'),
        "layer_3-2.npy is float16 [20, 6], not float32 [20, 6]",
    ),
    "width": (
        lambda folder: _edit(folder, '"width": 6', '"width": 7'),
        "layer_3-2.npy is 6 wide, not 7",
    ),
    "swapped": (
        lambda folder: _edit(folder, '"path": "layer_3-2.npy"', '"path": "layer_3-10.npy"'),
        "layer_3-10.npy is float16 [5, 6], not float16 [20, 6]",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_manifest_that_lies_is_refused_with_what_differs(lie: str, tmp_path: Path) -> None:
    folder = _written(_dump(tmp_path))
    spoil, says = LIES[lie]
    spoil(folder)
    with pytest.raises(BadManifest) as caught:
        checked_manifest(folder)
    assert says in str(caught.value)
    assert "does not say what the folder holds" in str(caught.value)


def test_contents_are_hashed_again_only_where_a_file_was_touched(tmp_path: Path) -> None:
    folder = _written(_dump(tmp_path))
    path = folder / "layer_3-2.npy"
    before = path.stat().st_mtime_ns
    _rewrite(folder)
    os.utime(path, ns=(before, before))
    manifest = read_manifest(folder)
    assert verify(folder, manifest) == []
    assert len(verify(folder, manifest, contents=True)) == 1


def test_a_folder_without_a_manifest_says_how_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(BadManifest, match=r"has no manifest\.json\. Write it with `bench manifest"):
        dump_cards(_dump(tmp_path))
    with pytest.raises(BadManifest, match="no folder of activations at"):
        dump_cards(tmp_path / "absent")


def test_a_manifest_of_another_format_is_refused(tmp_path: Path) -> None:
    folder = _written(_dump(tmp_path))
    _edit(folder, "gammabench-dump-1", "gammabench-dump-9")
    with pytest.raises(BadManifest, match=r"manifest\.json: format: 'gammabench-dump-9' should be"):
        read_manifest(folder)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(BadManifest, match="cannot be read"):
        read_manifest(folder)


def test_the_identity_follows_the_contents_and_not_the_place(tmp_path: Path) -> None:
    one, two = (_written(_dump(tmp_path / name)) for name in ("one", "two"))
    assert read_manifest(one).identity() == read_manifest(two).identity()
    _rewrite(two)
    _written(two)
    (first,), (second,) = dump_cards(one), dump_cards(two)
    assert weights_identity(first) == read_manifest(one).identity() != weights_identity(second)


def test_an_archive_without_a_manifest_is_identified_by_its_checksums(tmp_path: Path) -> None:
    identities = []
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        (tmp_path / name).mkdir()
        np.savez_compressed(
            tmp_path / name / "x_embeddings.npz",
            single_embeddings=_array(5, 8, seed),
            pair_embeddings=np.ones((5, 5, 4), np.float16),
        )
        identities.append(weights_identity(dump_cards(tmp_path / name)[0]))
    assert identities[0] == identities[1] != identities[2]


def test_a_manifest_is_small(tmp_path: Path) -> None:
    folder = _written(_dump(tmp_path))
    content = json.loads((folder / "manifest.json").read_text())
    assert set(content) == {"format", "summary", "domain", "data", "streams", "files"}
