"""`.safetensors`: named tensors, of which only the rows asked for are read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.arrays.header import ArrayRows, Header, RowReader, broken

if TYPE_CHECKING:
    from torch import Tensor

# Types that numpy and torch call otherwise than a word with the number of bits.
_WORDS = {"F": "float", "BF": "bfloat", "I": "int", "U": "uint", "C": "complex"}


class SafetensorsFile:
    """See `zoo.arrays.header.ArrayFile`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with _opened(path, "np") as file:
            parts = [(key, file.get_slice(key)) for key in file.keys()]  # noqa: SIM118 (no mapping)
            self.headers = [
                Header(key, tuple(part.get_shape()), _dtype_name(part.get_dtype()))
                for key, part in parts
            ]

    def array(self, key: str | None) -> RowReader:
        """Tensors [tokens, width] by rows, those of more axes whole."""
        (header,) = (header for header in self.headers if header.key == key)
        if len(header.shape) == 2:
            return _Matrix(self.path, str(key))
        with _opened(self.path, "pt") as file:
            return ArrayRows(file.get_tensor(key))


class _Matrix:
    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.key = key

    def rows(self, start: int, stop: int) -> Tensor:
        with _opened(self.path, "pt") as file:
            found: Tensor = file.get_slice(self.key)[start:stop]
            return found


@contextmanager
def _opened(path: Path, framework: str) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework=framework) as file:
            yield file
    except SafetensorError as error:
        raise broken(path, error) from None


def _dtype_name(dtype: str) -> str:
    """`float32` for F32; the format's own name for what has no common one."""
    word = dtype.rstrip("0123456789")
    bits = dtype[len(word) :]
    return f"{_WORDS[word]}{bits}" if word in _WORDS and bits else dtype.lower()
