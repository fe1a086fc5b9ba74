"""Triton kernels for CUDA devices, each behind what plain PyTorch does everywhere else.

Importing this imports no Triton. On each device a kernel is used only once it has proved itself, on
a small random problem against float64; one that does not compile or does not agree is left out, and
`kernels_left_out` says why.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Literal, get_args

import torch

from bench.compute.parts import why_no_parts

Kernel = Literal["decode", "gradients", "encoder", "select", "update", "pairs"]


def usable(kernel: Kernel, device: torch.device) -> bool:
    """Whether to use the kernel on tensors of that device."""
    return why_not(kernel, device) is None


@cache
def why_not(kernel: Kernel, device: torch.device) -> str | None:
    """Why a kernel is not used on a device; None where it is."""
    if device.type != "cuda":
        return "it is for CUDA devices"
    if find_spec("triton") is None:
        return "triton is not installed (pip install triton)"
    from bench.compute.kernels.proof import PROOFS

    try:
        return PROOFS[kernel](device)
    except Exception as error:
        # A compiler's errors are of many types.
        reason = str(error).splitlines() or [""]
        return f"it fails ({type(error).__name__}: {reason[0]})"


def kernels_left_out(device: torch.device) -> list[str]:
    """A note for each kernel that a CUDA device could run, but does not; and of its products of
    parts (`bench.compute.parts`)."""
    if device.type != "cuda":
        return []
    reasons = {f"the {name} kernel is": why_not(name, device) for name in get_args(Kernel)}
    reasons["products of parts are"] = why_no_parts(device)
    return [f"{what} not used: {why}" for what, why in reasons.items() if why]
