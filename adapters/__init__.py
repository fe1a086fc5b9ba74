"""How a model becomes activations: one iterator over everything the zoo names.

The names below are loaded on first use: `adapters.registry` and `adapters.compat` can be imported
without torch.
"""

# A room of gammabench.

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adapters.base import ActivationBatch, Adapter
    from adapters.conformance import CheckResult, check
    from adapters.passes import Inputs
    from adapters.registry import adapter_names, lacking, missing_packages, open_adapter

_HOME = {
    "ActivationBatch": "adapters.base",
    "Adapter": "adapters.base",
    "Inputs": "adapters.passes",
    "CheckResult": "adapters.conformance",
    "check": "adapters.conformance",
    "adapter_names": "adapters.registry",
    "lacking": "adapters.registry",
    "missing_packages": "adapters.registry",
    "open_adapter": "adapters.registry",
}

__all__ = [
    "ActivationBatch",
    "Adapter",
    "CheckResult",
    "Inputs",
    "adapter_names",
    "check",
    "lacking",
    "missing_packages",
    "open_adapter",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
