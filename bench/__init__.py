"""Measurement. `bench.diagnose(activations)` is the way in for activations of one's own."""

# A room of gammabench.

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.diagnosis.diagnose import diagnose
    from bench.diagnosis.trained import diagnose_sae
    from bench.sae.interop import read_sae
    from bench.sae.model import load_sae
    from bench.statistics.geometric_median import geometric_median

__all__ = ["diagnose", "diagnose_sae", "geometric_median", "load_sae", "read_sae"]

_HOME = {
    "diagnose": "bench.diagnosis.diagnose",
    "diagnose_sae": "bench.diagnosis.trained",
    "geometric_median": "bench.statistics.geometric_median",
    "load_sae": "bench.sae.model",
    "read_sae": "bench.sae.interop",
}


def __getattr__(name: str) -> Any:
    # Imported when it is used: the command line must start without torch.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
