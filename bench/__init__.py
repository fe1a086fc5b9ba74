"""Measurement. `bench.diagnose(activations)` is the way in for activations of one's own.

`bench.watch(trainer)` does it in the trainer of another library, and follows the training.
`bench.run` and `bench.load_records` are the commands `run` and `export` as functions.
"""

# A room of gammabench.

from __future__ import annotations

from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.cli.functions import load_records_frame as load_records
    from bench.cli.functions import run_cells as run
    from bench.diagnosis.diagnose import diagnose
    from bench.diagnosis.trained import diagnose_sae
    from bench.diagnosis.trainers import watch
    from bench.sae.interop import read_sae
    from bench.sae.model import load_sae
    from bench.statistics.geometric_median import geometric_median

__all__ = [
    "diagnose",
    "diagnose_sae",
    "geometric_median",
    "load_records",
    "load_sae",
    "read_sae",
    "run",
    "watch",
]

_HOME = {
    "diagnose": "bench.diagnosis.diagnose:diagnose",
    "diagnose_sae": "bench.diagnosis.trained:diagnose_sae",
    "geometric_median": "bench.statistics.geometric_median:geometric_median",
    "load_records": "bench.cli.functions:load_records_frame",
    "load_sae": "bench.sae.model:load_sae",
    "read_sae": "bench.sae.interop:read_sae",
    "run": "bench.cli.functions:run_cells",
    "watch": "bench.diagnosis.trainers:watch",
}


def __getattr__(name: str) -> Any:
    # Imported when it is used: the command line must start without torch.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return resolve_name(_HOME[name])


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
