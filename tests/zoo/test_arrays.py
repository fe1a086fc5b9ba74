"""Array files: every format by rows, in any order, and a new format added in one place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from adapters.tensors import as_tensor
from zoo.arrays import ARRAY_FORMATS, Header, formats, open_arrays, read_headers
from zoo.arrays.header import ArrayRows
from zoo.errors import BadActivations

TOKENS, WIDTH = 300, 8


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(TOKENS, WIDTH)).astype(np.float32)


def _parquet(path: Path, x: np.ndarray, lists: bool = True) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    columns = {"x": list(x), "id": range(len(x))} if lists else dict(enumerate(x.T))
    named = {str(name): column for name, column in columns.items()}
    pq.write_table(pa.table(named), path, row_group_size=70)


def _saved(path: Path, x: np.ndarray) -> Path:
    np.save(path, x)
    return path


# Name of the file, name of the array in it, how it is written.
WRITERS: dict[str, tuple[str | None, Callable[[Path, np.ndarray], Any]]] = {
    "a.npy": (None, np.save),
    "a.NPY": (None, lambda path, x: _saved(path.with_suffix(".npy"), x).rename(path)),
    "columns.npy": (None, lambda path, x: np.save(path, np.asfortranarray(x))),
    "big-endian.npy": (None, lambda path, x: np.save(path, x.astype(">f4"))),
    "a.npz": ("x", lambda path, x: np.savez(path, other=np.arange(3), x=x)),
    "deflated.npz": ("x", lambda path, x: np.savez_compressed(path, x=x)),
    "columns.npz": ("x", lambda path, x: np.savez_compressed(path, x=np.asfortranarray(x))),
    "a.safetensors": ("x", lambda path, x: save_file({"x": x}, path)),
    "a.pt": (None, lambda path, x: torch.save(torch.from_numpy(x), path)),
    "dict.pth": ("x", lambda path, x: torch.save({"x": torch.from_numpy(x), "layer": 3}, path)),
    "lists.parquet": ("x", _parquet),
    "columns.parquet": (None, lambda path, x: _parquet(path, x, lists=False)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_rows_in_any_order_are_those_that_were_written(
    name: str, x: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoo.arrays.parquet._BATCH", 30 * WIDTH)
    key, write = WRITERS[name]
    write(tmp_path / name, x)
    file = open_arrays(tmp_path / name)
    floats = [header for header in file.headers if header.is_float]
    assert [(h.key, h.shape, h.dtype) for h in floats] == [(key, x.shape, "float32")]
    array = file.array(key)
    random = np.random.default_rng(1)
    # In order, as a diagnosis reads, then anywhere, as a shuffled dump is read.
    spans = [(start, min(start + 64, TOKENS)) for start in range(0, TOKENS, 64)]
    for _ in range(40):
        start = int(random.integers(TOKENS))
        spans.append((start, int(random.integers(start + 1, TOKENS + 1))))
    for start, stop in spans:
        np.testing.assert_array_equal(as_tensor(array.rows(start, stop)).numpy(), x[start:stop])


def test_rows_of_parquet_in_order_are_decoded_once(
    x: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zoo.arrays import parquet

    _parquet(tmp_path / "a.parquet", x)
    monkeypatch.setattr(parquet, "_BATCH", 30 * WIDTH)
    decoded: list[int] = []
    matrix = parquet.token_matrix

    def counted(path: Path, batch: Any, width: int) -> np.ndarray:
        decoded.append(batch.num_rows)
        return matrix(path, batch, width)

    monkeypatch.setattr(parquet, "token_matrix", counted)
    array = open_arrays(tmp_path / "a.parquet").array("x")
    for start in range(0, TOKENS, 50):
        array.rows(start, start + 50)
    assert sum(decoded) == TOKENS
    decoded.clear()
    array.rows(290, 300)  # in the last of five groups of 70 rows: still decoded
    assert sum(decoded) == 0
    array.rows(145, 150)  # in the third
    assert sum(decoded) <= 70


@pytest.mark.parametrize("suffix", [*ARRAY_FORMATS, ".csv"])
def test_what_is_no_array_file_is_told(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"hello, this is text")
    with pytest.raises(BadActivations, match=r"it begins like no format|no arrays are read from"):
        read_headers(path)
    path.write_bytes(b"")
    with pytest.raises(BadActivations, match=r"is empty|no arrays are read from"):
        read_headers(path)


class CsvFile:
    """A new format: numbers separated by commas, read whole."""

    def __init__(self, path: Path) -> None:
        self.numbers = np.loadtxt(path, delimiter=",", dtype=np.float32, ndmin=2)
        self.headers = [Header(None, self.numbers.shape, "float32")]

    def array(self, key: str | None) -> ArrayRows:
        return ArrayRows(self.numbers)


def test_a_format_is_added_in_one_place(
    bench: Callable[..., tuple[int, str, str]],
    tiny: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One entry of the table, and a diagnosis, a dump and a run of it read the format."""
    x = np.random.default_rng(0).normal(size=(1400, WIDTH)) + 2
    (tmp_path / "acts").mkdir()
    np.savetxt(tmp_path / "acts" / "layer0.csv", x, delimiter=",")
    assert bench("diagnose", "acts/layer0.csv")[0] == 2
    monkeypatch.setitem(ARRAY_FORMATS, ".csv", formats.ArrayFormat(CsvFile))
    code, out, err = bench("diagnose", "acts/layer0.csv", "-n", "64", "-k", "4", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["measured_tokens"] == 1400
    assert found["statistics"]["gamma_raw"] == pytest.approx(
        np.linalg.norm(x.mean(0)) / np.linalg.norm(x.std(0)), rel=1e-4
    )
    assert bench("diagnose", "acts", "-n", "64", "-k", "4")[0] == 0
    assert bench("manifest", "acts", "--domain", "language")[0] == 0
    code, out, err = bench("run", "--model", "dump:acts", *tiny)
    assert code == 0, err
    assert "2 cells: 2 measured now" in out
