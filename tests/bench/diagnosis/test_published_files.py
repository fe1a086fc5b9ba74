"""Activations as people publish them: many sequences, odd shapes, other libraries' folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.diagnosis.files import open_activations
from bench.diagnosis.reading import read_sample
from zoo.arrays import open_arrays
from zoo.errors import BadActivations, UsageError

# Data files of others, in a folder beside this checkout where there is one.
REAL = next(Path(__file__).parents[4].glob("*/real"), Path("nowhere"))


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)


def tokens_of(path: Path, key: str | None = None) -> np.ndarray:
    return torch.cat([part.float() for part in open_activations(path, key).chunks()]).numpy()


def test_a_key_per_sequence_is_joined_in_natural_order(x: np.ndarray, tmp_path: Path) -> None:
    cut = {"10": x[150:], "9": x[20:150], "2": x[:20]}
    np.savez(tmp_path / "a.npz", **cut, lengths=np.arange(3))
    np.testing.assert_array_equal(tokens_of(tmp_path / "a.npz"), x)
    found = open_activations(tmp_path / "a.npz")
    assert found.notes == ("3 arrays joined: 2, 9, 10",)
    assert found.name == f"{tmp_path / 'a.npz'} (3 arrays)"
    np.testing.assert_array_equal(tokens_of(tmp_path / "a.npz", "9"), x[20:150])
    np.testing.assert_array_equal(tokens_of(tmp_path / "a.npz", "[29]"), x[:150])


def test_layers_and_streams_are_not_joined_unasked(x: np.ndarray, tmp_path: Path) -> None:
    # Layers hold the same tokens: equally many; where one was cut, their names say what they are.
    for names in (("0", "1"), ("layer0", "layer1"), ("attn", "mlp")):
        np.savez(tmp_path / "a.npz", **dict(zip(names, (x, x + 1), strict=True)))
        with pytest.raises(UsageError, match=r"several arrays: .*join all with --key '\*'"):
            open_activations(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", layer0=x, layer1=x[:10])
    with pytest.raises(UsageError, match="several arrays: layer0, layer1"):
        open_activations(tmp_path / "a.npz")
    assert open_activations(tmp_path / "a.npz", "*").tokens == 310


def test_the_only_matrix_of_floats_is_meant(x: np.ndarray, tmp_path: Path) -> None:
    np.savez(
        tmp_path / "a.npz",
        logits=np.zeros((3, 300, 50), np.float32),
        ids=np.arange(300)[:, None],
        mean=x.mean(0),
        residual_stream=x,
    )
    np.testing.assert_array_equal(tokens_of(tmp_path / "a.npz"), x)
    np.savez(tmp_path / "b.npz", a=x.mean(0), b=np.arange(4))
    with pytest.raises(UsageError, match=r"several arrays: a, b\. Choose one with --key NAME\."):
        open_activations(tmp_path / "b.npz")


def test_a_leading_one_is_dropped_aloud_and_batches_are_flattened(
    x: np.ndarray, tmp_path: Path
) -> None:
    np.save(tmp_path / "a.npy", x[None])
    np.testing.assert_array_equal(tokens_of(tmp_path / "a.npy"), x)
    assert open_activations(tmp_path / "a.npy").notes == (
        "[1, 300, 8] taken as [300, 8]: the leading 1 is dropped",
    )
    np.save(tmp_path / "a.npy", x.reshape(10, 30, 8))
    np.testing.assert_array_equal(tokens_of(tmp_path / "a.npy"), x)
    assert open_activations(tmp_path / "a.npy").notes == (
        "[10, 30, 8] taken as 300 tokens of width 8; padding among them counts as tokens",
    )


def test_a_folder_with_a_file_per_sequence(x: np.ndarray, tmp_path: Path) -> None:
    """As esm-extract writes them, some in subfolders."""
    for name, part in {"P2": x[:100], "P10": x[100:130], "more/Q1": x[130:]}.items():
        path = tmp_path / f"{name}.pt"
        path.parent.mkdir(exist_ok=True)
        torch.save(
            {"label": name, "representations": {33: torch.from_numpy(part)}, "mean": part.shape[0]},
            path,
        )
    found = open_activations(tmp_path)
    assert found.notes == ("3 arrays joined: P2.pt, P10.pt, more/Q1.pt",)
    order = np.concatenate([x[:100], x[100:130], x[130:]])
    np.testing.assert_array_equal(tokens_of(tmp_path), order)
    np.testing.assert_array_equal(tokens_of(tmp_path, "representations"), order)
    # Equally long ones may be streams, unless they are many.
    folder = tmp_path / "equal"
    folder.mkdir()
    for letter in "abcdefghij":
        np.save(folder / f"protein-{letter}.npy", x[:5])
        if letter == "b":
            with pytest.raises(UsageError, match="may be two streams or layers"):
                open_activations(folder)
    assert open_activations(folder).tokens == 50


def test_hdf5_with_a_dataset_per_sequence(x: np.ndarray, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["p10"] = x[130:].astype(np.float16)
        file.create_dataset("p2", data=x[:100].astype(np.float16), compression="gzip")
        file["group/q"] = x[100:130].astype(np.float16)
        file["names"] = ["a", "b"]
        file["outside"] = h5py.ExternalLink("/etc/hostname", "x")
    order = np.concatenate([x[100:130], x[:100], x[130:]]).astype(np.float16)
    np.testing.assert_array_equal(tokens_of(tmp_path / "a.h5"), order.astype(np.float32))
    with h5py.File(tmp_path / "b.hdf5", "w") as file:
        file.create_dataset("never_written", shape=(10**7, 1000), chunks=(10, 1000), dtype="f4")
    with pytest.raises(BadActivations, match="inflates"):
        open_activations(tmp_path / "b.hdf5")
    data = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(data[: len(data) // 2])
    with pytest.raises(BadActivations, match=r"cut\.h5 is broken or truncated"):
        open_activations(tmp_path / "cut.h5")


def test_hdf5_rows_of_more_axes(x: np.ndarray, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = x.reshape(10, 30, 8)
    array = open_arrays(tmp_path / "a.h5").array("x")
    for start, stop in ((0, 300), (7, 31), (29, 30), (299, 300)):
        np.testing.assert_array_equal(array.rows(start, stop), x[start:stop])


@pytest.mark.parametrize("file_format", [False, True])
def test_folders_of_the_datasets_library(x: np.ndarray, tmp_path: Path, file_format: bool) -> None:
    """What SAELens' CacheActivationsRunner leaves: a row per sequence, tokens in lists of lists."""
    pa = pytest.importorskip("pyarrow")
    nested = pa.array(
        [list(map(list, s)) for s in x.reshape(10, 30, 8)], pa.list_(pa.list_(pa.float32()))
    )
    ids = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(300, dtype=np.int32)), 30)
    table = pa.table({"blocks.0.hook_resid_post": nested, "token_ids": ids})
    for number, part in enumerate((table.slice(0, 4), table.slice(4))):
        path = str(tmp_path / f"data-0000{number}-of-00002.arrow")
        new = pa.ipc.new_file if file_format else pa.ipc.new_stream
        with new(path, table.schema) as writer:
            writer.write_table(part, max_chunksize=3)
    with pa.ipc.new_stream(str(tmp_path / "cache-indices.arrow"), pa.schema([("i", pa.uint64())])):
        pass
    (tmp_path / "state.json").write_text("{}")
    np.testing.assert_array_equal(tokens_of(tmp_path), x)
    array = open_arrays(tmp_path / "data-00001-of-00002.arrow").array("blocks.0.hook_resid_post")
    np.testing.assert_array_equal(array.rows(17, 119), x[120 + 17 : 120 + 119])


def test_ragged_sequences_in_parquet(x: np.ndarray, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    cuts = [x[:100], x[100:103], x[103:]]
    table = pa.table({"emb": [list(map(list, cut)) for cut in cuts], "id": ["a", "b", "c"]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    np.testing.assert_array_equal(tokens_of(tmp_path / "a.parquet"), x)
    ragged = pa.table({"emb": [[[1.0, 2.0], [3.0]], [[1.0, 2.0, 3.0]]]})
    pq.write_table(ragged, tmp_path / "b.parquet")
    with pytest.raises(BadActivations, match="its rows are not all 2 wide"):
        tokens_of(tmp_path / "b.parquet")


def saev_shards(folder: Path, acts: np.ndarray, capacity: int) -> None:
    """acts [images, layers, 1 + patches, width], as saev 0.1.0 writes them."""
    images, layers, patches, width = acts.shape
    said = {
        "layers": [3, 11],
        "n_patches_per_img": patches - 1,
        "cls_token": True,
        "d_vit": width,
        "n_imgs": images,
        "n_patches_per_shard": capacity * layers * patches + 1,
        "vit_family": "clip",
    }
    (folder / "metadata.json").write_text(json.dumps(said))
    for number, start in enumerate(range(0, images, capacity)):
        whole = np.zeros((capacity, layers, patches, width), np.float32)
        part = acts[start : start + capacity]
        whole[: len(part)] = part
        whole.tofile(folder / f"acts{number:06}.bin")


def test_shards_of_saev(tmp_path: Path) -> None:
    acts = np.random.default_rng(0).normal(size=(7, 2, 5, 8)).astype(np.float32)
    saev_shards(tmp_path, acts, capacity=3)
    with pytest.raises(UsageError, match="several arrays: layer3, layer11"):
        open_activations(tmp_path)
    # Without class tokens, and without what the last shard was not filled with.
    np.testing.assert_array_equal(tokens_of(tmp_path, "layer11"), acts[:, 1, 1:].reshape(-1, 8))
    array = open_arrays(tmp_path / "acts000001.bin").array("layer3")
    np.testing.assert_array_equal(array.rows(3, 9), acts[3:6, 0, 1:].reshape(-1, 8)[3:9])
    (tmp_path / "acts000001.bin").write_bytes(bytes(100))
    with pytest.raises(BadActivations, match=r"100 bytes where metadata\.json says 960"):
        open_activations(tmp_path, "layer3")
    (tmp_path / "metadata.json").unlink()
    with pytest.raises(BadActivations, match=r"saev's metadata\.json beside it"):
        open_activations(tmp_path, "layer3")
    # Other files of that suffix are something else.
    np.save(tmp_path / "a.npy", acts[0, 0])
    for shard in tmp_path.glob("*.bin"):
        shard.rename(shard.with_name("pytorch_model.bin"))
        break
    for shard in tmp_path.glob("acts*.bin"):
        shard.unlink()
    assert open_activations(tmp_path).tokens == 5


def test_lists_of_tensors_are_descended_into(x: np.ndarray, tmp_path: Path) -> None:
    whole, path = torch.from_numpy(x), tmp_path / "a.pt"
    torch.save([whole], path)
    np.testing.assert_array_equal(tokens_of(path), x)
    torch.save([whole[:20], whole[20:150], whole[150:]], path)  # a sequence each
    np.testing.assert_array_equal(tokens_of(path), x)
    torch.save({"hidden_states": (whole, whole + 1), "ids": [1, 2]}, path)
    with pytest.raises(UsageError, match=r"several arrays: hidden_states\.0, hidden_states\.1"):
        open_activations(path)
    np.testing.assert_array_equal(tokens_of(path, "hidden_states.1"), x + 1)


@pytest.mark.parametrize("suffix", ["npz", "h5"])
def test_no_array_is_inflated_to_be_named(x: np.ndarray, tmp_path: Path, suffix: str) -> None:
    """Numbers of the large array are broken: whoever reads them fails."""
    path = tmp_path / f"a.{suffix}"
    large = np.random.default_rng(1).normal(size=(3, 300, 512)).astype(np.float32)
    if suffix == "npz":
        np.savez_compressed(path, all_probs=large, residual_stream=x)
    else:
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            file.create_dataset("all_probs", data=large, compression="gzip", chunks=(1, 100, 512))
            file.create_dataset("residual_stream", data=x)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4000] = bytes(4000)
    path.write_bytes(content)
    np.testing.assert_array_equal(tokens_of(path), x)
    with pytest.raises(BadActivations):
        tokens_of(path, "all_probs")


def test_a_git_lfs_pointer_is_told(tmp_path: Path) -> None:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"
    for name in ("a.npy", "a.safetensors", "a.h5", "a.parquet", "a.pt"):
        (tmp_path / name).write_text(text)
        with pytest.raises(BadActivations, match=r"is a Git LFS pointer.*git lfs pull"):
            open_activations(tmp_path / name)


@pytest.mark.skipif(not REAL.exists(), reason="the published files are not beside this checkout")
@pytest.mark.parametrize(
    ("name", "tokens", "raw", "normalised", "rank"),
    [
        ("prott5_sample.h5", 1789, 0.1903, 0.2015, 145.9),
        ("seqvec_two_proteins.npz", 982, 0.3968, 0.4251, 274.1),
        pytest.param(
            "residual_gemma2/moon_01.npz", 27, 0.4405, 1.1315, None, marks=pytest.mark.slow
        ),
    ],
)
def test_published_files(
    name: str, tokens: int, raw: float, normalised: float, rank: float | None
) -> None:
    found = open_activations(REAL / name)
    assert found.tokens == tokens
    stats = read_sample(found, 4096, 0, "cpu").statistics
    assert stats.gamma_raw == pytest.approx(raw, abs=1e-4)
    assert stats.gamma == pytest.approx(normalised, abs=1e-4)
    if rank is not None:
        assert stats.effective_rank == pytest.approx(rank, abs=0.1)
