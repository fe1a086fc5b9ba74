"""What a picture in a file means: one rule for each way in which files say it. Pillow decodes.

shape        uint8 [height, width, 3], red, green and blue.
orientation  A picture is turned and mirrored as its EXIF (or XMP, or TIFF) orientation tag says.
depth        8 bits a channel. Of 16 the upper 8 are taken, of a TIFF's 12 in 16 the upper 8 of the
             12; fewer than 8 are spread from black to white. Numbers whose white is not stated
             (floats, 32 bits, signed ones) are refused.
grey         The same in all three channels. A TIFF whose 0 is white is inverted.
palette      The colours that its numbers stand for.
transparency Shown on white, whether it is an alpha channel, one of the palette, or one colour.
CMYK, YCbCr  Turned into RGB by Pillow's formulas. LAB is refused.
profiles     An embedded ICC profile or gamma is not applied: the numbers are read as sRGB, as the
             preprocessing of models does.
frames       Of an animation, a burst or several pages, the first; the others are counted.
size         At most `MOST_PIXELS`; a larger one is refused before it is decoded.
format       What the file's first bytes say, whatever its name; PNG, JPEG, BMP, TIFF, WEBP or GIF.

Every refusal names the file.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from zoo.errors import BadCorpus
from zoo.files import check_regular

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF")

# Where Pillow itself refuses; as RGB it is half a gigabyte.
MOST_PIXELS = 178_956_970

# TIFF tags: bits of each channel, and the meaning of 0.
_BITS, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0


class PackedPicture(NamedTuple):
    """A picture out of a tar or a table: where it stands, for messages, and a file's bytes."""

    where: str
    data: bytes

    def __str__(self) -> str:
        return self.where


def read_image(path: Path | PackedPicture) -> np.ndarray:
    """The picture as a uint8 array (height, width, 3), by the rules above.

    Raises:
        BadCorpus: the file is not a picture, is cut off, or holds what the rules refuse.
    """
    import numpy as np

    with _decoded(path) as image:
        depth = _depth(image)
        if image.mode in ("F", "I", "LAB") and not depth:
            what = {"F": "floating point numbers", "I": "32-bit or signed numbers"}
            raise BadCorpus(
                f"{path} holds {what.get(image.mode, 'LAB colours')}, of which it is not said "
                "what is white",
                "Convert it to PNG of 8 or 16 bits.",
            )
        if depth:
            return np.repeat(_upper_bits(image, depth)[:, :, None], 3, axis=2)
        if image.has_transparency_data:
            image = _on_white(image)
        return np.asarray(image.convert("RGB"))


def look(path: Path | PackedPicture, did: Counter[str]) -> None:
    """Counts in `did` what the rules will do to a picture, from its header.

    What is wrong with a file is left to `read_image` to say.
    """
    try:
        with _opened(path) as image:
            did["pictures with an ICC profile, which is not applied"] += "icc_profile" in image.info
            did["pictures of several frames, of which the first is read"] += (
                getattr(image, "n_frames", 1) > 1
            )
            did["pictures of 16 bits, of which the upper 8 are read"] += _depth(image) > 8
            did["pictures with transparency, shown on white"] += image.has_transparency_data
    except BadCorpus:
        return


class _Warnings:
    """Pillow's warnings: about broken metadata, and about the size, which is checked here.

    They are held back as long as any thread has a picture open, as filters are the whole process's:
    threads that each set and restored them would leave them as another one had set them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = 0
        self._filters = warnings.catch_warnings()

    @contextmanager
    def held_back(self) -> Iterator[None]:
        with self._lock:
            if self._open == 0:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._open += 1
        try:
            yield
        finally:
            with self._lock:
                self._open -= 1
                if self._open == 0:
                    self._filters.__exit__(None, None, None)


_PILLOWS_WARNINGS = _Warnings()


@contextmanager
def _opened(path: Path | PackedPicture) -> Iterator[Image]:
    """The picture, not yet decoded; whatever goes wrong in the context names the file."""
    from PIL import Image, UnidentifiedImageError

    remedy = "Remove it, convert it to PNG, or leave such out with --skip-bad N."
    with _PILLOWS_WARNINGS.held_back():
        try:
            # Not opened by its name: Pillow would map a TIFF that is turned with its sides swapped.
            with _file(path) as file, Image.open(file, formats=_FORMATS) as image:
                yield image
        except (BadCorpus, MemoryError):
            raise
        except Image.DecompressionBombError:
            raise _too_large(path) from None
        except UnidentifiedImageError:
            raise BadCorpus(f"{path} is not an image ({', '.join(_FORMATS)})", remedy) from None
        except Exception as error:  # decoders raise whatever a broken file makes them stumble over
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise BadCorpus(f"{path} cannot be decoded ({reason})", remedy) from None


def _file(path: Path | PackedPicture) -> IO[bytes]:
    if isinstance(path, PackedPicture):
        return io.BytesIO(path.data)
    check_regular(path)
    return path.open("rb")


@contextmanager
def _decoded(path: Path | PackedPicture) -> Iterator[Image]:
    """The picture, decoded and turned as its orientation tag says."""
    from PIL import ImageOps

    with _opened(path) as image:
        if image.width * image.height > MOST_PIXELS:
            raise _too_large(path)
        _check_transparent_colour(path, image)
        image.load()
        if image.format != "TIFF":  # Pillow turns these itself
            ImageOps.exif_transpose(image, in_place=True)
        yield image


def _too_large(path: Path | PackedPicture) -> BadCorpus:
    return BadCorpus(f"{path} has more than {MOST_PIXELS:,} pixels", "Make it smaller.")


def _check_transparent_colour(path: Path | PackedPicture, image: Image) -> None:
    """Refuses 16-bit colours one of which is transparent: Pillow looks for it in the upper 8."""
    colour = image.info.get("transparency")
    if (
        image.mode == "RGB"
        and isinstance(colour, tuple)
        and "16" in str(getattr(image, "tile", ""))
    ):
        raise BadCorpus(
            f"{path} has 16-bit colours, one of them transparent", "Convert it to PNG of 8 bits."
        )


def _depth(image: Image) -> int:
    """Bits of a grey picture that has more than 8; 0 for others, and where white is not stated."""
    if image.mode == "I" and image.format == "PNG":
        return 16  # what older versions of Pillow make of it
    if not image.mode.startswith("I;16"):
        return 0
    bits = _tiff_tag(image, _BITS)
    return int(bits[0] if isinstance(bits, tuple) else bits or 16)


def _tiff_tag(image: Image, tag: int) -> Any:
    return getattr(image, "tag_v2", {}).get(tag)


def _upper_bits(image: Image, depth: int) -> np.ndarray:
    """The upper 8 of a grey picture's bits, uint8 [height, width]; white where it is clear."""
    import numpy as np

    values = np.asarray(image)
    grey = (values >> (depth - 8)).clip(0, 255).astype(np.uint8)
    if _tiff_tag(image, _PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = 255 - grey
    colour = image.info.get("transparency")
    if isinstance(colour, int):
        grey[values == colour] = 255
    return grey


def _on_white(image: Image) -> Image:
    from PIL import Image as Pillow

    layer = image.convert("RGBA")
    white = Pillow.new("RGBA", layer.size, "white")
    return Pillow.alpha_composite(white, layer)
