"""Arrays that are not of one stream are several streams, or refused, and never added up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.diagnosis.files import open_activations
from zoo.dumps import dump_cards
from zoo.errors import BadManifest, UsageError
from zoo.scan import layer_number, scan, shared_name

STREAMS = {
    "layers": (["layer0.npy", "layer1.npy"], {"main": [1, 1]}),
    "shards": (["layer0-shard0.npy", "layer0-shard1.npy"], {"main": [2]}),
    "of": (["acts-00001-of-00002.npy", "acts-00002-of-00002.npy"], {"main": [2]}),
    "numbers alone": (["0.npy", "1.npy", "2.npy"], {"main": [3]}),
    "jobs": (["job1/layer0.npy", "job2/layer0.npy"], {"main": [2]}),
    "siblings": (["attn.npy", "mlp.npy"], {"attn": [1], "mlp": [1]}),
    "siblings of a layer": (
        ["layer0-attn.npy", "layer1-attn.npy", "layer0-mlp.npy", "layer1-mlp.npy"],
        {"layer-attn": [1, 1], "layer-mlp": [1, 1]},
    ),
    "sibling folders": (
        ["attn/layer0.npy", "mlp/layer0.npy"],
        {"attn-layer": [1], "mlp-layer": [1]},
    ),
    "heads": (["head0-layer0.npy", "head1-layer0.npy"], {"head0-layer": [1], "head1-layer": [1]}),
    "training steps": (["step10.npy", "step20.npy"], {"step10": [1], "step20": [1]}),
    "an output": (["h.npy", "h_distogram.npy"], {"h": [1], "h-distogram": [1]}),
}


def _write(folder: Path, names: list[str], width: int = 6) -> None:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.random.default_rng(number).normal(size=(4, width)).astype("f4"))


@pytest.mark.parametrize("case", STREAMS)
def test_streams_are_told_by_their_whole_names(case: str, tmp_path: Path) -> None:
    names, expected = STREAMS[case]
    _write(tmp_path, names)
    found = {
        stream.name: [len(layer.parts) for layer in stream.layers] for stream in scan(tmp_path)
    }
    assert found == expected


def test_keys_are_part_of_the_name(tmp_path: Path) -> None:
    x = np.ones((4, 6), np.float32)
    np.savez(tmp_path / "job1.npz", single=x, second=x)
    np.savez(tmp_path / "job2.npz", single=x, second=x)
    assert [(s.name, s.tokens) for s in scan(tmp_path)] == [("second", 8), ("single", 8)]
    (stream,) = scan(tmp_path, key="s*")
    assert stream.tokens == 16  # whoever names them says that they are one


def test_names_of_examples_are_refused_with_what_to_say(tmp_path: Path) -> None:
    _write(tmp_path, [f"{letter}Q{i}X.npy" for i, letter in enumerate("ABCDEFGHIJKL")])
    with pytest.raises(BadManifest, match=r"cannot be told from 12 names.* Say so with --pattern"):
        scan(tmp_path)
    (stream,) = scan(tmp_path, pattern="*.npy")
    assert stream.tokens == 48


@given(
    layers=st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True),
    shards=st.integers(1, 3),
    kinds=st.lists(st.sampled_from(["attn", "mlp", "resid-pre", "out"]), max_size=3, unique=True),
    template=st.sampled_from(["{kind}-layer{layer}-{shard}", "l/layer_{layer}/{kind}.part{shard}"]),
)
def test_nothing_is_added_up_across_kinds(
    layers: list[int], shards: int, kinds: list[str], template: str
) -> None:
    kinds = kinds or ["x"]
    names: dict[str, set[tuple[str, int | None]]] = {}
    for kind in kinds:
        for layer in layers:
            for shard in range(shards):
                name = template.format(kind=kind, layer=layer, shard=shard) + ".npy"
                names.setdefault(shared_name(name), set()).add((kind, layer))
                assert layer_number(name) == layer
    assert len(names) == len(kinds)
    assert all({layer for _, layer in found} == set(layers) for found in names.values())


@pytest.mark.parametrize(
    "names", [["attn.npy", "mlp.npy"], ["layer0.npy", "layer1.npy"], ["h.npy", "h_distogram.npy"]]
)
def test_diagnose_adds_nothing_up(names: list[str], tmp_path: Path) -> None:
    _write(tmp_path, names)
    with pytest.raises(UsageError, match="may be two streams or layers, by their names") as caught:
        open_activations(tmp_path)
    assert f"'{tmp_path}/*.npy' where all are" in caught.value.remedy
    assert open_activations(tmp_path / "*.npy").tokens == 8
    assert open_activations(tmp_path / f"{names[0][:-5]}?.npy").tokens in (4, 8)
    with pytest.raises(UsageError, match="holds no activations"):
        open_activations(tmp_path / "*.absent")


def test_shards_in_a_folder_are_one(tmp_path: Path) -> None:
    _write(tmp_path, ["acts-1.npy", "acts-2.npy", "acts-10.npy"])
    assert open_activations(tmp_path).tokens == 12


def _alphafold(folder: Path, job: str) -> None:
    rng = np.random.default_rng(0)
    for kind, arrays in {
        "embeddings": {"single_embeddings": (9, 384), "pair_embeddings": (9, 9, 128)},
        "distogram": {"distogram": (9, 9, 64)},
    }.items():
        path = folder / job / f"seed-1_{kind}" / f"{job}_seed-1_{kind}.npz"
        path.parent.mkdir(parents=True)
        np.savez_compressed(
            path, **{key: rng.normal(size=shape).astype("f2") for key, shape in arrays.items()}
        )


def test_alphafold_embeddings_are_found_beside_its_other_outputs(tmp_path: Path) -> None:
    _alphafold(tmp_path, "job1")
    _alphafold(tmp_path, "job2")
    cards = dump_cards(tmp_path)
    assert [(card.id.rsplit(".", 1)[1], card.tap.width) for card in cards] == [
        ("single", 384),
        ("pair", 128),
    ]
    assert open_activations(tmp_path).tokens == 18


def test_another_s_arrays_among_them_are_not_passed_over(tmp_path: Path) -> None:
    _alphafold(tmp_path, "job1")
    _write(tmp_path, ["mine/layer0.npy"])
    with pytest.raises(BadManifest, match=r"has no manifest\.json"):
        dump_cards(tmp_path)


def test_each_sibling_is_a_model_of_its_own(
    bench: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    _write(tmp_path / "acts", ["layer0-attn.npy", "layer0-mlp.npy"])
    assert bench("manifest", "acts", "--domain", "language")[0] == 0
    code, out, _ = bench("plan", "--model", "dump:acts")
    assert code == 0
    assert ".layer-attn" in out
    assert ".layer-mlp" in out
