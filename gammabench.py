"""The face of the distribution: `import gammabench; gammabench.diagnose(activations)`.

The rooms `zoo`, `adapters`, `bench` and `leaderboard` are top-level packages, and other
distributions install packages of these names too (AdapterHub's `adapters`, for one). Importing this
module, and starting the command `bench`, therefore looks whose they are first.
"""

from __future__ import annotations

import os
import signal
import sys


def is_command() -> bool:
    """Whether this process is the command `bench`, or `python -m bench`, or `-m bench.cli`."""
    program = (sys.argv[0] if sys.argv else "").replace(os.sep, "/").split("/")
    modules = ["bench", "__main__.py"], ["bench", "cli", "__main__.py"]
    as_module = any(program[-len(parts) :] == parts for parts in modules)
    return program[-1] in ("bench", "bench.exe") or as_module


# What a command says that is interrupted, whenever that is.
INTERRUPTED_LINE = "bench: interrupted; run the same command again to go on"


def _leave(number: int, frame: object) -> None:
    print(INTERRUPTED_LINE, file=sys.stderr, flush=True)
    os._exit(130)


# A command that is interrupted while it imports has begun nothing, and no import of somebody else's
# can swallow that. Once it begins, `bench.cli.main` listens.
if is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _leave)

from importlib.util import find_spec  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import TYPE_CHECKING, Any  # noqa: E402

if TYPE_CHECKING:
    from bench.diagnosis.diagnose import diagnose
    from bench.sae.model import load_sae

__all__ = ["diagnose", "load_sae", "main"]

ROOMS = ("zoo", "adapters", "bench", "leaderboard")

# Stands in the `__init__` of each room.
MARK = "# A room of gammabench."


class ForeignPackage(ImportError):
    """A room's name belongs to another distribution's package."""


def check_rooms() -> None:
    """Raises `ForeignPackage` where a package of a room's name is not ours."""
    for room in ROOMS:
        spec = find_spec(room)
        where = spec.origin if spec is not None else None
        if where is not None and MARK in Path(where).read_text(encoding="utf-8"):
            continue
        from importlib.metadata import packages_distributions  # slow, and seldom needed

        owners = set(packages_distributions().get(room, ())) - {"gammabench"}
        if not owners and where is None:
            raise ForeignPackage(f"gammabench's package {room!r} is missing; install it again")
        remedy = f"pip uninstall {' '.join(sorted(owners))}" if owners else f"Rename {where}"
        raise ForeignPackage(
            f"{where or room} is not gammabench's package {room!r}, and stands in its way. "
            f"{remedy}, or give gammabench an environment of its own; then install it again"
        )


def main() -> None:
    """The command `bench`."""
    from bench.cli.main import main as run

    run()


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata

        try:
            return metadata.version("gammabench")
        except metadata.PackageNotFoundError:  # run from a folder that was never installed
            raise AttributeError("gammabench is not installed: it has no version") from None
    # What `bench` offers, imported when it is used.
    if name not in ("diagnose", "load_sae"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import bench

    return getattr(bench, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


try:
    check_rooms()
except ForeignPackage as error:
    if not is_command():
        raise
    # A command says it in one line.
    print(f"bench: {error}", file=sys.stderr)
    sys.exit(2)
