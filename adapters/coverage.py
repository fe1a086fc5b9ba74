"""Did every parameter come out of the checkpoint's files?

Loading libraries report the keys that they miss, and leave out those that a class ties to others. A
tie that loading broke is then reported by none: the parameter holds whatever was in memory, and the
activations are finite and wrong. (Caduceus ties the projections of its two directions and stores
them once.)
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from adapters import compat
from zoo.cards import Card
from zoo.errors import BadWeights

# Parts that run after the blocks. Whether the checkpoint has them or the model makes them up
# changes no activation.
AFTER_BLOCKS = {"pooler", "lm_head", "cls", "classifier", "contact_head", "score", "head"}


def tie_again(model: nn.Module, keys: Iterable[str]) -> set[str]:
    """Gives parameters that the model's class ties the one of them that the files hold.

    A fresh model, built without memory, shows what is tied. Where it cannot be built so, nothing
    is done: `check_coverage` then refuses what is left over.

    Args:
        keys: the names of the tensors in the files.

    Returns:
        The names of all parameters and buffers that are one with one in the files.
    """
    try:
        with compat.quiet(), torch.device("meta"):
            fresh: nn.Module = type(model)(model.config)
    except Exception:  # whatever a foreign constructor raises
        return set()
    saved, own = set(keys), _tensors_of(model)
    tied: set[str] = set()
    for group in _same(_tensors_of(fresh)):
        given = next((name for name in group if _forms(model, name) & saved), None)
        if given is None or not own.keys() >= set(group):
            continue
        for name in group:
            if own[name] is not own[given]:
                parent, _, leaf = name.rpartition(".")
                setattr(model.get_submodule(parent), leaf, own[given])
        tied |= set(group)
    return tied


def _tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by all of their names."""
    buffers = dict(model.named_buffers(remove_duplicate=False))
    return buffers | dict(model.named_parameters(remove_duplicate=False))


def _same(tensors: dict[str, Tensor]) -> list[list[str]]:
    """The names of one tensor, for each tensor that has several."""
    groups: dict[int, list[str]] = {}
    for name, tensor in tensors.items():
        groups.setdefault(id(tensor), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def second_names(model: nn.Module, keys: Iterable[str]) -> set[str]:
    """The names of parameters and buffers that share memory with one whose name the files hold.

    A module that a model holds in two places gives each of its tensors two names. Files hold one,
    and some versions of the loading libraries report the other as missing, though it was loaded:
    transformers 4.56 does so for buffers (Enformer's `_trunk` is made of modules named before).

    Args:
        keys: the names of the tensors in the files.
    """
    saved, own = set(keys), _tensors_of(model)
    held = {_memory(tensor) for name, tensor in own.items() if _forms(model, name) & saved}
    return {name for name, tensor in own.items() if _memory(tensor) in held}


def _memory(tensor: Tensor) -> tuple[object, ...]:
    """What two tensors have in common that are one: their place, or themselves without a place."""
    if tensor.is_meta or not tensor.numel():
        return (id(tensor),)
    return (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())


def keys_of(files: Iterable[Path]) -> dict[str, Path]:
    """The names of the tensors in files of weights, and where each is.

    A tensor packed as MXFP4 is two in a file, `NAME_blocks` and `NAME_scales`; it counts as `NAME`.
    """
    found: dict[str, Path] = {}
    for path in files:
        found |= dict.fromkeys(_tensors(path), path)
    stems = {name.removesuffix("_blocks"): path for name, path in found.items()}
    packed = {s: p for s, p in stems.items() if {f"{s}_blocks", f"{s}_scales"} <= found.keys()}
    return found | packed


def lost(model: nn.Module, keys: dict[str, Path]) -> list[str]:
    """The parameters that no file gives: by their name, by shared memory, or by their content.

    Content counts because libraries rename. Parameters that were left empty on purpose are not
    looked at.
    """
    parameters = {
        name: parameter
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if not parameter.is_meta and parameter.numel()
    }
    # Not the storage's address: files are mapped, and all of their tensors lie in one storage.
    covered = {
        parameter.data_ptr()
        for name, parameter in parameters.items()
        if _forms(model, name) & keys.keys()
    }
    rest = {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.data_ptr() not in covered
    }
    if not rest:
        return []
    named = {form for name in parameters for form in _forms(model, name)}
    spare = {key: path for key, path in keys.items() if key not in named}
    for path in sorted(set(spare.values())):
        for key, tensor in _tensors(path).items():
            if key in spare:
                rest = {n: p for n, p in rest.items() if not _equal(p, tensor())}
    return sorted(rest)


def check_coverage(card: Card, folder: Path, model: nn.Module, keys: dict[str, Path]) -> None:
    """Refuses a model with a parameter that no file gives.

    Where the library says that it merges or splits tensors for this architecture, its own report
    is relied on instead.

    Raises:
        BadWeights: naming the first one and how many there are.
    """
    missing = [name for name in lost(model, keys) if not AFTER_BLOCKS & set(name.split("."))]
    if not missing or _converted(model):
        return
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    raise BadWeights(
        f"model {card.id!r}: loading the checkpoint in {folder} under transformers "
        f"{compat.transformers().__version__} leaves the parameter {missing[0]}{more} without its "
        "values",
        "Use the version of the library that the card's notes or the model's authors name.",
    )


def _forms(model: nn.Module, name: str) -> set[str]:
    """The names that a parameter may have in a file: with or without the base model's prefix."""
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    return {name, f"{prefix}{name}", name.removeprefix(prefix)}


def _tensors(path: Path) -> dict[str, Any]:
    """For each name in a file of weights, a function that reads the tensor."""
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            return {key: _Saved(path, key) for key in file.keys()}  # noqa: SIM118
    try:
        content = _loaded(path)
    except pickle.UnpicklingError:  # not tensors alone, as training_args.bin beside the weights
        return {}
    return {
        key: (lambda tensor=tensor: tensor)
        for key, tensor in (content.items() if isinstance(content, dict) else ())
        if isinstance(tensor, Tensor)
    }


def _loaded(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError:  # the format before 1.6 cannot be mapped
        return torch.load(path, map_location="cpu", weights_only=True)


class _Saved:
    """Reads one tensor of a safetensors file."""

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key

    def __call__(self) -> Tensor:
        with safe_open(self.path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(self.key)
            return tensor


def _equal(parameter: Tensor, saved: Tensor) -> bool:
    return parameter.shape == saved.shape and torch.equal(
        parameter.detach().cpu(), saved.to(parameter.dtype)
    )


def is_the_librarys(model: nn.Module) -> bool:
    """Whether the class is of the transformers library, which knows how to load its own."""
    return type(model).__module__.startswith("transformers.")


def _converted(model: nn.Module) -> bool:
    """Whether the library turns this architecture's saved tensors into others on loading."""
    if not is_the_librarys(model):
        return False
    if getattr(model, "_checkpoint_conversion_mapping", None):
        return True
    try:
        from transformers.conversion_mapping import get_checkpoint_conversion_mapping
    except ImportError:  # before version 5
        return False
    config: Any = model.config
    return bool(get_checkpoint_conversion_mapping(config.model_type))
