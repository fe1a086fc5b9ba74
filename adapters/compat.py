"""What differs between installations: torchvision beside a CPU torch, transformers 4 and 5.

Importing this module imports neither torch nor transformers.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

from zoo.errors import BadCard

if TYPE_CHECKING:
    from zoo.cards import Card


@functools.cache
def prepare() -> None:
    """Makes the model libraries importable and quiet. Called before any of them is imported."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    declare_torchvision_operators()


def declare_torchvision_operators() -> bool:
    """Lets a torchvision built for CUDA be imported beside a CPU build of torch.

    Its compiled half then cannot be loaded, and its Python half fails on import because it
    registers shapes for two operators of the compiled half (pytorch/vision issue 8985). Declaring
    the two is enough for everything in pure Python; calling one still fails, as it should.
    transformers and timm import torchvision wherever it is installed, so without this none of
    their models can be imported. Does nothing on a CUDA build, without torchvision, or where the
    operators exist. Returns whether anything was declared.
    """
    import torch

    if torch.version.cuda is not None or importlib.util.find_spec("torchvision") is None:
        return False
    declared = False
    for name, schema in _OPERATORS.items():
        if hasattr(torch.ops.torchvision, name):
            continue
        library = torch.library.Library("torchvision", "FRAGMENT")
        library.define(schema)
        _LIBRARIES.append(library)
        declared = True
    return declared


_OPERATORS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
# A definition lives as long as its library object.
_LIBRARIES: list[Any] = []


@functools.cache
def transformers() -> ModuleType:
    """The transformers library, with its warnings and progress bars off.

    What it would warn about (weights that are missing or left over) is checked, and is an error.
    """
    prepare()
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def model_class(card: Card) -> Any:
    """The class that loads the card's model: AutoModel, or what `options.class` names.

    Raises:
        BadCard: the installed library has no such class.
    """
    name = str(card.options.get("class", "AutoModel"))
    found = getattr(transformers(), name, None)
    if found is None:
        raise BadCard(
            f"card {card.id!r}: transformers {transformers().__version__} has no class {name!r}",
            "Correct options.class, or install a version that has it.",
        )
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Ignores Python warnings while a library imports and builds a model.

    They are about the library's own code (deprecated calls into torch), on which a user has no
    hold. What is wrong with a checkpoint is not told by these.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def major(module: ModuleType) -> int:
    """The major version of a library."""
    return int(module.__version__.split(".")[0])


def dtype_argument(dtype: Any) -> dict[str, Any]:
    """The argument of `from_pretrained` that sets the dtype, which was renamed in version 5."""
    return {"dtype" if major(transformers()) >= 5 else "torch_dtype": dtype}
