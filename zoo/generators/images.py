"""Dead-leaves images: opaque leaves that fall on one another until the ground is covered.

Sources: the model is G. Matheron, "Modele sequentiel de partition aleatoire" (CMM, 1968). With
radii distributed as r^-3 it shows the occlusion, scale invariance and spectrum of natural images:
A. B. Lee, D. Mumford, J. Huang, "Occlusion models for natural images", IJCV 41 (2001). It is a
fair substitute for photographs in training vision models: M. Baradad, J. Wulff, T. Wang,
P. Isola, A. Torralba, "Learning to see by looking at noise", NeurIPS 2021. Colours vary along the
axes and in the order found by D. Ruderman, T. Cronin, C.-C. Chiao, "Statistics of cone responses
to natural images", JOSA A 15 (1998): most in luminance, then yellow-blue, least in red-green.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zoo.generators.seeds import draw_generator, world_generator

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VERSION = 1

_KIND = "dead_leaves"
_COLOURS = 32
_COLOURS_PER_SCENE = 5
_TEXTURES = 16
_TILE = 128
# Leaves drawn per point of the plane: a point is left to the ground with probability exp(-4).
_LAYERS = 4.0


@dataclass(frozen=True)
class _World:
    palette: NDArray[np.float64]  # (colours, 3), RGB in 0..1
    textures: NDArray[np.float64]  # (textures, tile, tile), zero mean, unit variance, periodic


@dataclass(frozen=True)
class _Leaves:
    """Bottom to top; all arrays have one entry per leaf, lengths in pixels."""

    radius: NDArray[np.float64]
    centre: NDArray[np.float64]  # (leaves, 2), y and x
    angle: NDArray[np.float64]
    aspect: NDArray[np.float64]  # long axis / short axis
    is_box: NDArray[np.bool_]


def dead_leaves(size: int, count: int, seed: int, *, world: int = 0) -> Iterator[NDArray[np.uint8]]:
    """Yield `count` images of shape (size, size, 3), uint8 RGB.

    Leaves are ellipses and boxes with radii between size / 14 and size / 2.5, density r^-3. Each
    image takes a few colours of the world's palette; each leaf a colour, a texture and a shading
    of its own; a plane of light lies over the whole.
    """
    if size < 8:
        raise ValueError(f"size must be at least 8 pixels, not {size}")
    rng = draw_generator(_KIND, world, seed)
    scene = _world(world)
    for _ in range(count):
        leaves = _fall(rng, size)
        yield _paint(rng, _topmost(leaves, size), leaves, scene)


@functools.cache
def _world(world: int) -> _World:
    import numpy as np

    rng = world_generator(_KIND, world)
    opponent = rng.normal(size=(_COLOURS, 3)) * (0.20, 0.09, 0.05)
    to_rgb = np.array([[1, 1, 1], [0.7, 0.7, -1.4], [1.2, -1.2, 0]])
    palette = np.clip(0.45 + opponent @ to_rgb, 0.03, 0.97)

    fy, fx = np.fft.fftfreq(_TILE)[:, None], np.fft.fftfreq(_TILE)[None, :]
    frequency = np.hypot(fy, fx)
    frequency[0, 0] = np.inf
    textures = []
    for index in range(_TEXTURES):
        noise = np.fft.fft2(rng.normal(size=(_TILE, _TILE)))
        if index % 2:  # stripes: noise in a narrow band about one wave vector
            angle, wave = rng.uniform(0, np.pi), 1 / rng.uniform(4, 14)
            along = fx * np.cos(angle) + fy * np.sin(angle)
            across = fy * np.cos(angle) - fx * np.sin(angle)
            envelope = np.exp(-((abs(along) - wave) ** 2 + across**2) / (2 * (wave / 5) ** 2))
        else:  # clouds: a power law
            envelope = frequency ** -rng.uniform(0.8, 2.0)
        envelope[0, 0] = 0.0
        tile = np.fft.ifft2(noise * envelope).real
        textures.append(tile / tile.std())
    return _World(palette, np.stack(textures))


def _fall(rng: np.random.Generator, size: int) -> _Leaves:
    """Draw the leaves that touch the image, by the inverse of the radii's distribution."""
    import numpy as np

    smallest, largest = size / 14, size / 2.5
    side = size + 2 * largest
    shrink = 1 - (smallest / largest) ** 2
    mean_square = smallest**2 * 2 * np.log(largest / smallest) / shrink
    fallen = int(_LAYERS * side**2 / (np.pi * mean_square))

    radius = smallest / np.sqrt(1 - rng.random(fallen) * shrink)
    centre = rng.random((fallen, 2)) * side - largest
    touches = np.all((centre > -radius[:, None]) & (centre < size + radius[:, None]), axis=1)
    radius, centre = radius[touches], centre[touches]
    number = len(radius)
    return _Leaves(
        radius,
        centre,
        rng.random(number) * np.pi,
        1 + rng.random(number),
        rng.random(number) < 0.35,
    )


def _topmost(leaves: _Leaves, size: int) -> NDArray[np.intp]:
    """The index of the leaf seen at each pixel, (size, size); -1 is the ground."""
    import numpy as np

    seen = np.full((size, size), -1, dtype=np.intp)
    low = np.maximum(np.floor(leaves.centre - leaves.radius[:, None]), 0).astype(int)
    high = np.ceil(leaves.centre + leaves.radius[:, None]).astype(int) + 1
    # What a pixel's place along a leaf's axes is made of, for whole rows and columns: a leaf is
    # small, and calls are what takes time.
    grid = np.arange(size, dtype=np.float64)
    dy, dx = grid - leaves.centre[:, :1], grid - leaves.centre[:, 1:]
    cosine, sine = np.cos(leaves.angle)[:, None], np.sin(leaves.angle)[:, None]
    # The box whose corners lie on the circle, for aspect 1.
    reach = np.where(leaves.is_box, leaves.radius * 0.7071, leaves.radius * leaves.radius)
    shapes = zip(
        low.tolist(), high.tolist(), cosine * dx, sine * dy, cosine * dy, sine * dx,
        leaves.aspect.tolist(), leaves.is_box.tolist(), reach.tolist(), strict=True,
    )  # fmt: skip
    for index, ((y0, x0), (y1, x1), cos_x, sin_y, cos_y, sin_x, aspect, is_box, limit) in enumerate(
        shapes
    ):
        along = cos_x[x0:x1] + sin_y[y0:y1, None]
        across = cos_y[y0:y1, None] - sin_x[x0:x1]
        across *= aspect
        if is_box:
            distance = np.maximum(np.abs(along, out=along), np.abs(across, out=across), out=along)
        else:
            along *= along
            across *= across
            distance = np.add(along, across, out=along)
        np.copyto(seen[y0:y1, x0:x1], index, where=distance < limit)
    return seen


def _paint(
    rng: np.random.Generator, seen: NDArray[np.intp], leaves: _Leaves, world: _World
) -> NDArray[np.uint8]:
    """Colour, texture, shade and light the leaves; the last entry of each array is the ground."""
    import numpy as np

    size, number = len(seen), len(leaves.radius) + 1
    scene = world.palette[rng.permutation(_COLOURS)[:_COLOURS_PER_SCENE]]
    colour = scene[rng.integers(_COLOURS_PER_SCENE, size=number)]
    colour = colour + rng.normal(0, 0.03, (number, 3))
    texture = rng.integers(_TEXTURES, size=number)
    contrast = rng.random(number) * 0.12
    offset = rng.integers(_TILE, size=(number, 2))
    slope = rng.normal(0, 0.12, (number, 2))
    light = rng.normal(0, 0.15, 2)

    y, x = np.mgrid[:size, :size]
    oy, ox = offset[seen, 0], offset[seen, 1]
    grain = world.textures[texture[seen], (y + oy) % _TILE, (x + ox) % _TILE] * contrast[seen]
    centre = np.vstack([leaves.centre, [[size / 2, size / 2]]])
    radius = np.append(leaves.radius, float(size))
    dy, dx = (y - centre[seen, 0]) / radius[seen], (x - centre[seen, 1]) / radius[seen]
    shade = slope[seen, 0] * dy + slope[seen, 1] * dx
    plane = light[0] * (2 * y / size - 1) + light[1] * (2 * x / size - 1)
    brightness = (1 + plane) * (1 + shade + grain)
    pixels = np.rint(colour[seen] * brightness[..., None] * 255)
    return np.asarray(np.clip(pixels, 0, 255).astype(np.uint8))
