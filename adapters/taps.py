"""Reading the residual stream out of a model's blocks, and stopping after the deepest one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Literal, Self

from torch import Tensor, nn

from zoo.cards import Tap
from zoo.errors import BadActivations, WrongArchitecture


class StopForward(Exception):
    """Ends a forward pass when every tap has what it wanted. Never leaves `Taps`."""


def find_blocks(model: nn.Module, tap: Tap, name: str) -> list[nn.Module]:
    """The model's blocks in order, by the first of the tap's patterns that the model has.

    Raises:
        WrongArchitecture: no pattern fits, or another number of blocks than the card says.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    for pattern in tap.blocks:
        blocks = _matches(modules, pattern)
        if not blocks:
            continue
        if len(blocks) != tap.layers:
            raise WrongArchitecture(
                f"model {name!r}: wrong architecture: {len(blocks)} blocks at {pattern!r}, "
                f"the card says {tap.layers}",
                "Use the checkpoint the card names, or correct tap.layers.",
            )
        return blocks
    children = ", ".join(child for child, _ in model.named_children())
    raise WrongArchitecture(
        f"model {name!r}: wrong architecture: no blocks at {' or '.join(map(repr, tap.blocks))} "
        f"in {type(model).__name__} (it has {children or 'no modules'})",
        "Use the checkpoint the card names, or correct tap.blocks.",
    )


def _matches(modules: Mapping[str, nn.Module], pattern: str) -> list[nn.Module]:
    if "{i}" not in pattern:
        return [modules[pattern]] if pattern in modules else []
    blocks: list[nn.Module] = []
    while (path := pattern.replace("{i}", str(len(blocks)))) in modules:
        blocks.append(modules[path])
    return blocks


def pick(output: Any, which: int | Literal["sum"]) -> Tensor:
    """The residual stream in a block's output.

    Library versions differ in whether a block returns the stream or a tuple that begins with it,
    so a bare tensor stands for index 0.

    Raises:
        BadActivations: there is no tensor at that place.
    """
    if isinstance(output, Tensor):
        if which == 0:
            return output
        raise BadActivations(
            f"tap.output is {which!r}, but the block returns one tensor", "Remove tap.output."
        )
    if which == "sum":
        tensors = [part for part in output if isinstance(part, Tensor)]
        if tensors:
            return sum(tensors[1:], start=tensors[0])
        raise BadActivations("tap.output is 'sum', but the block returns no tensors")
    try:
        stream = output[which]
    except (IndexError, KeyError, TypeError):
        stream = None
    if not isinstance(stream, Tensor):
        raise BadActivations(
            f"the block's output ({type(output).__name__}) has no tensor at tap.output {which}"
        )
    return stream


def first_input(model: nn.Module, block: nn.Module, arguments: Mapping[str, Any]) -> Tensor | None:
    """The first tensor that a block is given in a forward pass, which ends there."""
    taken: list[Tensor] = []

    def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        taken.extend(tensor.clone() for tensor in tensors[:1])
        raise StopForward

    handle = block.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        model(**arguments)
    except StopForward:
        pass
    finally:
        handle.remove()
    return taken[0] if taken else None


class Taps:
    """Context around one forward pass: keeps what each tapped block gives, then stops the pass.

    Args:
        blocks: the blocks to read, by layer number.
        stream: finds the residual stream in what a block returns.
        keep: makes what is kept of a stream. It must copy: some models go on to write into the
            tensor that a block returned.
        passes: how often the model runs each block in one forward pass. Trunks that recycle run
            them several times; the last time is kept.

    `kept` holds the results by layer number. The hooks come off when the context ends, however it
    ends. Blocks may run in any order: the pass stops when all have run.

    Raises:
        BadActivations: on leaving, where the pass ended before each block had run.
    """

    def __init__(
        self,
        blocks: Mapping[int, nn.Module],
        stream: Callable[[Any], Tensor],
        keep: Callable[[int, Tensor], Tensor],
        passes: int = 1,
    ) -> None:
        self._blocks = blocks
        self._stream = stream
        self._keep = keep
        self._left = dict.fromkeys(blocks, passes)
        self._handles: list[Any] = []
        self.kept: dict[int, Tensor] = {}

    def __enter__(self) -> Self:
        try:
            for layer, block in self._blocks.items():
                self._handles.append(block.register_forward_hook(self._hook(layer)))
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        self._remove()
        if kind is not None and not issubclass(kind, StopForward):
            return False
        missing = sorted(set(self._blocks) - set(self.kept))
        if missing:
            times = self._left[missing[0]]
            often = f", or {times} times too few" if times > 1 else ""
            raise BadActivations(f"block {missing[0]} did not run in the forward pass{often}")
        return True

    def _hook(self, layer: int) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            self._left[layer] -= 1
            if self._left[layer] != 0:
                return
            self.kept[layer] = self._keep(layer, self._stream(output))
            if len(self.kept) == len(self._blocks):
                raise StopForward

        return hook

    def _remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
