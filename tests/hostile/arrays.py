"""Array files as nobody should write them: a kept set, made by code."""

from __future__ import annotations

import io
import json
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Files = Iterator[tuple[str, bytes]]

GOOD = np.random.default_rng(0).standard_normal((64, 8)).astype("f4")


def npy(header: str, data: bytes = GOOD.tobytes(), version: tuple[int, int] = (1, 0)) -> bytes:
    """An .npy file with any header."""
    text = header.encode("latin1", "replace") + b"\n"
    size = struct.pack("<H" if version == (1, 0) else "<I", len(text) & 0xFFFF)
    return b"\x93NUMPY" + bytes(version) + size + text + data


def header(shape: object = "(64, 8)", descr: object = "'<f4'", order: object = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


def npys() -> Files:
    """Names of what is wrong, and .npy files in which it is."""
    shapes = [
        *("(-64, 8)", "(64, -8)", "(-1, -1)", "(True, False)", "(True, 512)", "(64, 8.0)"),
        *("(9223372036854775807, 8)", "(9223372036854775808, 8)", "(2**70, 2)", "(10**30, 10**30)"),
        *("(0, 8)", "(64, 0)", "()", "(512,)", "(4, 4, 4, 8)", "64", "'64'", "None", "[64, 8]"),
        *("(64, '8')", "((64,), 8)", "(64, 8" + ", 1" * 40 + ")", "(1e3, 8)", "(64, 8j)"),
    ]
    for shape in shapes:
        yield f"shape {shape}"[:60], npy(header(shape))
    descrs = [
        *("'<f3'", "'<f16'", "'O'", "'|O'", "'<U4'", "'V4'", "'<M8[ns]'", "'<c8'", "'?'", "''"),
        *("None", "4", "[('a', '<f4')]", "[('a', 'O')]", "'<f4' * 10**6", "('<f4', (2,))", "'<e'"),
        *("[('a', '<f4', (10**9, 10**9))]", "'float128'", "'nonsense'", "[]", "{}", "'<f0'"),
    ]
    for descr in descrs:
        yield f"descr {descr}", npy(header(descr=descr))
    for order in ("1", "'no'", "None", "2"):
        yield f"order {order}", npy(header(order=order))
    yield "unclosed header", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (64, 8")
    yield "no header", npy("")
    yield "words", npy("hello")
    yield "code", npy("__import__('os').system('false')")
    yield "deep header", npy("(" * 20000)
    yield "deep minus", npy("-" * 30000 + "1")
    yield "long header", npy(header() + " " * 60000)
    yield "null byte", npy(header() + "\0")
    yield "missing key", npy("{'descr': '<f4'}")
    yield "more keys", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (64, 8), 'x': 1}")
    yield "version 3", npy(header(), version=(3, 0))
    yield "version 9", npy(header(), version=(9, 9))
    yield "magic alone", b"\x93NUMPY"
    yield "magic and version", b"\x93NUMPY\x01\x00"
    yield "data cut", npy(header(), GOOD.tobytes()[:100])
    yield "no data", npy(header(), b"")
    yield "not finite", npy(header(), np.full((64, 8), np.nan, "f4").tobytes())


def zipped(
    members: list[tuple[str, bytes]],
    method: int = zipfile.ZIP_STORED,
    change: Callable[[bytes], bytes] = bytes,
) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return change(file.getvalue())


def flipped(place: int) -> Callable[[bytes], bytes]:
    """Turns a byte over; a place below 1 counts from the end."""

    def change(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[place] ^= 0xFF
        return bytes(changed)

    return change


def npzs() -> Files:
    """The same, of .npz files."""
    good = npy(header())
    for number, (name, data) in enumerate(npys()):
        method = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)[number % 2]
        yield f"member {name}", zipped([("a.npy", data)], method)
    methods = {
        "lzma": zipfile.ZIP_LZMA,
        "bzip2": zipfile.ZIP_BZIP2,
        "deflate": zipfile.ZIP_DEFLATED,
    }
    for name, method in methods.items():
        whole = zipped([("a.npy", good)], method)
        for place in (35, 36, 40, 44, 48, 60, 200, len(whole) // 2):
            yield f"{name} broken at {place}", flipped(place)(whole)
        yield f"{name} cut", whole[: len(whole) // 2]
    whole = zipped([("a.npy", good)])
    for place in (4, 6, 8, 14, 18, 26, 28, *range(-60, -1, 3)):
        yield f"stored, byte {place} turned", flipped(place)(whole)
    yield "empty archive", zipped([])
    yield "no arrays", zipped([("a.txt", b"x")])
    yield (
        "same name twice",
        whole[:0] + zipped([("a.npy", good), ("b.npy", good)]).replace(b"b.npy", b"a.npy"),
    )
    yield "absolute name", zipped([("/etc/a.npy", good)])
    yield "parent's name", zipped([("../a.npy", good)])
    yield "no name", zipped([(".npy", good)])
    yield (
        "bomb",
        zipped([("a.npy", npy(header("(10485760, 8)"), bytes(1 << 22)))], zipfile.ZIP_LZMA),
    )
    yield "pickled", zipped([("a.npy", npy(header(descr="'|O'"), pickle.dumps([1])))])
    yield "encrypted", zipped([("a.npy", good)], change=lambda b: b[:6] + b"\1" + b[7:])


def safetensors(entries: object, data: bytes = GOOD.tobytes()) -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


def safetensors_files() -> Files:
    """The same, of .safetensors files."""
    size = GOOD.nbytes

    def entry(**changes: Any) -> dict[str, Any]:
        return {"a": {"dtype": "F32", "shape": [64, 8], "data_offsets": [0, size]} | changes}

    dtypes = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E8M0": 8, "F8_E5M2": 8, "F8_E4M3": 8}
    dtypes |= {"F8_E4M3FNUZ": 8, "BOOL": 8, "U8": 8, "I16": 16, "F16": 16, "BF16": 16, "C64": 64}
    for dtype, bits in dtypes.items():
        yield f"dtype {dtype}", safetensors(entry(dtype=dtype, shape=[size * 8 // bits // 8, 8]))
    for dtype in ("F3", "f32", "", None, 4, "F128"):
        yield f"dtype {dtype!r}", safetensors(entry(dtype=dtype))
    shapes: list[Any] = [[-64, 8], [64, -8], [True, 512], [2**63, 8], [2**64, 8], [10**30, 8], []]
    shapes += [[512], [0, 8], [64, 0], [64.0, 8], "64", None, [[64], 8], [1] * 500]
    for shape in shapes:
        yield f"shape {shape}"[:60], safetensors(entry(shape=shape))
    for offsets in ([0, 1], [0, 10**18], [-4, size], [size, 0], [4, size + 4], [0], None, "x"):
        yield f"offsets {offsets}", safetensors(entry(data_offsets=offsets))
    for text in (b"", b"{", b"[]", b"null", b"{" * 5000, b'{"a":' * 5000, b"\xff\xfe", b"{}"):
        yield f"header {text[:8]!r}", safetensors(text)
    yield "length alone", struct.pack("<Q", 10)
    yield "huge length", struct.pack("<Q", 2**63) + b"{}"
    yield "seven bytes", bytes(7)
    yield "metadata of numbers", safetensors(entry() | {"__metadata__": {"a": 1}})
    yield "metadata alone", safetensors({"__metadata__": {"a": "1"}}, b"")
    yield "no tensors", safetensors({}, b"")


def pts() -> Files:
    """The same, of .pt files."""
    import torch

    def saved(value: object, *, zipped: bool = True) -> bytes:
        file = io.BytesIO()
        torch.save(value, file, _use_new_zipfile_serialization=zipped)
        return file.getvalue()

    x = torch.from_numpy(GOOD)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what torch calls prototypes or is about to give up
        odd = {
            "strided nested": torch.nested.nested_tensor([x[:3], x[3:9]]),
            "nested": torch.nested.nested_tensor([x[:3], x[3:9]], layout=torch.jagged),
            "quantized": torch.quantize_per_tensor(x, 0.1, 0, torch.qint8),
        }
    values = {
        "meta": torch.empty(64, 8, device="meta"),
        "sparse": x.to_sparse(),
        "conjugated": torch.randn(8, 8, dtype=torch.complex64).conj(),
        "complex": torch.randn(64, 8, dtype=torch.complex64),
        "negated": torch.randn(8, 8, dtype=torch.complex64).conj().imag,
        "float8": x.to(torch.float8_e4m3fn),
        "scaling float8": torch.ones(64, 8).to(torch.float8_e8m0fnu),
        "expanded": torch.zeros(1, 8).expand(10**9, 8),
        "integers": torch.ones(64, 8, dtype=torch.int64),
        "booleans": torch.ones(64, 8, dtype=torch.bool),
        "scalar": torch.tensor(1.0),
        "empty": torch.empty(0, 8),
        "list": [x],
        "tuple": (x, x),
        "number": 3,
        "text": "hello",
        "none": None,
        "dict of meta": {"a": torch.empty(64, 8, device="meta")},
        "empty dict": {},
        "dict of numbers": {1: 2},
        "keys of all kinds": {1: x, "1": x},
        "parameter": torch.nn.Parameter(x),
        "deep dict": _deep(x, 200),
        "itself": _itself(),
        **odd,
    }
    for name, value in values.items():
        for how in (True, False):
            try:
                yield f"{name} {'zip' if how else 'legacy'}", saved(value, zipped=how)
            except Exception:  # (what torch will not write nobody can give us)
                continue
    for size in range(8):
        yield f"{size} bytes of a pickle", b"\x80\x02}q\x00."[:size]
    for size in range(1, 5):
        yield f"{size} bytes of a zip", b"PK\x03\x04"[:size]
    good, old = saved(x), saved(x, zipped=False)
    for place in (10, 40, 80, 120, len(good) // 2, -40, -20, -10):
        yield f"byte {place} turned", flipped(place)(good)
    for place in (1, 5, 20, 40, 80, 120, 160, 200, 240, -300, -8, -1):
        yield f"legacy, byte {place} turned", flipped(place)(old)
    for part in (3, 10, 100, len(good) // 2, len(good) - 1):
        yield f"the first {part}", good[:part]
        yield f"legacy, the first {part}", old[:part]
    yield "pickle of code", b"\x80\x02cos\nsystem\n(S'false'\ntR."
    yield "pickle of depth", b"\x80\x02" + b"]" * 100000 + b"."
    yield "pickle of a huge text", b"\x80\x04\x8d" + struct.pack("<Q", 2**62)
    yield "pickle of marks", b"\x80\x02" + b"(" * 1000 + b"t" * 2000 + b"."


def _deep(x: object, depth: int) -> object:
    for _ in range(depth):
        x = {"a": x}
    return x


def _itself() -> dict[str, Any]:
    found: dict[str, Any] = {}
    found["a"] = found
    return found


def parquets() -> Files:
    """The same, of .parquet files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def written(column: Any, name: str = "a", **options: Any) -> bytes:
        file = io.BytesIO()
        pq.write_table(pa.table({name: column}), file, **options)
        return file.getvalue()

    rows = GOOD.tolist()
    lists = pa.array(rows, pa.list_(pa.float32()))
    columns = {
        "strings": pa.array(["a", "b"]),
        "lists of strings": pa.array([["a"], ["b"]]),
        "dictionary": pa.array(["a", "b"]).dictionary_encode(),
        "dictionary of floats": pa.array([0.5, 0.25]).dictionary_encode(),
        "lists of a dictionary": pa.array(
            [["a"], ["b"]], pa.list_(pa.dictionary(pa.int8(), pa.string()))
        ),
        "structs": pa.array([{"x": 1.0}, {"x": 2.0}]),
        "lists of structs": pa.array([[{"x": 1.0}], [{"x": 2.0}]]),
        "maps": pa.array([[("x", 1.0)]], pa.map_(pa.string(), pa.float32())),
        "nested lists": pa.array([[[1.0, 2.0]], [[3.0, 4.0]]]),
        "ragged": pa.array([[1.0, 2.0], [3.0]]),
        "ragged later": pa.array([*rows, [1.0]], pa.list_(pa.float32())),
        "empty lists": pa.array([[], []], pa.list_(pa.float32())),
        "null rows": pa.array([None, [1.0, 2.0]]),
        "null values": pa.array([[1.0, None], [1.0, 2.0]]),
        "all null": pa.array([None, None]),
        "lists of nothing": pa.array([None, None], pa.list_(pa.null())),
        "no rows": pa.array([], pa.list_(pa.float32())),
        "times": pa.array([1, 2], pa.timestamp("ns")),
        "decimals": pa.array([1, 2], pa.decimal128(5, 2)),
        "binary": pa.array([b"a", b"\xff"]),
        "booleans": pa.array([True, False]),
        "large lists": pa.array(rows, pa.large_list(pa.float16())),
        "fixed lists": pa.array(rows, pa.list_(pa.float64(), 8)),
        "fixed lists of none": pa.array([[], []], pa.list_(pa.float32(), 0)),
        "null fixed lists": pa.array([None, rows[0]], pa.list_(pa.float32(), 8)),
        "halves": pa.array(GOOD[:, 0].astype("f2")),
        "list views": pa.array(rows, pa.list_(pa.float32())),
        "durations": pa.array([1, 2], pa.duration("s")),
    }
    for name, column in columns.items():
        try:
            yield name, written(column)
        except (pa.ArrowException, NotImplementedError):
            continue
    yield "odd name", written(lists, "a\n\0b")
    yield "no columns", _no_columns()
    good = written(lists)
    for place in (0, 4, 20, 60, len(good) // 2, -300, -200, -100, -40, -20, -9, -6, -1):
        yield f"byte {place} turned", flipped(place)(good)
    for part in (1, 3, 4, 8, 12, len(good) // 2, len(good) - 1):
        yield f"the first {part}", good[:part]
    yield "signatures alone", b"PAR1PAR1"
    yield "signatures and a length", b"PAR1" + b"\0" * 8 + struct.pack("<I", 2**31) + b"PAR1"


def _no_columns() -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(pa.table({}), file)
    return file.getvalue()


KINDS: dict[str, Callable[[], Files]] = {
    ".npy": npys,
    ".npz": npzs,
    ".safetensors": safetensors_files,
    ".pt": pts,
    ".parquet": parquets,
}


def write_nasty_arrays(folder: Path, suffix: str) -> Iterator[tuple[str, Path]]:
    """Writes the files of one format; what is wrong with each, and where it is."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, data) in enumerate(KINDS[suffix]()):
        path = folder / f"{number}{suffix}"
        path.write_bytes(data)
        yield name, path
