"""Are the tensors of a checkpoint's files the model's? Their dtypes, shapes and values.

The loading libraries copy whatever numbers a file has under a parameter's name. Weights that were
stored as integers or in 8 bits mean something only with their scales, so they are refused where
the model does not have them in that dtype itself. All files are looked at, also for the blocks
that are not loaded (`adapters.partial`): whether a checkpoint is sound does not depend on the
layers asked for.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from adapters.checkpoints import weight_files
from zoo.cards import Card
from zoo.errors import BadWeights

_NUMBERS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
_ELEMENTS = 1 << 24


class Stored(NamedTuple):
    """A tensor of a file, without its values."""

    path: Path
    name: str
    dtype: str
    is_number: bool
    shape: tuple[int, ...]


def check_tensors(card: Card, folder: Path, model: nn.Module) -> None:
    """Refuses a checkpoint with a tensor that is not what the model has under its name.

    Raises:
        BadWeights: naming the first such tensor.
    """
    known = dict([*model.named_parameters(), *model.named_buffers()])
    prefix = str(getattr(model, "base_model_prefix", "") or "model")
    # Some versions of the library give a parameter the dtype that its file has.
    scaled = getattr(getattr(model, "config", None), "quantization_config", None) is not None
    for stored in stored_tensors(weight_files(card, folder)):
        tensor = _match(stored.name, known, prefix)
        if tensor is None or not tensor.is_floating_point():
            continue
        if not stored.is_number and not (scaled and stored.dtype == _name(tensor.dtype)):
            raise _quantised(card, stored)
        if tensor.is_meta:
            _check_unread(card, stored, tensor)
    _check_values(card, model)


# What torch says of integers in place of a parameter.
_NO_GRADIENT = "can require grad"


@contextlib.contextmanager
def better_reasons(adapter: Any) -> Iterator[None]:
    """Names integers among the weights where an adapter's library only failed on them."""
    try:
        yield
    except BadWeights as error:
        raise _better_reason(adapter.card, adapter._folder, error) from error.__cause__


def _better_reason(card: Card, folder: Path | None, error: BadWeights) -> BadWeights:
    """The error, or the refusal of the first weight that is no floating point number.

    For versions of the transformers library that fail on such weights before a model is there to
    compare them with.
    """
    if folder is None or _NO_GRADIENT not in error.message:
        return error
    for stored in stored_tensors(weight_files(card, folder)):
        if not stored.is_number and stored.name.endswith((".weight", ".bias")):
            return _quantised(card, stored)
    return error


def _quantised(card: Card, stored: Stored) -> BadWeights:
    return BadWeights(
        f"model {card.id!r}: {stored.name} in {stored.path} is {stored.dtype}, where the "
        "model has floating point numbers: weights that were quantised, without their scales",
        "Give the checkpoint before quantisation.",
    )


def _check_unread(card: Card, stored: Stored, tensor: Tensor) -> None:
    """What loading would have said of a tensor that was left in its file."""
    if stored.shape != tuple(tensor.shape):
        raise BadWeights(
            f"model {card.id!r}: {stored.name} in {stored.path} has shape {stored.shape}, the "
            f"model {tuple(tensor.shape)}",
            "Give the checkpoint that the card names.",
        )
    from safetensors import safe_open

    with safe_open(stored.path, framework="pt") as file:
        _check_finite(card, stored.name, file.get_tensor(stored.name))


def _check_values(card: Card, model: nn.Module) -> None:
    """Every parameter that was loaded is finite. Buffers may hold masks of infinity."""
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and not parameter.is_meta:
            _check_finite(card, name, parameter)


def _check_finite(card: Card, name: str, tensor: Tensor) -> None:
    for part in tensor.detach().flatten().split(_ELEMENTS):
        # A sum of finite numbers is not always finite, but it is cheap, and most are.
        if part.element_size() > 1 and not bool(part.sum(dtype=torch.float64).isfinite()):
            count = int((~part.isfinite()).sum())
            if count:
                raise BadWeights(
                    f"model {card.id!r}: {name} has {count} values that are not finite",
                    "Fetch it again, or load it in float32: float16 ends at 65504.",
                )


def _match(name: str, known: dict[str, Tensor], prefix: str) -> Tensor | None:
    """The model's tensor of that name; a file may have it as part of a larger model, or reverse."""
    names = (name, name.removeprefix(f"{prefix}."), f"{prefix}.{name}")
    return next((known[each] for each in names if each in known), None)


def stored_tensors(files: Iterable[Path]) -> Iterator[Stored]:
    """The tensors of some files of weights, without their values."""
    for path in files:
        if path.suffix == ".safetensors":
            yield from _in_safetensors(path)
        elif path.suffix in (".bin", ".pt", ".pth", ".ckpt"):
            yield from _in_pickle(path)


def _in_safetensors(path: Path) -> Iterator[Stored]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 (no mapping)
            part = file.get_slice(name)
            dtype = part.get_dtype()
            is_number = dtype in ("F16", "BF16", "F32", "F64")
            yield Stored(path, name, dtype, is_number, tuple(part.get_shape()))


def _in_pickle(path: Path) -> Iterator[Stored]:
    content: Any = None
    # What cannot be read was loaded by a reader of its own, which said what is wrong.
    with contextlib.suppress(RuntimeError, pickle.UnpicklingError, OSError, ValueError, EOFError):
        content = torch.load(path, map_location="meta", weights_only=True)
    for part in (content, *(content.values() if isinstance(content, dict) else ())):
        for name, tensor in part.items() if isinstance(part, dict) else ():
            if isinstance(tensor, Tensor):
                shape = tuple(tensor.shape)
                yield Stored(path, str(name), _name(tensor.dtype), tensor.dtype in _NUMBERS, shape)


def _name(dtype: torch.dtype) -> str:
    """As safetensors writes it for the small ones, so that both can be compared."""
    return {
        torch.int8: "I8",
        torch.uint8: "U8",
        torch.float8_e4m3fn: "F8_E4M3",
        torch.float8_e5m2: "F8_E5M2",
    }.get(dtype, str(dtype).removeprefix("torch."))
