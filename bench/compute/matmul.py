"""The fast single-precision matrix product, used only where it is as accurate as the slow one.

On some CPUs torch's default product runs at half the speed of its other backend, which
`torch.set_float32_matmul_precision("medium")` selects. On others "medium" means bfloat16. The
difference is measured, once per process, on a small product against float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import torch

# Relative error (Frobenius) that still counts as full single precision: about ten times what a
# plain float32 product of this size shows, and a thousand times less than bfloat16 shows.
MAX_RELATIVE_ERROR = 3e-6
_ROWS, _INNER, _COLUMNS = 256, 512, 512


@dataclass(frozen=True)
class MatmulChoice:
    """What products ran with; goes into a record's provenance."""

    precision: str
    relative_error: float | None


@cache
def measured_error(precision: str) -> float:
    """Relative error (Frobenius norm) of a CPU float32 product under this precision setting."""
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(_ROWS, _INNER, generator=generator)
    right = torch.randn(_COLUMNS, _INNER, generator=generator)
    exact = left.double() @ right.double().T
    with _precision(precision):
        product = left @ right.T
    return float((product.double() - exact).norm() / exact.norm())


@contextmanager
def fast_matmul(device: torch.device | str = "cpu") -> Iterator[MatmulChoice]:
    """Run float32 products on their fastest accurate path; the former setting comes back after.

    Yields what was chosen. Off the CPU nothing is chosen for speed: there the faster settings
    mean TF32 or bfloat16, so full precision is set, for convolutions too.
    """
    choice = _choose(torch.device(device).type)
    with _precision(choice.precision), _exact_convolutions():
        yield choice


@cache
def _choose(device_type: str) -> MatmulChoice:
    if device_type != "cpu":
        return MatmulChoice("highest", None)
    for precision in ("medium", "highest"):
        error = measured_error(precision)
        if error <= MAX_RELATIVE_ERROR:
            break
    return MatmulChoice(precision, error)


@contextmanager
def _precision(precision: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def _exact_convolutions() -> Iterator[None]:
    """No TF32 in cuDNN, where torch allows it unless told otherwise."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
