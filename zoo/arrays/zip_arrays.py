"""Arrays inside .npz archives, read by rows: neither inflated whole nor from the start each time.

`np.savez` stores an array as it is: it is then mapped. `np.savez_compressed`, which
AlphaFold 3 uses, deflates it, and a deflated stream can only be read forwards. So the state of the
decompressor is kept at points a MiB apart (Mark Adler's zran.c does the same), and rows are
read from the nearest point before them.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np

from zoo.arrays.header import ArrayRows, broken
from zoo.arrays.npy import npy_header
from zoo.errors import BadActivations

# Bytes between two points, and the most points there are: one takes some 45 KiB of memory.
_APART = 1 << 20
_POINTS = 512
# Bytes read, and the most bytes inflated, at a time.
_READ = 1 << 16
_INFLATED = 1 << 20


class DeflatedArray:
    """The rows of a C-ordered array in a deflated .npz member.

    Args:
        path: the archive.
        key: the array's name in it.

    Raises:
        BadActivations: on reading, where the archive is cut off or fails its checksum.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        with zipfile.ZipFile(path) as archive:
            member = archive.getinfo(f"{key}.npy")
            with archive.open(member) as file:
                self.shape, self.fortran, self.dtype = npy_header(file)
                self._header = file.tell()
        self.key = key
        self.width = self.shape[-1]
        self._start = _data_offset(path, member)
        self._packed = member.compress_size
        self._size = member.file_size
        self._checksum = _Checksum(member)
        self._apart = max(_APART, self._size // _POINTS)
        # (bytes inflated, bytes read, decompressor) at each point.
        self._points: list[tuple[int, int, Any]] = [(0, 0, zlib.decompressobj(-zlib.MAX_WBITS))]

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows of the array as [tokens, width], all axes but the last counting tokens."""
        row = self.width * self.dtype.itemsize
        data = self._read(self._header + start * row, self._header + stop * row)
        return np.frombuffer(data, self.dtype).reshape(stop - start, self.width)

    def _read(self, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop` of the inflated member."""
        done, read, state = max(
            (point for point in self._points if point[0] <= start), key=lambda point: point[0]
        )
        state = state.copy()
        kept: list[bytes] = []
        with self.path.open("rb") as file:
            file.seek(self._start + read)
            while done < stop:
                left = state.unconsumed_tail
                packed = left or file.read(min(_READ, self._packed - read))
                if not packed:
                    raise self._broken(f"it ends at {done} of {self._size} bytes")
                try:
                    data = state.decompress(packed, _INFLATED)
                except zlib.error as error:
                    raise self._broken(error) from None
                kept.append(data[max(0, start - done) : max(0, stop - done)])
                read += 0 if left else len(packed)
                self._sum(done, data)
                done += len(data)
                if done - self._points[-1][0] >= self._apart:
                    self._points.append((done, read, state.copy()))
        return b"".join(kept)

    def _sum(self, done: int, data: bytes) -> None:
        if not self._checksum.agrees(done, data):
            raise self._broken("its checksum is another")

    def _broken(self, reason: object) -> BadActivations:
        return broken(f"{self.path}: {self.key}", reason)


class MappedArray:
    """The rows of an array in an .npz member that is stored as it is: mapped.

    Raises:
        BadActivations: on reading, where the last row is read after all others, in order, and the
            member's checksum is another.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.name = f"{path}: {key}"
        with zipfile.ZipFile(path) as archive:
            member = archive.getinfo(f"{key}.npy")
            with archive.open(member) as file:
                shape, fortran, dtype = npy_header(file)
                header = file.tell()
        start = _data_offset(path, member)
        order: Literal["C", "F"] = "F" if fortran else "C"
        self.array = np.memmap(
            path, dtype, mode="r", offset=start + header, shape=shape, order=order
        )
        self._row = shape[-1] * dtype.itemsize
        self._header = header
        self._checksum = None if fortran else _Checksum(member)
        if self._checksum is not None:
            self._checksum.agrees(0, np.memmap(path, mode="r", offset=start, shape=(header,)).data)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """See `zoo.arrays.header.RowReader`."""
        found = np.asarray(ArrayRows(self.array).rows(start, stop))
        if self._checksum is not None and not self._checksum.agrees(
            self._header + start * self._row, found.view(np.uint8).reshape(-1).data
        ):
            raise broken(self.name, "its checksum is another")
        return found


class _Checksum:
    """The CRC-32 of a member, summed over its bytes as they are read for the first time in order.

    Rows that are read in another order are not summed: it would cost reading the file once more.
    """

    def __init__(self, member: zipfile.ZipInfo) -> None:
        self.size = member.file_size
        self.expected = member.CRC
        self.done = 0
        self.crc = 0

    def agrees(self, start: int, data: bytes | memoryview) -> bool:
        """Whether the sum is right, or not complete, with the bytes from `start` on."""
        if start <= self.done < start + len(data):
            self.crc = zlib.crc32(data[self.done - start :], self.crc)
            self.done = start + len(data)
            return self.done < self.size or self.crc == self.expected
        return True


def _data_offset(path: Path, member: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin: after its local header, whose lengths may be its own."""
    with path.open("rb") as file:
        file.seek(member.header_offset + 26)
        name, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
    return member.header_offset + 30 + name + extra
