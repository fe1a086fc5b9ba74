"""`.pt`, `.pth`: a tensor, or a dict or list of tensors by torch.save. Nothing else is unpickled.

Of dicts and lists within others the keys are joined: what `esm-extract` saves is
`representations.33`, and a list's entries are `0`, `1`, ...
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo.arrays.header import ArrayRows, Header, broken
from zoo.errors import BadActivations


class PtFile:
    """See `zoo.arrays.header.ArrayFile`. The one format whose headers need torch."""

    def __init__(self, path: Path) -> None:
        content = _load(path)
        found: dict[str | None, Any] = {None: content}
        if isinstance(content, dict | list | tuple):
            found = dict(_flat(content))
        dense = {key: value.detach() for key, value in found.items() if _has_rows(value)}
        if not dense and not isinstance(content, dict | list | tuple):
            raise BadActivations(
                f"{path} holds {_described(content)}, not a dense tensor or a dict of tensors",
                "Save the activations as one tensor [tokens, width].",
            )
        self._tensors = dense
        self.headers = [
            Header(
                key,
                tuple(tensor.shape),
                str(tensor.dtype).removeprefix("torch."),
                tensor.numel() * tensor.element_size(),
                tensor.untyped_storage().nbytes(),
            )
            for key, tensor in dense.items()
        ]

    def array(self, key: str | None) -> ArrayRows:
        """Mapped, where the file is of the kind that torch has written since 1.6."""
        return ArrayRows(self._tensors[key])


def _flat(content: dict | list | tuple, depth: int = 3) -> Iterator[tuple[str, Any]]:
    entries = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in entries:
        if isinstance(value, dict | list | tuple) and depth:
            yield from ((f"{key}.{name}", part) for name, part in _flat(value, depth - 1))
        else:
            yield str(key), value


def _load(path: Path) -> Any:
    import torch

    try:
        # Only the zip format can be mapped.
        mapped = zipfile.is_zipfile(path)
        with warnings.catch_warnings():
            # About pickles that torch did not write; what they hold is checked afterwards.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError:
        raise BadActivations(
            f"{path} is a pickle of more than tensors; reading it could run code",
            "Save the tensor alone, torch.save(tensor, path), or use .safetensors.",
        ) from None
    except (RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise broken(path, error) from None


def _has_rows(value: Any) -> bool:
    """Whether a value is a tensor of one block of numbers that are there."""
    from torch import Tensor, strided

    dense = isinstance(value, Tensor) and value.layout == strided
    return dense and not value.is_nested and not value.is_meta and not value.is_quantized


def _described(content: Any) -> str:
    for word in ("nested", "meta", "quantized"):
        if getattr(content, f"is_{word}", False):
            return f"a {word} tensor"
    layout = getattr(content, "layout", None)
    if layout is not None:
        return f"a {str(layout).removeprefix('torch.')} tensor"
    return f"a {type(content).__name__}"
