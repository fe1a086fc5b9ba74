"""What a picture means is read by stated rules, each compared with numpy on drawn pictures."""

from __future__ import annotations

import io
import tempfile
import threading
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from zoo import pictures
from zoo.corpora import file_corpus
from zoo.errors import BadCorpus
from zoo.pictures import look, read_image

# What each orientation tag means (EXIF 2.32, 4.6.4), on [height, width, ...].
TURNED: dict[int, Any] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: a.swapaxes(0, 1)[::-1],
}
LOSSLESS = st.sampled_from([("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})])


@st.composite
def arrays(draw: Any, channels: int, dtype: type = np.uint8) -> np.ndarray:
    """A picture of random values, with the least and the largest among them."""
    shape = (draw(st.integers(1, 7)), draw(st.integers(2, 7)), channels)
    most = np.iinfo(dtype).max
    values = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).integers(
        0, most, shape, dtype, endpoint=True
    )
    values[0, 0], values[0, -1] = 0, most
    return values[:, :, 0] if channels == 1 else values


def _read(image: Image.Image, form: str = "PNG", **options: Any) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{form.lower()}"
        image.save(path, form, **options)
        return read_image(path)


def _grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[:, :, None], 3, axis=2)


@given(values=arrays(3), orientation=st.integers(1, 8), how=LOSSLESS)
def test_a_picture_is_turned_as_its_tag_says(
    values: np.ndarray, orientation: int, how: tuple[str, dict[str, Any]]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    form, options = how
    found = _read(Image.fromarray(values), form, exif=exif, **options)
    np.testing.assert_array_equal(found, TURNED[orientation](values))


@given(values=arrays(3), orientation=st.integers(1, 8))
def test_a_compressed_tiff_is_turned_once(values: np.ndarray, orientation: int) -> None:
    options = {"tiffinfo": {0x0112: orientation}, "compression": "tiff_lzw"}
    found = _read(Image.fromarray(values), "TIFF", **options)
    np.testing.assert_array_equal(found, TURNED[orientation](values))


@given(values=arrays(1, np.uint16), form=st.sampled_from(["PNG", "TIFF"]), turned=st.booleans())
def test_of_sixteen_bits_the_upper_eight_are_taken(
    values: np.ndarray, form: str, turned: bool
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6 if turned else 1
    found = _read(Image.fromarray(values), form, exif=exif)
    np.testing.assert_array_equal(found, _grey(TURNED[6 if turned else 1](values >> 8)))


@given(values=arrays(1, np.uint16))
def test_a_tiff_whose_zero_is_white_is_inverted(values: np.ndarray) -> None:
    found = _read(Image.fromarray(values), "TIFF", tiffinfo={262: 0})
    np.testing.assert_array_equal(found, _grey(255 - (values >> 8)))


def test_of_twelve_bits_the_upper_eight_of_the_twelve_are_taken(tmp_path: Path) -> None:
    row = [0x000, 0xFFF, 0x800, 0x010]
    packed = bytes([0x00, 0x0F, 0xFF, 0x80, 0x00, 0x10])  # two numbers in three bytes
    path = tmp_path / "a.tif"
    path.write_bytes(_tiff(4, 1, 12, packed))
    with Image.open(path) as image:
        assert np.asarray(image)[0].tolist() == row
    assert read_image(path)[0, :, 0].tolist() == [0, 255, 128, 1]


def _tiff(width: int, height: int, bits: int, data: bytes, sample: int = 1) -> bytes:
    """A TIFF of one grey strip, little-endian."""
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, 1), (273, 0), (277, 1)]
    tags += [(278, height), (279, len(data)), (339, sample)]
    offset = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(
        tag.to_bytes(2, "little")
        + (4).to_bytes(2, "little")
        + (1).to_bytes(4, "little")
        + (offset if tag == 273 else value).to_bytes(4, "little")
        for tag, value in tags
    )
    head = b"II*\0" + (8).to_bytes(4, "little") + len(tags).to_bytes(2, "little")
    return head + entries + b"\0\0\0\0" + data


@given(values=arrays(4), how=LOSSLESS)
def test_transparency_is_shown_on_white(
    values: np.ndarray, how: tuple[str, dict[str, Any]]
) -> None:
    form, options = how
    options = {**options, "exact": True} if form == "WEBP" else options
    alpha = values[..., 3:] / 255
    expected = values[..., :3] * alpha + 255 * (1 - alpha)
    found = _read(Image.fromarray(values), form, **options)
    assert np.abs(found - expected).max() <= 1


@given(values=arrays(2))
def test_grey_with_transparency_is_shown_on_white(values: np.ndarray) -> None:
    alpha = values[..., 1] / 255
    found = _read(Image.fromarray(values, "LA"))
    assert np.abs(found - _grey(values[..., 0] * alpha + 255 * (1 - alpha))).max() <= 1


@given(values=arrays(1), clear=st.integers(0, 255), form=st.sampled_from(["PNG", "GIF"]))
def test_a_palette_gives_its_colours_and_white_where_it_is_clear(
    values: np.ndarray, clear: int, form: str
) -> None:
    colours = np.random.default_rng(clear).integers(0, 255, (256, 3), np.uint8)
    image = Image.fromarray(values, "P")
    image.putpalette(colours.tobytes())
    expected = colours[values]
    np.testing.assert_array_equal(_read(image, form, optimize=False), expected)
    expected[values == clear] = 255
    found = _read(image, form, transparency=clear, optimize=False)
    np.testing.assert_array_equal(found, expected)


@given(values=arrays(1), clear=st.integers(0, 255))
def test_a_clear_colour_is_white(values: np.ndarray, clear: int) -> None:
    expected = _grey(np.where(values == clear, 255, values).astype(np.uint8))
    found = _read(Image.fromarray(values), transparency=clear)
    np.testing.assert_array_equal(found, expected)
    colours = _grey(values)
    found = _read(Image.fromarray(colours), transparency=(clear,) * 3)
    np.testing.assert_array_equal(found, expected)
    wide = values.astype(np.uint16) * 257
    found = _read(Image.fromarray(wide), transparency=clear * 257)
    np.testing.assert_array_equal(found, expected)


@given(values=arrays(1))
def test_few_bits_go_from_black_to_white(values: np.ndarray) -> None:
    black_or_white = Image.fromarray(values > 127)
    assert black_or_white.mode == "1"
    expected = _grey(np.where(values > 127, 255, 0).astype(np.uint8))
    for form in ("PNG", "TIFF", "BMP"):
        np.testing.assert_array_equal(_read(black_or_white, form), expected)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "RGBX", "L", "P", "1", "RGB"])
def test_other_modes_are_as_pillow_turns_them_into_rgb(mode: str) -> None:
    values = np.random.default_rng(0).integers(0, 255, (9, 8, 3), np.uint8)
    image = Image.fromarray(values).convert(mode)
    np.testing.assert_array_equal(_read(image, "TIFF"), np.asarray(image.convert("RGB")))


def test_of_several_frames_the_first_is_read_and_the_others_are_counted(tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (4, 3), colour) for colour in ("red", "blue"))
    for name in ("a.gif", "a.tif", "a.webp", "a.png"):
        options = {"lossless": True} if name == "a.webp" else {}
        first.save(tmp_path / name, save_all=True, append_images=[second], **options)
        assert (read_image(tmp_path / name) == [255, 0, 0]).all()
    first.save(tmp_path / "b.png")
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "c.png")
    corpus = file_corpus(tmp_path, "image")
    corpus.fingerprint()
    assert corpus.notes == [
        "4 pictures of several frames, of which the first is read",
        "1 pictures of 16 bits, of which the upper 8 are read",
    ]


def test_a_profile_is_not_applied_and_counted(tmp_path: Path) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    values = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    Image.fromarray(values).save(tmp_path / "a.png", icc_profile=profile)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), values)
    did: Counter[str] = Counter()
    look(tmp_path / "a.png", did)
    assert +did == {"pictures with an ICC profile, which is not applied": 1}


def _saved(path: Path, image: Image.Image, **options: Any) -> None:
    image.save(path, **options)


REFUSED = {
    "float.tif": (
        lambda p: _saved(p, Image.fromarray(np.ones((2, 2), np.float32))),
        "holds floating point numbers, of which it is not said what is white",
    ),
    "wide.tif": (
        lambda p: _saved(p, Image.fromarray(np.ones((2, 2), np.int32))),
        "holds 32-bit or signed numbers",
    ),
    "signed.tif": (
        lambda p: p.write_bytes(_tiff(2, 1, 16, b"\1\0\2\0", sample=2)),
        "holds 32-bit or signed numbers",
    ),
    "lab.tif": (lambda p: _saved(p, Image.new("LAB", (2, 2))), "holds LAB colours"),
    "text.png": (lambda p: p.write_text("no picture"), "is not an image (PNG, JPEG, BMP"),
    "pnm.png": (lambda p: p.write_bytes(b"P5 1 1 255 a"), "is not an image"),
    "cut.png": (
        lambda p: p.write_bytes(_png(np.arange(65536, dtype=np.uint8).reshape(256, 256))[:400]),
        "cannot be decoded",
    ),
    "slide.png": (lambda p: _saved(p, Image.new("1", (14000, 13500))), "more than 178,956,970"),
    "bomb.png": (
        lambda p: p.write_bytes(_png(np.zeros((1, 1), np.uint8), width=10**6, height=10**6)),
        "more than 178,956,970",
    ),
    "clear.png": (lambda p: p.write_bytes(_colours_of_16_bits_one_clear()), "one of them transp"),
}


def _png(values: np.ndarray, width: int = 0, height: int = 0) -> bytes:
    """A PNG; `width` and `height` are what its header says, where not the truth."""
    from zlib import crc32

    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG", compress_level=0)
    data = bytearray(file.getvalue())
    if width:
        data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
        data[29:33] = crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def _colours_of_16_bits_one_clear() -> bytes:
    from zlib import compress, crc32

    def chunk(kind: bytes, body: bytes) -> bytes:
        crc = crc32(kind + body).to_bytes(4, "big")
        return len(body).to_bytes(4, "big") + kind + body + crc

    header = (1).to_bytes(4, "big") * 2 + bytes([16, 2, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"tRNS", bytes([1, 2] * 3))
        + chunk(b"IDAT", compress(bytes([0] + [1, 2] * 3)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_understood_is_refused_by_name(name: str, tmp_path: Path) -> None:
    make, says = REFUSED[name]
    make(tmp_path / name)
    with pytest.raises(BadCorpus) as caught:
        read_image(tmp_path / name)
    assert name in caught.value.message
    assert says in caught.value.message
    assert caught.value.remedy


@given(data=st.data())
def test_a_broken_picture_is_read_or_refused_by_name(data: st.DataObject) -> None:
    """Bytes of pictures are changed and cut off; nothing but `BadCorpus` comes out."""
    forms = [("PNG", "L"), ("JPEG", "RGB"), ("TIFF", "L"), ("GIF", "P"), ("WEBP", "RGB")]
    form, mode = data.draw(st.sampled_from([*forms, ("BMP", "L"), ("PNG", "LA")]))
    file = io.BytesIO()
    Image.new(mode, (9, 7)).save(file, form)
    content = bytearray(file.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "broken.png"
        path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
        try:
            found: Any = read_image(path)
        except BadCorpus as error:
            found = error
    if isinstance(found, BadCorpus):
        assert "broken.png" in found.message
    else:
        assert found.dtype == np.uint8
        assert found.shape[2:] == (3,)


def test_the_rules_are_those_of_the_docstring() -> None:
    assert pictures.__doc__ is not None
    for word in ("orientation", "depth", "palette", "transparency", "CMYK", "profiles", "frames"):
        assert f"\n{word}" in pictures.__doc__


def test_threads_that_open_pictures_leave_the_filters_of_warnings_as_they_were(
    tmp_path: Path,
) -> None:
    names = [tmp_path / f"{number}.png" for number in range(8)]
    for name in names:
        Image.new("RGB", (64, 64)).save(name)
    before, first = list(warnings.filters), threading.Event()

    def opened(number: int) -> None:
        # The first to open is the last to close.
        with pictures._opened(names[number]):
            if number == 0:
                assert first.wait(10)
        if number == 7:
            first.set()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(opened, range(8)))
    assert list(warnings.filters) == before
    with pytest.warns(UserWarning, match="of another module"), pictures._opened(names[0]):
        warnings.warn("of another module", stacklevel=1)
