"""Rows out of .npz members, compressed or not, without inflating what is not needed."""

from __future__ import annotations

import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from zoo.arrays import zip_arrays
from zoo.arrays.zip_arrays import DeflatedArray, MappedArray
from zoo.errors import BadActivations


@pytest.fixture
def array() -> np.ndarray:
    random = np.random.default_rng(0)
    return np.round(random.standard_normal((40, 50, 16)), 1).astype(np.float16)


def test_rows_in_any_order_are_those_of_the_array(
    array: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zip_arrays, "_APART", 1000)
    monkeypatch.setattr(zip_arrays, "_READ", 200)
    np.savez_compressed(tmp_path / "a.npz", other=np.ones(1000), pair=array)
    found = DeflatedArray(tmp_path / "a.npz", "pair")
    rows = array.reshape(-1, 16)
    order = np.random.default_rng(1).permutation(100)
    for chunk in order:
        start, stop = 20 * chunk, 20 * (chunk + 1)
        np.testing.assert_array_equal(found.rows(start, stop), rows[start:stop])
    assert 20 < len(found._points) <= zip_arrays._POINTS + 2


def test_a_point_saves_inflating_from_the_start(
    array: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zip_arrays, "_APART", 4000)
    monkeypatch.setattr(zip_arrays, "_READ", 500)
    np.savez_compressed(tmp_path / "a.npz", pair=array)
    found = DeflatedArray(tmp_path / "a.npz", "pair")
    found.rows(1990, 2000)
    summed = []
    monkeypatch.setattr(found, "_sum", lambda done, data: summed.append(len(data)))
    found.rows(1990, 2000)
    assert sum(summed) < 0.2 * array.nbytes


def test_memory_stays_far_below_the_array(tmp_path: Path) -> None:
    zeros = np.zeros((1000, 1000, 16), np.float16)  # 32 MB
    np.savez_compressed(tmp_path / "a.npz", pair=zeros)
    tracemalloc.start()
    try:
        DeflatedArray(tmp_path / "a.npz", "pair").rows(999_000, 999_256)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < zeros.nbytes / 2


def test_a_member_that_is_not_compressed_is_mapped(array: np.ndarray, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", other=np.ones(7), pair=array, columns=np.asfortranarray(array[0]))
    found = MappedArray(tmp_path / "a.npz", "pair")
    assert isinstance(found.array, np.memmap)
    np.testing.assert_array_equal(found.array, array)
    np.testing.assert_array_equal(found.rows(30, 90), array.reshape(-1, 16)[30:90])
    columns = MappedArray(tmp_path / "a.npz", "columns")
    np.testing.assert_array_equal(columns.rows(0, 50), array[0])


def test_changed_bytes_of_a_mapped_member_are_found_where_all_are_read(
    array: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, pair=array)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    found = MappedArray(path, "pair")
    found.rows(1000, 2000)  # not all rows before it were read
    for start in range(0, 1500, 500):
        found.rows(start, start + 500)
    with pytest.raises(BadActivations, match=r"pair is broken or truncated \(its checksum"):
        found.rows(1500, 2000)


def test_corrupt_bytes_are_found(array: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, pair=array)
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("pair.npy")
    content = bytearray(path.read_bytes())
    middle = member.header_offset + 100 + member.compress_size // 2
    content[middle : middle + 4] = bytes(4)
    path.write_bytes(content)
    with pytest.raises(BadActivations, match=r"a\.npz: pair is broken or truncated"):
        DeflatedArray(path, "pair").rows(0, 2000)
