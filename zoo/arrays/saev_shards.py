"""`acts000000.bin`: the shards that saev writes, float32 [images, layers, patches, width].

`metadata.json` beside them says the sizes. A shard is as large as all others, and the last one is
filled as far as there are images. Tokens are the patches; the class token before them is left out,
as saev leaves it out of training.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydantic

from zoo.arrays.header import Header, broken
from zoo.errors import BadActivations
from zoo.files import read_json

METADATA = "metadata.json"
NAMES = "acts*.bin"


class _Metadata(pydantic.BaseModel):
    """What is read of the metadata; there is more in it."""

    layers: tuple[int, ...]
    n_patches_per_img: pydantic.PositiveInt
    cls_token: bool
    d_vit: pydantic.PositiveInt
    n_imgs: pydantic.PositiveInt
    n_patches_per_shard: pydantic.PositiveInt


class SaevShard:
    """See `zoo.arrays.header.ArrayFile`. Keys are `layer3`, of the layers that were recorded."""

    def __init__(self, path: Path) -> None:
        said = _metadata(path)
        self._path = path
        self._skipped = int(said.cls_token)
        patches = said.n_patches_per_img + self._skipped
        capacity = said.n_patches_per_shard // len(said.layers) // patches
        self._shape = (capacity, len(said.layers), patches, said.d_vit)
        expected = 4 * int(np.prod(self._shape))
        if not expected or path.stat().st_size != expected:
            raise broken(path, f"{path.stat().st_size} bytes where {METADATA} says {expected}")
        number = int(re.findall(r"\d+", path.stem)[-1])
        images = max(0, min(capacity, said.n_imgs - number * capacity))
        shape = (images, said.n_patches_per_img, said.d_vit)
        self._layers = {f"layer{layer}": i for i, layer in enumerate(said.layers)}
        self.headers = [Header(key, shape, "float32") for key in self._layers]

    def array(self, key: str | None) -> _LayerOfShard:
        """Mapped: only the images that are used are read."""
        mapped = np.memmap(self._path, np.float32, mode="r", shape=self._shape)
        return _LayerOfShard(mapped[:, self._layers[str(key)], self._skipped :])


@dataclass(frozen=True)
class _LayerOfShard:
    images: np.ndarray  # [images, patches, width]

    def rows(self, start: int, stop: int) -> np.ndarray:
        """See `zoo.arrays.header.RowReader`."""
        _, patches, width = self.images.shape
        first, last = start // patches, -(-stop // patches)
        found = self.images[first:last].reshape(-1, width)
        return found[start - first * patches : stop - first * patches]


def _metadata(path: Path) -> _Metadata:
    place = path.parent / METADATA
    try:
        said = _Metadata.model_validate(read_json(place))
        if not said.layers:
            raise ValueError("it names no layers")
    except (OSError, ValueError):
        raise BadActivations(
            f"{path} is read with saev's {METADATA} beside it, and there is none that is sound",
            "Keep the folder as saev wrote it.",
        ) from None
    return said
