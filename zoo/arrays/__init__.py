"""Array files: their headers without reading an array, and their arrays by rows. No torch."""

from zoo.arrays.formats import ARRAY_FORMATS, is_array_file, open_arrays, read_headers
from zoo.arrays.header import ArrayFile, Header, RowReader

__all__ = [
    "ARRAY_FORMATS",
    "ArrayFile",
    "Header",
    "RowReader",
    "is_array_file",
    "open_arrays",
    "read_headers",
]
