"""What every format of array files offers: its arrays' headers, and their rows. No torch."""

from __future__ import annotations

import lzma
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from zoo.errors import BadActivations

if TYPE_CHECKING:
    from torch import Tensor

_FLOATS = ("float16", "bfloat16", "float32", "float64", np.dtype(np.longdouble).name)


@dataclass(frozen=True)
class Header:
    """One array of a file.

    key: its name in the file; None where the file holds one array without a name, as .npy does.
    dtype: its name in numpy, or in torch where numpy has none (`bfloat16`); `objects` for what
        would be unpickled.
    nbytes, packed: its bytes, and those it takes in the file, where the format compresses arrays.
    """

    key: str | None
    shape: tuple[int, ...]
    dtype: str
    nbytes: int = 0
    packed: int = 0

    @property
    def is_float(self) -> bool:
        """Whether its numbers are real floating point ones, which need no scale beside them."""
        return self.dtype in _FLOATS

    @property
    def inflation(self) -> float:
        """How many times larger it is than what it takes in the file."""
        return self.nbytes / self.packed if self.packed else 1.0


class RowReader(Protocol):
    """An array, read by rows."""

    def rows(self, start: int, stop: int) -> np.ndarray | Tensor:
        """Rows as [stop - start, width]: all axes of the array but the last count tokens.

        Raises:
            BadActivations: the file turns out to be broken here.
        """


class ArrayFile(Protocol):
    """A file whose headers were read. `headers` are in the file's order."""

    @property
    def headers(self) -> Sequence[Header]: ...

    def array(self, key: str | None) -> RowReader:
        """The array of a header whose `is_float` is true."""


@dataclass(frozen=True)
class ArrayRows:
    """The rows of an array that is in memory, or mapped."""

    whole: np.ndarray | Tensor

    def rows(self, start: int, stop: int) -> np.ndarray | Tensor:
        """See `RowReader`."""
        return self.whole.reshape(-1, self.whole.shape[-1])[start:stop]


def broken(name: object, reason: object) -> BadActivations:
    """The error for a file, or an array in it, that cannot be read."""
    lines = str(reason).strip().splitlines()
    return BadActivations(
        f"{name} is broken or truncated ({lines[0][:200] if lines else 'no reason given'})",
        "Write it again.",
    )


@contextmanager
def breakage(name: object) -> Iterator[None]:
    """Raises what numpy and zipfile raise for a broken file as `broken`."""
    try:
        yield
    except (EOFError, ValueError, SyntaxError, NotImplementedError, OverflowError) as error:
        raise broken(name, error) from None
    except (MemoryError, RecursionError, tokenize.TokenError) as error:  # of a header's text
        raise broken(name, error) from None
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError) as error:
        raise broken(name, error) from None
    except RuntimeError as error:
        if "encrypted" not in str(error):
            raise
        raise broken(name, error) from None
