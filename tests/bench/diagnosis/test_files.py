from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bench.diagnosis import files
from bench.diagnosis.files import open_activations
from zoo.errors import BadActivations, MissingExtra, UsageError


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)


def save_npz(path: Path, **arrays: np.ndarray) -> None:
    np.savez(path, **arrays)


WRITERS = {
    "a.npy": lambda path, x: np.save(path, x),
    "fortran.npy": lambda path, x: np.save(path, np.asfortranarray(x)),
    "big-endian.npy": lambda path, x: np.save(path, x.astype(">f4")),
    "a.npz": lambda path, x: np.savez(path, acts=x),
    "compressed.npz": lambda path, x: np.savez_compressed(path, acts=x),
    "fortran.npz": lambda path, x: np.savez(path, acts=np.asfortranarray(x)),
    "a.safetensors": lambda path, x: save_file({"acts": torch.from_numpy(x)}, path),
    "a.pt": lambda path, x: torch.save(torch.from_numpy(x), path),
    "dict.pth": lambda path, x: torch.save({"acts": torch.from_numpy(x), "layer": 3}, path),
    "grad.pt": lambda path, x: torch.save(torch.from_numpy(x).requires_grad_(), path),
    "legacy.pt": lambda path, x: torch.save(
        torch.from_numpy(x), path, _use_new_zipfile_serialization=False
    ),
}


@pytest.mark.parametrize("small_chunks", [False, True])
@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_tokens_again(tmp_path, monkeypatch, x, name, small_chunks):
    if small_chunks:
        monkeypatch.setattr(files, "_CHUNK_ELEMENTS", 8 * 70)
    WRITERS[name](tmp_path / name, x)
    found = open_activations(tmp_path / name)
    assert (found.tokens, found.width) == (300, 8)
    for _ in range(2):
        chunks = list(found.chunks())
        assert torch.equal(torch.cat(chunks), torch.from_numpy(x))
        assert not torch.cat(chunks).requires_grad
    if small_chunks:
        assert [len(chunk) for chunk in chunks] == [70, 70, 70, 70, 20]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_torch_types_are_kept(tmp_path, x, dtype):
    tensor = torch.from_numpy(x).to(dtype)
    torch.save(tensor, tmp_path / "a.pt")
    save_file({"acts": tensor}, tmp_path / "a.safetensors")
    for name in ("a.pt", "a.safetensors"):
        (chunk,) = open_activations(tmp_path / name).chunks()
        assert torch.equal(chunk, tensor)


def test_extended_precision_is_cut_to_double(tmp_path, x):
    np.save(tmp_path / "a.npy", x.astype(np.longdouble))
    (chunk,) = open_activations(tmp_path / "a.npy").chunks()
    assert torch.equal(chunk, torch.from_numpy(x).double())


def test_npy_is_memory_mapped(tmp_path):
    # A sparse file of 40 GB: reading it whole would not end well.
    path = tmp_path / "huge.npy"
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(10**6, 10**4))
    array[0, :3] = (1, 2, 3)
    found = open_activations(path)
    assert (found.tokens, found.width) == (10**6, 10**4)
    assert next(found.chunks())[0, :3].tolist() == [1, 2, 3]


def test_alphafold_embeddings(tmp_path, x):
    job = tmp_path / "job"
    for seed in (1, 2):
        folder = job / f"seed-{seed}_embeddings"
        folder.mkdir(parents=True)
        np.savez_compressed(
            folder / f"job_seed-{seed}_embeddings.npz",
            single_embeddings=(x + seed).astype(np.float16),
            pair_embeddings=np.zeros((4, 4, 2), np.float16),
        )
    found = open_activations(job)
    assert (found.tokens, found.width) == (600, 8)
    assert "2 files" in found.name
    expected = np.concatenate([(x + 1), (x + 2)]).astype(np.float16)
    assert torch.equal(torch.cat(list(found.chunks())), torch.from_numpy(expected))
    pairs = open_activations(next(job.rglob("*.npz")), "pair_embeddings")
    assert (pairs.tokens, pairs.width) == (16, 2)
    assert pairs.notes == (
        "[4, 4, 2] taken as 16 tokens of width 2; padding among them counts as tokens",
    )


def test_a_folder_of_shards_in_natural_order(tmp_path):
    for i in (10, 2, 1):
        np.save(tmp_path / f"shard-{i}.npy", np.full((2, 3), i, np.float32))
    torch.save(torch.full((1, 3), 11.0), tmp_path / "shard-11.pt")
    (tmp_path / "index.json").write_text("{}")
    (tmp_path / ".hidden.npy").write_bytes(b"")
    found = open_activations(tmp_path)
    assert found.tokens == 7
    assert torch.cat(list(found.chunks()))[:, 0].tolist() == [1, 1, 2, 2, 10, 10, 11]
    np.save(tmp_path / "shard-3.npy", np.zeros((2, 4), np.float32))
    with pytest.raises(BadActivations, match=r"is 3 wide, but .*shard-3.npy is 4 wide"):
        open_activations(tmp_path)


def test_one_of_several_arrays(tmp_path, x):
    np.savez(tmp_path / "a.npz", one=x, two=2 * x)
    with pytest.raises(UsageError, match=r"several arrays: one, two\. Choose one with --key NAME"):
        open_activations(tmp_path / "a.npz")
    with pytest.raises(UsageError, match=r"holds no 'three'\. It holds one, two"):
        open_activations(tmp_path / "a.npz", "three")
    (chunk,) = open_activations(tmp_path / "a.npz", "two").chunks()
    assert torch.equal(chunk, torch.from_numpy(2 * x))


class Malicious:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def bomb(path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (10**5, 100)}
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("acts.npy", header.getvalue() + bytes(4 * 10**7))


def lying_npz(path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (10**9, 10**4)}
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("acts.npy", header.getvalue() + bytes(100))


def truncated(path: Path, writer, keep: float = 0.5) -> None:
    writer(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


def damaged_npz(path: Path) -> None:
    np.savez_compressed(path, acts=np.random.default_rng(0).normal(size=(300, 8)))
    data = bytearray(path.read_bytes())
    data[2000:2100] = bytes(100)
    path.write_bytes(bytes(data))


def safetensors_header(path: Path, header: bytes) -> None:
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def disguised(path: Path, save) -> None:
    with path.open("wb") as file:
        save(file, NORMAL)


NORMAL = np.ones((300, 8), np.float32)
BAD = {
    "empty.npy": (lambda p: p.write_bytes(b""), "is empty"),
    "text.npy": (lambda p: p.write_text("hello, this is text"), "begins like no format"),
    "zip.npy": (lambda p: disguised(p, np.savez), "not a .npy file: it looks like .npz"),
    "array.pt": (lambda p: disguised(p, np.savez), "not a .pt file: it looks like .npz"),
    "tensor.npz": (
        lambda p: torch.save(torch.ones(3, 4), p),
        "not a .npz file: it looks like .pt",
    ),
    "array.safetensors": (
        lambda p: disguised(p, np.save),
        "not a .safetensors file: it looks like .npy",
    ),
    "cut.npy": (lambda p: truncated(p, lambda q: np.save(q, NORMAL)), "broken or truncated"),
    "cut.npz": (lambda p: truncated(p, lambda q: np.savez(q, a=NORMAL)), "broken or truncated"),
    "cut.pt": (
        lambda p: truncated(p, lambda q: torch.save(torch.ones(99, 99), q)),
        "broken or truncated",
    ),
    "cut.safetensors": (
        lambda p: truncated(p, lambda q: save_file({"a": torch.ones(99, 99)}, q)),
        "broken or truncated",
    ),
    "header.npy": (lambda p: p.write_bytes(b"\x93NUMPY\x01\x00\x04\x00oops"), "broken"),
    "header.safetensors": (lambda p: safetensors_header(p, b"{no json"), "broken"),
    "damaged.npz": (damaged_npz, "broken or truncated"),
    "lying.npz": (lying_npz, "broken or truncated (acts says 40000000000128 bytes and has 228)"),
    "bomb.npz": (bomb, "inflates"),
    "nothing.npz": (lambda p: zipfile.ZipFile(p, "w").writestr("a.txt", "x"), "holds no arrays"),
    "rank1.npy": (lambda p: np.save(p, np.ones(5)), "has shape (5,), not [tokens, width]"),
    "rank4.npy": (lambda p: np.save(p, np.ones((2, 3, 4, 5))), "has shape (2, 3, 4, 5)"),
    "rank4.pt": (lambda p: torch.save(torch.ones(2, 3, 4, 5), p), "has shape (2, 3, 4, 5)"),
    "rank0.safetensors": (
        lambda p: save_file({"a": torch.tensor(1.0)}, p),
        "has shape (), not [tokens, width]",
    ),
    "rows.npy": (lambda p: np.save(p, np.ones((0, 4))), "holds no activations"),
    "integer.npy": (lambda p: np.save(p, np.ones((5, 4), int)), "dtype int64"),
    "complex.npy": (lambda p: np.save(p, np.ones((5, 4), complex)), "dtype complex128"),
    "integer.pt": (lambda p: torch.save(torch.ones(5, 4).long(), p), "dtype int64"),
    "integer.safetensors": (
        lambda p: save_file({"a": torch.ones(5, 4).int()}, p),
        "dtype int32",
    ),
    "objects.npy": (
        lambda p: np.save(p, np.array([[Malicious()]]), allow_pickle=True),
        "pickled Python objects; reading them could run code",
    ),
    "objects.npz": (
        lambda p: np.savez(p, a=np.array([[Malicious()]])),
        "pickled Python objects; reading them could run code",
    ),
    "code.pt": (lambda p: torch.save(Malicious(), p), "reading it could run code"),
    "pickle.pt": (lambda p: p.write_bytes(pickle.dumps(Malicious())), "could run code"),
    "old-pickle.pt": (lambda p: p.write_bytes(pickle.dumps(Malicious(), 0)), "not a .pt file"),
    "list.pt": (lambda p: torch.save(["a", 1], p), "holds no arrays"),
    "sparse.pt": (lambda p: torch.save(torch.eye(4).to_sparse(), p), "holds a sparse_coo tensor"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_told_in_one_line(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write, message = BAD[name]
    write(Path(name))
    with pytest.raises(BadActivations) as caught:
        for _ in open_activations(Path(name)).chunks():
            pass
    assert message in str(caught.value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Path("pwned").exists()


def test_what_is_not_there_or_not_known(tmp_path):
    with pytest.raises(UsageError, match="no file or folder at"):
        open_activations(tmp_path / "none.npy")
    with pytest.raises(UsageError, match="holds no activations"):
        open_activations(tmp_path)
    (tmp_path / "a.csv").write_text("1,2")
    with pytest.raises(UsageError, match=r"the format \.csv is not known\. Known are \.npy, "):
        open_activations(tmp_path / "a.csv")
    (tmp_path / "plain").write_text("1,2")
    with pytest.raises(UsageError, match="the format without a suffix is not known"):
        open_activations(tmp_path / "plain")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file(tmp_path, x):
    np.save(tmp_path / "a.npy", x)
    (tmp_path / "a.npy").chmod(0)
    with pytest.raises(UsageError, match=r"cannot be read \(Permission denied\)"):
        open_activations(tmp_path / "a.npy")


def test_a_safetensors_file_whose_length_looks_like_a_signature(tmp_path):
    # 0x80, 0x4b50: the bytes of a pickle and of a zip archive.
    for length in (0x80, 0x4B50):
        path = tmp_path / f"{length}.safetensors"
        header = b'{"a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}}'.ljust(length)
        safetensors_header(path, header)
        path.write_bytes(path.read_bytes() + struct.pack("<2f", 1.0, 2.0))
        (chunk,) = open_activations(path).chunks()
        assert chunk.tolist() == [[1.0, 2.0]]


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(MissingExtra, match=r"needs the package pyarrow.*\[parquet\]"):
        open_activations(tmp_path / "a.parquet")


def test_parquet(tmp_path, monkeypatch, x):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(files, "_CHUNK_ELEMENTS", 8 * 70)
    tables = {
        "columns": pa.table({f"d{i}": x[:, i] for i in range(8)}),
        "lists": pa.table({"acts": list(x), "token": ["a"] * 300}),
        "fixed": pa.table(
            {"acts": pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), 8)},
        ),
    }
    for name, table in tables.items():
        pq.write_table(table, tmp_path / f"{name}.parquet")
        found = open_activations(tmp_path / f"{name}.parquet")
        assert (found.tokens, found.width) == (300, 8)
        assert torch.equal(torch.cat(list(found.chunks())), torch.from_numpy(x))


def test_bad_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    tables = {
        "ragged": (pa.table({"a": [[1.0, 2.0], [3.0]]}), "not all 2 wide"),
        "missing": (pa.table({"a": [1.0, None], "b": [1.0, 2.0]}), "has missing values"),
        "words": (pa.table({"a": ["x", "y"]}), "holds no arrays"),
        "integers": (pa.table({"a": [[1, 2], [3, 4]]}), "dtype int64"),
        "rows": (pa.table({"a": pa.array([], pa.float32())}), "holds no activations"),
    }
    for name, (table, message) in tables.items():
        path = tmp_path / f"{name}.parquet"
        pq.write_table(table, path)
        with pytest.raises(BadActivations) as caught:
            list(open_activations(path).chunks())
        assert message in str(caught.value)
    path.write_bytes(b"PAR1" + bytes(50))
    with pytest.raises(BadActivations, match="broken or truncated"):
        open_activations(path)


def test_tensors_in_parquet_are_read_or_refused_in_words(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    x = np.random.default_rng(0).normal(size=(60, 8)).astype("f4")
    nested = [[row.tolist() for row in x[i : i + 6]] for i in range(0, 60, 6)]
    columns = {
        "vector": (pa.FixedShapeTensorArray.from_numpy_ndarray(x), None),
        "matrix": (
            pa.FixedShapeTensorArray.from_numpy_ndarray(x.reshape(10, 6, 8)),
            None,
        ),
        "nested": (pa.array(nested, type=pa.list_(pa.list_(pa.float32()))), None),
        "codes": (pa.array(["a", "b"]).dictionary_encode(), "holds no arrays"),
    }
    for name, (column, says) in columns.items():
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table({"emb": column}), path)
        if says is None:
            found = torch.cat(list(open_activations(path).chunks()))
            np.testing.assert_array_equal(found.numpy(), x)
        else:
            with pytest.raises(BadActivations, match=says):
                open_activations(path)


def test_dicts_within_dicts_of_tensors_are_read(tmp_path: Path) -> None:
    """As esm-extract writes them: a file per protein, its layers by number."""
    x = torch.randn(30, 8)
    torch.save({"label": "p0", "representations": {33: x}}, tmp_path / "p0.pt")
    assert torch.equal(torch.cat(list(open_activations(tmp_path / "p0.pt").chunks())), x)
    torch.save({"representations": {32: x + 1, 33: x}}, tmp_path / "p1.pt")
    with pytest.raises(UsageError, match=r"several arrays: representations\.32, representations"):
        open_activations(tmp_path / "p1.pt")
    found = open_activations(tmp_path / "p1.pt", key="representations.33")
    assert torch.equal(torch.cat(list(found.chunks())), x)
