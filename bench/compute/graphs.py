"""Captured CUDA graphs of a step: what launches hundreds of kernels becomes one launch."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.compute.device import current_device, stream_for

# Steps of a kind that run as they are before it is captured: libraries choose their algorithms,
# and memory is allocated for the first time.
_WARM_UP = 3

_Step = Callable[[list[Tensor]], list[Tensor]]


@dataclass
class _Captured:
    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    outputs: list[Tensor]


class StepGraph:
    """Runs steps, by a captured graph where they are of a CUDA device and it can be captured.

    Attributes:
        note: why steps are not captured, where they could not be; None otherwise.
    """

    def __init__(self) -> None:
        self.note: str | None = None
        self._ran: dict[Hashable, int] = {}
        self._captured: dict[Hashable, _Captured] = {}

    @property
    def captured(self) -> bool:
        """Whether a kind of step is captured."""
        return bool(self._captured)

    def run(self, kind: Hashable, step: _Step, inputs: list[Tensor]) -> list[Tensor]:
        """step(inputs), the outputs the caller's to keep.

        kind: steps of one kind launch the same kernels on tensors of the same shapes, and read and
        write the same tensors beside `inputs`; nothing in them is decided by a number on the host.
        """
        if inputs[0].device.type != "cuda" or self.note is not None:
            return step(inputs)
        captured = self._captured.get(kind)
        if captured is None:
            ran = self._ran.get(kind, 0)
            if ran < _WARM_UP:
                self._ran[kind] = ran + 1
                return _on_side_stream(step, inputs)
            captured = self._capture(step, inputs)
            if captured is None:
                return step(inputs)
            self._captured[kind] = captured
        for mine, given in zip(captured.inputs, inputs, strict=True):
            mine.copy_(given)
        captured.graph.replay()
        return [output.clone() for output in captured.outputs]

    def _capture(self, step: _Step, inputs: list[Tensor]) -> _Captured | None:
        graph = torch.cuda.CUDAGraph()
        static = [x.clone() for x in inputs]
        try:
            # Nothing runs now: it is recorded. Of this thread alone: the model may be at work in
            # another one (`bench.activations.refill`), on a stream of its own.
            device = static[0].device
            side = stream_for("capture", device)
            recorded = torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local")
            with current_device(device), recorded:
                outputs = step(static)
        except RuntimeError as error:
            self.note = f"steps are not captured as a CUDA graph ({_first_cause(error)})"
            _forget_capture(static[0].device)
            return None
        return _Captured(graph, static, outputs)


def _on_side_stream(step: _Step, inputs: list[Tensor]) -> list[Tensor]:
    """As the warm-up of what will be captured has to run."""
    device = inputs[0].device
    current, side = torch.cuda.current_stream(device), stream_for("warm-up", device)
    side.wait_stream(current)
    with torch.cuda.stream(side):
        outputs = step(inputs)
    current.wait_stream(side)
    return outputs


def _first_cause(error: BaseException) -> str:
    """The first line of what went wrong first: ending the capture fails too, and says less."""
    while error.__context__ is not None:
        error = error.__context__
    return (str(error).splitlines() or [type(error).__name__])[0]


def _forget_capture(device: torch.device) -> None:
    """Lets the device's random numbers go on: a capture that fails leaves them in its own mode."""
    generator = torch.cuda.default_generators[device.index or 0]
    generator.graphsafe_set_state(generator.clone_state())
