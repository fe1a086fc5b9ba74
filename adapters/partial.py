"""Loading only the blocks that are read: those after the deepest layer asked for stay empty.

The model is first built without weights, to learn which modules lie after. The library is then
told (accelerate's device map) to leave those where they are, in the safetensors files: their
tensors are never read, and the blocks never run, because the forward pass stops before them.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adapters import compat
from adapters.taps import find_blocks
from zoo.cards import Card


def placement(
    loader: Any,
    card: Card,
    folder: Path,
    depth: int | None,
    device: torch.device,
) -> dict[str, Any]:
    """Arguments of `from_pretrained` that load the first `depth` blocks; none to load all.

    All are loaded where all are asked for, where the weights are not in safetensors files, from
    which alone something can be left out, and where the checkpoint brings its own code: it is not
    known to survive being built without weights.
    """
    whole = depth is None or depth >= card.tap.layers or card.checkpoint.remote_code
    if whole or not any(folder.glob("*.safetensors")) or not hasattr(loader, "from_config"):
        return {}
    with compat.quiet(), torch.device("meta"):
        config = compat.transformers().AutoConfig.from_pretrained(folder, local_files_only=True)
        empty = loader.from_config(config)
    # It warns of what is done on purpose here.
    logging.getLogger("accelerate.big_modeling").setLevel(logging.ERROR)
    after = set(find_blocks(empty, card.tap, card.id)[depth:])
    return {"device_map": _device_map(empty, after, str(device))}


def _device_map(module: nn.Module, after: set[nn.Module], device: str, path: str = "") -> dict:
    """The device of every module and tensor, by path; `disk` for the blocks that lie after."""
    places: dict[str, str] = {}
    own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    places |= {f"{path}{name}": device for name, _ in own}
    for name, child in module.named_children():
        if child in after:
            places[f"{path}{name}"] = "disk"
        elif after.isdisjoint(child.modules()):
            places[f"{path}{name}"] = device
        else:
            places |= _device_map(child, after, device, f"{path}{name}.")
    return places


def settle(model: nn.Module, folder: Path) -> nn.Module:
    """Makes a model that was loaded in part what it would be loaded whole.

    Takes off the hooks that would read the empty blocks from disk whenever they run, and reads
    buffers again: this way of loading rounds them to the weights' dtype on their way into float32.
    """
    from accelerate.hooks import remove_hook_from_submodules
    from safetensors import safe_open

    remove_hook_from_submodules(model)
    persistent = model.state_dict().keys()
    buffers = {
        name: buffer
        for name, buffer in model.named_buffers()
        if name in persistent and buffer.is_floating_point() and not buffer.is_meta
    }
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    for path in sorted(folder.glob("*.safetensors")) if buffers else ():
        with safe_open(path, framework="pt") as file:
            saved = {key.removeprefix(prefix): key for key in file.keys()}  # noqa: SIM118
            for name in buffers.keys() & saved.keys():
                buffers[name].copy_(file.get_tensor(saved[name]))
    return model


def is_partial(model: nn.Module) -> bool:
    """Whether some of the model's blocks are empty. Such a model cannot be moved."""
    return any(parameter.is_meta for parameter in model.parameters())
