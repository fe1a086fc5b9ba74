"""Vision transformers of the transformers and timm libraries."""

from __future__ import annotations

import functools
import json
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from adapters import checkpoints, compat
from adapters.base import Adapter, Inputs
from zoo.errors import BadCorpus, BadWeights

# Models whose first token is a patch.
_WITHOUT_CLS = {"siglip_vision_model"}


class VisionTransformer(Adapter):
    """A vision transformer: one token per patch, after CLS and `tokens.registers` registers.

    `options: {cls: false}` says that there is no CLS (SigLIP). An example is a uint8 image
    [height, width, 3], resized and normalised as the checkpoint says. CLS and registers are
    special tokens.
    """

    # The name of the image among the model's keyword arguments.
    argument: str
    known_options: ClassVar[tuple[str, ...]] = ("cls",)

    @abstractmethod
    def pixels(self, image: np.ndarray) -> Tensor:
        """The image as the model takes it, float32 [3, height, width]."""

    @abstractmethod
    def geometry(self) -> tuple[int, tuple[int, int]]:
        """Number of prefix tokens, and (height, width) of a patch in pixels."""

    def windows(self, example: Any) -> list[Tensor]:
        if not isinstance(example, np.ndarray):
            raise BadCorpus(f"an image array is needed, not {type(example).__name__}")
        if example.dtype != np.uint8 or example.ndim != 3 or example.shape[2] != 3:
            raise BadCorpus(
                f"an image is uint8 of shape (height, width, 3), "
                f"not {example.dtype} of shape {example.shape}"
            )
        return [self.pixels(example)]

    def inputs(self, items: list[Tensor]) -> Inputs:
        images = torch.stack(items)
        prefix, (patch_height, patch_width) = self.geometry()
        declared = int(self.card.options.get("cls", True)) + self.card.tokens.registers
        if prefix != declared:
            raise BadWeights(
                f"model {self.card.id!r}: {prefix} tokens (CLS, registers) before the patches, "
                f"the card says {declared}",
                f"Set tokens.registers to {prefix - 1} in the card."
                if prefix
                else "Set options.cls to false and tokens.registers to 0 in the card.",
            )
        height, width = images.shape[-2:]
        patches = (height // patch_height) * (width // patch_width)
        valid = torch.ones((len(images), prefix + patches), dtype=torch.bool)
        special = torch.zeros_like(valid)
        special[:, :prefix] = True
        return Inputs({self.argument: images}, valid, special)


class HubVisionTransformer(VisionTransformer):
    """ViT, DINOv2, DINOv3, the vision towers of CLIP and SigLIP, through transformers.

    `options: {class: ...}` names the library's class where it is not AutoModel (a tower).
    """

    argument = "pixel_values"
    known_options = ("class", "model_type")

    def load(self) -> nn.Module:
        return checkpoints.pretrained(
            compat.model_class(self.card),
            self.card,
            self.folder,
            dtype=self.dtype,
            trust_remote_code=self.trust_remote_code,
            depth=self.depth,
            device=self.device,
        )

    def geometry(self) -> tuple[int, tuple[int, int]]:
        config: Any = self.model.config
        registers = getattr(config, "num_register_tokens", 0)
        cls = config.model_type not in _WITHOUT_CLS
        return cls + registers, _pair(config.patch_size)

    def pixels(self, image: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(self._processor(image), np.float32))

    @functools.cached_property
    def _processor(self) -> Callable[[np.ndarray], np.ndarray]:
        """The checkpoint's own processor, on PIL: what torchvision resizes differs."""
        path = self.folder / "preprocessor_config.json"
        if not path.is_file():
            raise BadWeights(
                f"model {self.card.id!r}: no preprocessor_config.json in {self.folder}",
                "It says how images are resized and normalised.",
            )
        transformers = compat.transformers()
        on_pil = {"backend": "pil"} if compat.major(transformers) >= 5 else {"use_fast": False}
        with checkpoints.loading_errors(self.card, self.folder):
            try:
                processor = transformers.AutoImageProcessor.from_pretrained(
                    self.folder, local_files_only=True, **on_pil
                )
            except ImportError:  # there are processors that exist for torchvision alone
                from adapters import images

                config = json.loads(path.read_text(encoding="utf-8"))
                return functools.partial(images.preprocess, config=config)
        # Tiny images are ambiguous (3 pixels high, or 3 channels first?), so say which it is.
        return lambda image: processor(
            images=image, input_data_format="channels_last", return_tensors="np"
        )["pixel_values"][0]


class TimmVisionTransformer(VisionTransformer):
    """Vision transformers of timm, from a folder as timm saves it to the hub."""

    argument = "x"
    known_options = ("architecture",)

    def load(self) -> nn.Module:
        import timm

        config = checkpoints.read_config(self.card, self.folder)
        stated = self.card.options.get("architecture")
        found = config.get("architecture")
        if found is None or (stated is not None and stated != found):
            raise BadWeights(
                f"model {self.card.id!r}: wrong architecture: {self.folder} holds a timm model of "
                f"architecture {found!r}, the card expects {stated or 'one'!r}"
            )
        checkpoints.check_files(self.card, self.folder)
        with checkpoints.loading_errors(self.card, self.folder):
            model = timm.create_model(f"local-dir:{self.folder}", pretrained=True)
        return model.to(self.dtype)

    def geometry(self) -> tuple[int, tuple[int, int]]:
        model: Any = self.model
        return model.num_prefix_tokens, _pair(model.patch_embed.patch_size)

    def pixels(self, image: np.ndarray) -> Tensor:
        from PIL import Image

        return self._transform(Image.fromarray(image))

    @functools.cached_property
    def _transform(self) -> Callable[[Any], Tensor]:
        from timm.data import create_transform, resolve_model_data_config

        return create_transform(**resolve_model_data_config(self.model), is_training=False)


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
