"""Where a block's time goes: marks in the code, a table of them, and a trace that Perfetto opens.

The table's times are of the thread that trains, a mark within another counting as the outer one;
`model` includes loading it and what it waits for: reading and tokenising.
On a GPU a mark waits for the device where it begins and ends, so that what it queued is its own:
a profiled run is slower than others. Steps that a bank runs as a captured graph are one part, whose
kernels are told apart in the trace. Without a profile a mark is a look at one variable.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, get_args

from zoo.files import write_atomically

if TYPE_CHECKING:
    import torch

Part = Literal[
    "model", "product", "selection", "decode", "gradients", "optimizer", "census", "waiting"
]
PARTS: tuple[Part, ...] = get_args(Part)

# A trace of more steps tells nothing more, and is too large to open.
TRACED_STEPS = 20

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


class Profile:
    """The seconds of each part of what runs from now on, and a trace of the first steps.

    Attributes:
        seconds: of the training thread, by part; `other` is what has no mark.
        beside: of other threads, meanwhile.
    """

    def __init__(self, trace: Path, device: torch.device) -> None:
        self.trace = trace
        self._device = device
        self.seconds: dict[str, float] = dict.fromkeys((*PARTS, "other"), 0.0)
        self.beside: dict[str, float] = {}
        self._thread = threading.get_ident()
        self._inside: str | None = None
        self._since = time.perf_counter()
        self._steps = 0
        self._tracer: Any = None

    @contextmanager
    def part(self, name: Part) -> Iterator[None]:
        """What is done in the context is that part."""
        from torch.profiler import record_function

        with record_function(name):
            if threading.get_ident() != self._thread:
                begin = time.perf_counter()
                yield
                self.beside[name] = self.beside.get(name, 0.0) + time.perf_counter() - begin
            elif self._inside is not None:
                yield
            else:
                self._count(name)
                try:
                    yield
                finally:
                    self._count(None)

    def begin_step(self) -> None:
        """A training step begins; the first `TRACED_STEPS` are traced."""
        if self._steps == 0:
            self._start_trace()
        elif self._steps == TRACED_STEPS:
            self._end_trace()
        self._steps += 1

    def end(self) -> None:
        """Nothing more is profiled."""
        self._count(None)
        self._end_trace()

    def table(self) -> str:
        """Seconds and shares of the parts, in markdown."""
        whole = sum(self.seconds.values())
        rows = [
            f"| {name} | {seconds:.3f} | {seconds / whole:.1%} |"
            for name, seconds in self.seconds.items()
        ]
        beside = [f"| {name}, beside | {s:.3f} | |" for name, s in self.beside.items()]
        head = ["| part | seconds | share |", "|:--|--:|--:|"]
        return "\n".join([*head, *rows, f"| whole | {whole:.3f} | 100.0% |", *beside]) + "\n"

    def _count(self, name: str | None) -> None:
        """What ran since the last call is counted; what comes is `name`."""
        import torch

        if self._device.type == "cuda" and not torch.cuda.is_current_stream_capturing():
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self.seconds[self._inside or "other"] += now - self._since
        self._inside, self._since = name, now

    def _start_trace(self) -> None:
        from torch.profiler import ProfilerActivity, profile

        # Else the tracer writes lines of its own to stderr.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        on_gpu = [ProfilerActivity.CUDA] if self._device.type == "cuda" else []
        self._tracer = profile(activities=[ProfilerActivity.CPU, *on_gpu])
        self._tracer.start()

    def _end_trace(self) -> None:
        if self._tracer is None:
            return
        self._tracer.stop()
        self.trace.parent.mkdir(parents=True, exist_ok=True)
        self._tracer.export_chrome_trace(str(self.trace))
        self._tracer = None


_profile: Profile | None = None
_NOTHING = nullcontext()


def mark(name: Part) -> AbstractContextManager[None]:
    """Marks what is done in the context as that part of a profile."""
    return _NOTHING if _profile is None else _profile.part(name)


def marked(
    name: Part,
) -> Callable[[Callable[_Parameters, _Result]], Callable[_Parameters, _Result]]:
    """Marks all that a function does, as `mark`."""

    def decorate(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
        @functools.wraps(function)
        def run(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
            if _profile is None:
                return function(*args, **kwargs)
            with _profile.part(name):
                return function(*args, **kwargs)

        return run

    return decorate


def step_begins() -> None:
    """To be called before each training step's batch is taken."""
    if _profile is not None:
        _profile.begin_step()


@contextmanager
def profiled(
    folder: Path | None, name: str, device: torch.device, tell: Callable[[str], None]
) -> Iterator[None]:
    """Profiles what is done in the context into `folder`, unless it is None: NAME.md has the table,
    NAME.json.gz the trace."""
    global _profile
    if folder is None:
        yield
        return
    found = _profile = Profile(folder / f"{name}.json.gz", device)
    try:
        yield
    finally:
        _profile = None
        found.end()
        table = folder / f"{name}.md"
        write_atomically(table, found.table())
        whole = sum(found.seconds.values())
        shares = {part: seconds / whole for part, seconds in found.seconds.items()}
        largest = sorted(shares, key=lambda part: -shares[part])[:4]
        words = ", ".join(f"{name} {shares[name]:.0%}" for name in largest)
        tell(f"{whole:.1f} s: {words}; all parts in {table}")
