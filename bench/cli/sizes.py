"""Large numbers for a reader."""

from __future__ import annotations


def decimal_size(count: int) -> str:
    """Bytes for a reader, in decimal units as the hub shows them."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} bytes"


def short(count: int) -> str:
    """124439808 as 124M."""
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return str(count)
