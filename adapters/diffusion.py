"""Diffusion transformers of the diffusers library, read at one level of noise."""

from __future__ import annotations

import functools
import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adapters import checkpoints, images
from adapters.base import Adapter
from adapters.passes import Inputs
from zoo.errors import BadCorpus


class StableDiffusion3(Adapter):
    """The image stream of Stable Diffusion 3 and 3.5 (Esser et al. 2024), through diffusers.

    An image is resized and cropped to `options.size` pixels, encoded by the model's own
    autoencoder (the mean of its latent), and mixed with noise as in training: `(1 - s) z + s e`
    at `s = options.sigma`, the noise drawn from the image's own bytes. A token is one patch of the
    latent. The text stream gets zeros, as in training where all text encoders are dropped: no
    prompt, and none of the encoders is loaded. `options.text_tokens` is its length.
    """

    windows_in_threads = False  # an autoencoder makes them
    known_options = ("size", "sigma", "text_tokens")

    def load(self) -> nn.Module:
        from diffusers import SD3Transformer2DModel

        return self._part(SD3Transformer2DModel, self.folder).to(self.dtype)

    @functools.cached_property
    def autoencoder(self) -> Any:
        """The model's autoencoder, float32: its half precision overflows."""
        from diffusers import AutoencoderKL

        folder = checkpoints.part(self.card, self.folder, "vae")
        return self._part(AutoencoderKL, folder).to(self.device).eval().requires_grad_(False)

    def _part(self, kind: Any, folder: Any) -> Any:
        checkpoints.check_weight_files(self.card, folder)
        with checkpoints.loading_errors(self.card, folder):
            model, report = kind.from_pretrained(
                folder, local_files_only=True, output_loading_info=True
            )
        checkpoints.check_report(self.card, folder, model, report)
        return model

    @torch.no_grad()
    def windows(self, example: Any) -> list[Tensor]:
        if not isinstance(example, np.ndarray) or example.dtype != np.uint8 or example.ndim != 3:
            raise BadCorpus("an image array is needed: uint8 of shape (height, width, 3)")
        size = int(self.card.options["size"])
        square = {"size": {"shortest_edge": size}, "do_center_crop": True, "crop_size": size}
        middle = {"image_mean": (0.5,) * 3, "image_std": (0.5,) * 3}
        pixels = torch.from_numpy(images.preprocess(example, {**square, **middle}))
        autoencoder = self.autoencoder
        mean = autoencoder.encode(pixels[None].to(self.device)).latent_dist.mode()[0].cpu()
        config = autoencoder.config
        latent = (mean - (config.shift_factor or 0.0)) * config.scaling_factor
        generator = torch.Generator().manual_seed(zlib.crc32(example.tobytes()))
        noise = torch.randn(latent.shape, generator=generator)
        sigma = float(self.card.options["sigma"])
        return [(1 - sigma) * latent + sigma * noise]

    def inputs(self, items: list[Tensor]) -> Inputs:
        latents = torch.stack(items)
        config: Any = self.model.config
        count, _, height, width = latents.shape
        patches = (height // config.patch_size) * (width // config.patch_size)
        text = (count, int(self.card.options["text_tokens"]), config.joint_attention_dim)
        valid = torch.ones((count, patches), dtype=torch.bool)
        arguments = {
            "hidden_states": latents,
            "encoder_hidden_states": torch.zeros(text),
            "pooled_projections": torch.zeros((count, config.pooled_projection_dim)),
            # diffusers counts time in thousandths of the noise's share.
            "timestep": torch.full((count,), 1000 * float(self.card.options["sigma"])),
        }
        return Inputs(arguments, valid, ~valid)
