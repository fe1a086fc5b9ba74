"""Vision transformers of the transformers and timm libraries."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from adapters import checkpoints, compat
from adapters.base import Adapter
from adapters.passes import Inputs
from adapters.taps import first_input
from zoo.cards import Card
from zoo.errors import BadCard, BadCorpus, BadWeights
from zoo.files import read_json


class VisionTransformer(Adapter):
    """A vision transformer: a token per patch, and others (CLS, registers) that are special.

    An example is a uint8 image [height, width, 3], resized and normalised as the checkpoint says.
    Which tokens stand for patches the model is asked: those whose input to the first block depends
    on the image. The card says how many others it knows of: CLS, unless `options: {cls: false}`
    (SigLIP, I-JEPA), and `tokens.registers` more.
    """

    # The name of the image among the model's keyword arguments.
    argument: str
    takes_registers = True
    known_options: ClassVar[tuple[str, ...]] = ("cls",)

    @abstractmethod
    def pixels(self, image: np.ndarray) -> Tensor:
        """The image as the model takes it, float32 [3, height, width]."""

    @property
    def equal_lengths(self) -> bool:
        return True

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
        special = self._special(tuple(images.shape[1:])).expand(len(images), -1)
        return Inputs(self.arguments(images), torch.ones_like(special), special.clone())

    def arguments(self, images: Tensor) -> dict[str, Any]:
        """What the model's forward pass takes for images, float32 [batch, 3, height, width]."""
        return {self.argument: images}

    def _special(self, shape: tuple[int, ...]) -> Tensor:
        """Which tokens of an image of that shape stand for no patch, BoolTensor [tokens].

        Raises:
            BadWeights: other tokens than the card says, or it cannot be told which they are.
        """
        if shape not in self._asked:
            found = self._independent(shape)
            declared = int(self.card.options.get("cls", True)) + self.card.tokens.registers
            if int(found.sum()) != declared:
                raise _other_tokens(self.card, found, declared)
            self._asked[shape] = found
        return self._asked[shape]

    @functools.cached_property
    def _asked(self) -> dict[tuple[int, ...], Tensor]:
        return {}

    @torch.no_grad()
    def _independent(self, shape: tuple[int, ...]) -> Tensor:
        """The tokens that two images of noise give alike where they go into the first block."""
        noise = torch.randn((2, *shape), generator=torch.Generator().manual_seed(0))
        model, blocks = self.model, self.blocks
        arguments = self.placed(Inputs(self.arguments(noise), noise, noise))
        taken = first_input(model, blocks[0], arguments)
        if taken is None or taken.ndim != 3 or len(taken) != 2:
            raise BadWeights(
                f"model {self.card.id!r}: its first block does not take one row per token",
                "This adapter reads vision transformers whose blocks do.",
            )
        alike = (taken[0] == taken[1]).all(dim=1).cpu()
        if bool(alike.all()):
            raise BadWeights(f"model {self.card.id!r}: no token depends on the image")
        return alike


def _other_tokens(card: Card, found: Tensor, declared: int) -> BadWeights:
    count = int(found.sum())
    remedy = f"Set tokens.registers to {count - 1} in the card" if count else ""
    remedy = remedy or "Set options.cls to false and tokens.registers to 0 in the card"
    if count > 0:
        remedy += f", or to {count} and options.cls to false where none of them is a CLS"
    return BadWeights(
        f"model {card.id!r}: {count} of its {len(found)} tokens stand for no patch (CLS, "
        f"registers), the card says {declared}",
        f"{remedy}.",
    )


class HubVisionTransformer(VisionTransformer):
    """ViT, DINOv2, DINOv3, the vision towers of CLIP and SigLIP, through transformers.

    `options: {class: ...}` names the library's class where it is not AutoModel (a tower).
    """

    argument = "pixel_values"
    known_options: ClassVar[tuple[str, ...]] = ("class", "model_type")

    @property
    def loader(self) -> Any:
        return compat.model_class(self.card)

    def load(self) -> nn.Module:
        return checkpoints.pretrained(
            self.loader,
            self.card,
            self.folder,
            dtype=self.dtype,
            trust_remote_code=self.trust_remote_code,
            depth=self.depth,
            device=self.device,
        )

    def pixels(self, image: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(self._processor(image), np.float32))

    def _processing(self, name: str) -> dict[str, Any]:
        """What a file of the checkpoint says of how images are resized and normalised."""
        path = self.folder / name
        if not path.is_file():
            raise BadWeights(
                f"model {self.card.id!r}: no {name} in {self.folder}",
                "It says how images are resized and normalised.",
            )
        with checkpoints.loading_errors(self.card, self.folder):
            config = read_json(path)
            if not isinstance(config, dict):
                raise ValueError(f"{name} is no table")
        return config

    @functools.cached_property
    def _processor(self) -> Callable[[np.ndarray], np.ndarray]:
        """The checkpoint's own processor, on PIL: what torchvision resizes differs."""
        config = self._processing("preprocessor_config.json")
        transformers = compat.transformers()
        on_pil = {"backend": "pil"} if compat.major(transformers) >= 5 else {"use_fast": False}
        with checkpoints.loading_errors(self.card, self.folder):
            try:
                processor = transformers.AutoImageProcessor.from_pretrained(
                    self.folder, local_files_only=True, **on_pil
                )
            except ImportError:  # there are processors that exist for torchvision alone
                from adapters import images

                return functools.partial(images.preprocess, config=config)
        # Tiny images are ambiguous (3 pixels high, or 3 channels first?), so say which it is.
        return lambda image: processor(
            images=image, input_data_format="channels_last", return_tensors="np"
        )["pixel_values"][0]


class VideoTransformer(HubVisionTransformer):
    """V-JEPA 2 (Assran et al. 2025), through transformers: a picture is a clip that stands still.

    A clip is `options.frames` copies of the picture. A token is a patch of `tubelet_size` frames at
    once, and comes with its neighbours of one time before those of the next. Only the encoder runs.
    """

    argument = "pixel_values_videos"
    model_types = ("vjepa2",)
    known_options = ("frames",)

    @functools.cached_property
    def frames(self) -> int:
        """Copies of a picture.

        Raises:
            BadCard: the card says no number of frames that the model takes.
        """
        config = checkpoints.check_config(self.card, self.folder, self.model_types)
        together, frames = int(config.get("tubelet_size", 2)), self.card.options.get("frames")
        if type(frames) is not int or frames < 1 or frames % together:
            raise BadCard(
                f"card {self.card.id!r}: options.frames is {frames}, which is no multiple of the "
                f"{together} frames of a token"
            )
        return frames

    def arguments(self, images: Tensor) -> dict[str, Any]:
        clips = images[:, None].expand(-1, self.frames, -1, -1, -1)
        return {self.argument: clips, "skip_predictor": True}

    @functools.cached_property
    def _processor(self) -> Callable[[np.ndarray], np.ndarray]:
        """Our own: the library's are for torchvision alone, whose resizing differs from PIL's."""
        from adapters import images

        config = self._processing("video_preprocessor_config.json")
        return functools.partial(images.preprocess, config=config)


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
        checkpoints.check_weight_files(self.card, self.folder)
        with checkpoints.loading_errors(self.card, self.folder):
            model = timm.create_model(f"local-dir:{self.folder}", pretrained=True)
        return model.to(self.dtype)

    def pixels(self, image: np.ndarray) -> Tensor:
        from PIL import Image

        return self._transform(Image.fromarray(image))

    @functools.cached_property
    def _transform(self) -> Callable[[Any], Tensor]:
        from timm.data import create_transform, resolve_model_data_config

        return create_transform(**resolve_model_data_config(self.model), is_training=False)
