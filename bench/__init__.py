"""Measurement. `bench.diagnose(activations)` is the way in for activations of one's own."""

# A room of gammabench.

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.diagnosis.diagnose import diagnose
    from bench.sae.model import load_sae

__all__ = ["diagnose", "load_sae"]

_HOME = {"diagnose": "bench.diagnosis.diagnose", "load_sae": "bench.sae.model"}


def __getattr__(name: str) -> Any:
    # Imported when it is used: the command line must start without torch.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
