"""What the libraries' files have in common: JSON, tensors, and folders written whole or not."""

from __future__ import annotations

import json
import pickle
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bench.sae.families import make_family
from bench.sae.families.base import Family
from bench.sae.families.batchtopk import BatchTopK
from bench.sae.model import SAE
from bench.sae.transform import Transform
from zoo import files
from zoo.errors import BadWeights, OutputError
from zoo.files import check_regular

# A configuration larger than this is none.
_LARGEST_JSON = 1 << 20

# Families without a k ignore it.
NO_K = 1


def read_settings(path: Path) -> dict[str, Any]:
    """A JSON object in a file. Raises `BadWeights`."""
    try:
        data = files.read_json(path, _LARGEST_JSON)
    except (OSError, ValueError) as error:
        raise BadWeights(f"{path}: cannot be read ({_line(error)})") from None
    if not isinstance(data, dict):
        raise BadWeights(f"{path}: not a JSON object")
    return data


def peek_json(path: Path) -> dict[str, Any]:
    """The same, empty where there is none: for finding out whose format it is."""
    try:
        return read_settings(path)
    except BadWeights:
        return {}


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file by name, of any shapes. Raises `BadWeights`."""
    try:
        check_regular(path)
        return load_file(path)
    # Of types that torch does not have, torch complains in many ways.
    except (OSError, SafetensorError, RuntimeError, LookupError, ValueError) as error:
        raise BadWeights(f"{path}: cannot be read ({_line(error)})") from None


def read_torch(path: Path, handle: IO[bytes] | None = None) -> dict[str, Tensor]:
    """A state dict that `torch.save` wrote, read without running code. Raises `BadWeights`."""
    try:
        check_regular(path)
        found = torch.load(handle or path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, ValueError, RuntimeError, LookupError) as error:
        raise BadWeights(f"{path}: cannot be read ({_line(error)})") from None
    except (AttributeError, TypeError, RecursionError, MemoryError) as error:  # of odd pickles
        raise BadWeights(f"{path}: cannot be read ({_line(error)})") from None
    except (pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise BadWeights(f"{path}: cannot be read as weights ({_line(error)})") from None
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
        raise BadWeights(f"{path}: not a state dict of tensors")
    return found


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def take(tensors: Mapping[str, Tensor], where: Path, **shapes: tuple[int | None, ...]) -> None:
    """Checks that tensors have their shapes, None for any size, and are finite floats.

    Keys are names in which `__` stands for a dot. Raises `BadWeights`.
    """
    for key, shape in shapes.items():
        name = key.replace("__", ".")
        if name not in tensors:
            raise BadWeights(f"{where}: {name} is missing")
        tensor = tensors[name]
        if tensor.is_nested:
            raise BadWeights(f"{where}: {name} is a nested tensor")
        fits = len(tensor.shape) == len(shape) and all(
            size is None or size == found for size, found in zip(shape, tensor.shape, strict=True)
        )
        if not fits:
            wanted = [size or "any" for size in shape]
            raise BadWeights(f"{where}: {name} is {list(tensor.shape)}, not {wanted}")
        if tensor.is_meta or tensor.layout != torch.strided:
            raise BadWeights(f"{where}: {name} holds no dense numbers")
        if not tensor.is_floating_point():
            raise BadWeights(f"{where}: {name} is of dtype {tensor.dtype}, not floating point")
        if not bool(tensor.isfinite().all()):
            raise BadWeights(f"{where}: {name} has values that are not finite")


def make_sae(
    W_enc: Tensor,
    b_enc: Tensor,
    W_dec: Tensor,
    b: Tensor,
    family: Family,
    *,
    k: int = NO_K,
    family_tensors: Mapping[str, Tensor] | None = None,
    transform: Transform | None = None,
    where: Path,
) -> SAE:
    """An SAE of W_enc [n, d], b_enc [n], W_dec [n, d], b [d] on raw activations, float32.

    Raises `BadWeights` where k is none of its dictionary.
    """
    n, width = W_enc.shape
    if not 1 <= k < n:
        raise BadWeights(f"{where}: k = {k} is not between 1 and n = {n}")
    extra = {name: tensor.float() for name, tensor in (family_tensors or {}).items()}
    return SAE(
        W_enc.float().contiguous(),
        b_enc.float(),
        W_dec.float().contiguous(),
        b.float(),
        k=k,
        transform=(transform or Transform.identity(width)).to(torch.float32, "cpu"),
        family=family,
        family_tensors=extra,
    )


def thresholded(threshold: Tensor, k: int = NO_K) -> tuple[Family, dict[str, Tensor], int]:
    """The family of codes above a threshold, its tensors, and k.

    A scalar is BatchTopK's. A threshold of each feature [n] is JumpReLU's. One that is nowhere
    positive lets every positive pre-activation through: plain ReLU (libraries write -1 where
    none was trained).
    """
    if not bool((threshold > 0).any()):
        return make_family("relu"), {}, NO_K
    if threshold.ndim == 0:
        return make_family("batchtopk"), {"threshold": threshold}, k
    return make_family("jumprelu"), {"log_threshold": threshold.float().clamp(min=0).log()}, NO_K


def thresholds_of(sae: SAE) -> Tensor:
    """The threshold of each feature, float32 [n], in a family that has one."""
    if isinstance(sae.family, BatchTopK):
        return sae.family_tensors["threshold"].expand(sae.n).clone()
    return sae.family_tensors["log_threshold"].exp()


def write_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Has `fill` write files into a folder that appears whole, or not at all.

    Raises:
        OutputError: something stands there already, or it cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder} exists already", "Give a folder that does not.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
            written = Path(scratch) / folder.name
            written.mkdir()
            fill(written)
            if folder.is_dir():
                folder.rmdir()
            shutil.move(written, folder)
    except (OSError, SafetensorError) as error:
        raise OutputError(
            f"cannot write {folder} ({error})", "Give a folder that can be written to."
        ) from None


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """JSON with a line break at its end."""
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
