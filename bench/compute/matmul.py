"""The fast single-precision matrix product, used only where it is faster and as accurate.

On some CPUs torch's default product runs at half the speed of its other backend, which
`torch.set_float32_matmul_precision("medium")` selects. On others "medium" means bfloat16, or is no
faster and only costs: it begins each shape anew, and is slow where matrices are small, as those of
attention's heads are (2 to 6 times, on a Xeon). Both are measured, on one product in each process.

Numbers too small for full precision (below 1.2e-38) are taken as 0, as a processor that meets them
takes up to 200 times as long. Adam's first moment of a feature that died falls among them after
some 800 steps and stays there, and so does an exponential of what is far below 0.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from typing import Any

import torch

from bench.compute.device import current_device
from bench.compute.timing import one_thread

# Relative error (Frobenius) that still counts as full single precision: about ten times what a
# plain float32 product of this size shows, and a thousand times less than bfloat16 shows.
MAX_RELATIVE_ERROR = 3e-6
_ROWS, _INNER, _COLUMNS = 256, 512, 512

# How much faster the other backend must be: it is 0.97 to 1 times as fast, or about 2. The best of
# some rounds, so that one machine always chooses the same.
_WORTH, _ROUNDS = 1.3, 7
_PRECISIONS = ("medium", "highest")


@dataclass(frozen=True)
class MatmulChoice:
    """What products ran with; goes into a record's provenance."""

    precision: str
    relative_error: float | None


@cache
def measured_error(precision: str) -> float:
    """Relative error (Frobenius norm) of a CPU float32 product under this precision setting."""
    left, right = _factors()
    exact = left.double() @ right.double().T
    with matmul_precision(precision):
        product = left @ right.T
    return float((product.double() - exact).norm() / exact.norm())


@cache
def measured_seconds() -> dict[str, float]:
    """Of this thread's processor, that the same product takes at best, by precision setting."""
    left, right = _factors()
    best = dict.fromkeys(_PRECISIONS, float("inf"))
    for _ in range(_ROUNDS):
        for precision in _PRECISIONS:
            with matmul_precision(precision):
                start = time.thread_time()
                left @ right.T
                best[precision] = min(best[precision], time.thread_time() - start)
    return best


def _factors() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = (_ROWS, _INNER), (_COLUMNS, _INNER)
    left, right = (torch.randn(shape, generator=generator) for shape in shapes)
    return left, right


@contextmanager
def fast_matmul(device: torch.device | str = "cpu") -> Iterator[MatmulChoice]:
    """Run float32 products on their fastest accurate path; the former setting comes back after.

    Yields what was chosen. Off the CPU nothing is chosen for speed: there the faster settings
    mean TF32 or bfloat16, so full precision is set, for convolutions too, and of several CUDA
    devices this one is current. What this processor computes meanwhile takes subnormal numbers
    as 0.
    """
    choice = _choose(torch.device(device).type)
    with (
        matmul_precision(choice.precision),
        _exact_convolutions(),
        _without_subnormals(),
        current_device(device),
    ):
        yield choice


@cache
def _choose(device_type: str) -> MatmulChoice:
    if device_type != "cpu":
        return MatmulChoice("highest", None)
    fast, exact = _PRECISIONS
    # So that other work on the machine does not decide, and torch starts no other threads yet.
    with one_thread():
        error = measured_error(fast)
        if error <= MAX_RELATIVE_ERROR:
            seconds = measured_seconds()
            if seconds[exact] >= _WORTH * seconds[fast]:
                return MatmulChoice(fast, error)
        return MatmulChoice(exact, measured_error(exact))


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Torch's setting for float32 products; the former ones come back after, by all their names."""
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:
        # It was set by torch's newer names, of which the older one does not tell.
        before = None
    with _restored("cuda.matmul", "mkldnn.matmul"):
        torch.set_float32_matmul_precision(precision)
        try:
            yield
        finally:
            if before is not None:
                torch.set_float32_matmul_precision(before)


@contextmanager
def _exact_convolutions() -> Iterator[None]:
    """No TF32 in cuDNN, where torch allows it unless told otherwise."""
    cudnn = torch.backends.cudnn
    try:
        before = cudnn.allow_tf32
    except RuntimeError:  # as above
        before = None
    with _restored("cudnn.conv", "cudnn.rnn") as newer:
        # By the older name, which raises for whoever asks where the newer ones say anything else.
        cudnn.allow_tf32 = False
        for setting in newer:
            if setting.fp32_precision == "tf32":  # for all of cuDNN, or all of torch
                setting.fp32_precision = "ieee"
        try:
            yield
        finally:
            if before is not None:
                cudnn.allow_tf32 = before


@contextmanager
def _restored(*names: str) -> Iterator[list[Any]]:
    """Torch's settings of that name, where it has them; their precisions come back after."""
    settings = [find(torch.backends) for find in map(attrgetter, names) if _has(find)]
    before = [setting.fp32_precision for setting in settings]
    try:
        yield settings
    finally:
        for setting, precision in zip(settings, before, strict=True):
            setting.fp32_precision = precision


def _has(find: Callable[[Any], Any]) -> bool:
    try:
        return hasattr(find(torch.backends), "fp32_precision")
    except AttributeError:
        return False


@contextmanager
def _without_subnormals() -> Iterator[None]:
    """Takes them as 0 in this thread, and in those of torch's that start meanwhile: a processor
    keeps this for each thread, and a new one has it from the one that starts it."""
    before = sys.float_info.min / 2 == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
