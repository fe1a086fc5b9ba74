"""The C heap of this process, where the C library has settings for it (glibc)."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

# Settings of mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_MOST = 2**31 - 1

# Arrays up to this size are kept in any case: what glibc comes to by itself.
_LEAST_KEPT = 32 << 20

_kept = 0


def keep_heap(largest: int = 0) -> None:
    """Have freed arrays of up to `largest` bytes kept for the next ones, from now on.

    By default, arrays of some megabytes go back to the system when they are freed, and every page
    of the next one is a page fault: a tenth to a quarter of a training step. What is larger than
    asked for still goes back, as in a heap it would leave holes. `trim_heap` gives all back.
    """
    global _kept
    # A little more, for what the allocator adds.
    wanted = min(max(largest + (1 << 16), _LEAST_KEPT), _MOST)
    if wanted <= _kept:
        return
    _kept = wanted
    setting = _function("mallopt")
    if setting is not None:
        setting(_TRIM_THRESHOLD, _MOST)
        setting(_MMAP_THRESHOLD, wanted)


def trim_heap() -> None:
    """Give free pages of the C heap back to the system.

    Temporaries of some tens of megabytes leave holes in the heap that later ones do not fit; over
    several layers they add up to more than the block itself.
    """
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


def _function(name: str) -> Callable[..., int] | None:
    """A function of the C library; None where it has none of that name."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
