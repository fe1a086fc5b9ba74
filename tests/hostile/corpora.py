"""Corpora: files of text, sequences and regions, and folders of pictures."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

Files = Iterator[tuple[str, bytes]]

BASES = "ACGT" * 300
RESIDUES = "ACDEFGHIKLMNPQRSTVWY" * 20
PROSE = "\n\n".join(f"the {i} small words of a passage that says little" for i in range(60))


def bomb(letter: bytes) -> bytes:
    """Gzip of 256 MiB of one letter; some 250 kB."""
    part = zlib.compressobj(9, zlib.DEFLATED, 31)
    data = [part.compress(letter * (1 << 20)) for _ in range(256)]
    return b"".join([*data, part.flush()])


def anything(suffix: str) -> Files:
    """What no file of examples should be, whatever its format."""
    yield f"empty{suffix}", b""
    yield f"white{suffix}", b" \n\t\r\n \n"
    yield f"zeros{suffix}", bytes(4096)
    yield f"mark alone{suffix}", b"\xef\xbb\xbf"
    yield f"utf16 mark alone{suffix}", b"\xff\xfe"
    yield f"utf16 odd{suffix}", b"\xff\xfea\0b"
    yield f"latin1{suffix}", "\xe9t\xe9 ".encode("latin1") * 50
    yield f"surrogates{suffix}", b"\xed\xa0\x80" * 50
    yield f"random{suffix}", np.random.default_rng(1).bytes(4096)
    yield f"html{suffix}", b"<!DOCTYPE html><html><body>404</body></html>"
    yield f"pointer{suffix}", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    yield f"no gzip{suffix}.gz", b"plain text"
    yield f"empty gzip{suffix}.gz", b""
    yield f"gzip cut{suffix}.gz", gzip.compress(os.urandom(4000))[:2000]
    yield f"gzip and more{suffix}.gz", gzip.compress(b"x") + b"more"


def texts() -> Files:
    for suffix in (".txt", ".jsonl", ".parquet"):
        yield from anything(suffix)
    yield from tables("text", PROSE)
    yield "long word.txt", b"x" * 300_000
    yield "long line.txt", b"x " * 300_000
    yield "controls.txt", bytes(range(1, 32)) * 40
    yield "bidi.txt", "\u202e\u2066\u200b abc ".encode() * 60
    yield "unassigned.txt", "\U0010ffff\ue000\ufdd0 ".encode() * 60
    yield "combining.txt", ("a" + "\u0301" * 5000).encode()
    yield "special tokens.txt", b"<|endoftext|>" * 300
    yield "carriage returns.txt", PROSE.replace("\n", "\r").encode()
    yield "one word.txt", b"hello"
    yield "bomb.txt.gz", bomb(b"a")


def tables(column: str, content: str) -> Files:
    """Tables of rows, good in nothing but their number."""
    row = json.dumps({column: content})
    lines = {
        "no object": "1\n2\n",
        "null": "null\n",
        "list": "[]\n",
        "no column": '{"x": "y"}\n',
        "number": f'{{"{column}": 1}}\n',
        "null value": f'{{"{column}": null}}\n',
        "list value": f'{{"{column}": ["a"]}}\n',
        "cut": row + "\n" + row[: len(row) // 2],
        "twice": row + row,
        "deep": '{"a":' * 50_000,
        "deep list": f'{{"{column}": ' + "[" * 50_000,
        "digits": f'{{"{column}": {"9" * 6000}}}',
        "nan": f'{{"{column}": NaN}}',
        "lone surrogate": f'{{"{column}": "\\ud800 abc"}}\n' * 30,
        "escape": f'{{"{column}": "\\x"}}\n',
        "json not lines": json.dumps([{column: content}], indent=1),
        "empty strings": f'{{"{column}": ""}}\n' * 9,
        "carriage returns": "\r".join([row] * 9),
    }
    for name, text in lines.items():
        yield f"{name}.jsonl", text.encode()
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "numbers": pa.array([1, 2]),
        "nulls": pa.array([None, None]),
        "all null strings": pa.array([None, None], pa.string()),
        "lists": pa.array([["a"], ["b"]]),
        "binary": pa.array([b"\xff\xfe", b"abc"]),
        "bad utf8": pa.array([b"ok", b"\xff\xfe"]).view(pa.string()),
        "dictionary": pa.array([content, content]).dictionary_encode(),
        "large": pa.array([content], pa.large_string()),
        "no rows": pa.array([], pa.string()),
        "structs": pa.array([{"x": "y"}]),
    }
    for name, values in columns.items():
        file = io.BytesIO()
        pq.write_table(pa.table({column: values}), file)
        yield f"{name}.parquet", file.getvalue()
        yield f"{name}, cut.parquet", file.getvalue()[:-20]
    file = io.BytesIO()
    pq.write_table(pa.table({"other": columns["large"]}), file)
    yield "other column.parquet", file.getvalue()


def sequences(letters: str) -> Files:
    for suffix in (".fa", ".jsonl", ".parquet"):
        yield from anything(suffix)
    yield from tables("sequence", letters)
    fastas = {
        "no names": f">\n{letters}\n>\n{letters}\n",
        "names alone": ">a\n>b\n>c\n",
        "mark": f"\ufeff>a\n{letters}\n",
        "comment first": f";c\n>a\n{letters}\n",
        "gaps": f">a\n{letters}--..{letters}\n",
        "digits": f">a\n{letters}123\n",
        "filler": ">a\n" + "N" * 5000 + "\n>b\n" + "X" * 5000,
        "stops": f">a\n{letters}*{letters}*\n",
        "same name": f">chr1\n{letters}\n>chr1\n{letters}\n",
        "german": f">a\n{letters}\u00df\n",
        "fullwidth": f">a\n{letters}\uff21\n",
        "long name": ">" + "a" * 100_000 + f"\n{letters}\n",
        "control name": f">a\x1b[31m\x07\u202e\n{letters}?\n",
        "quality": f"@a\n{letters}\n+\n{'I' * len(letters)}\n",
        "one letter": ">a\nA\n",
        "strands": f">a\n<+>{letters}<->acgt\n",
        "greater inside": f">a\n{letters}>b\n{letters}\n",
    }
    for name, text in fastas.items():
        yield f"{name}.fa", text.encode()
    yield "bomb.fa.gz", bomb(b"A")


def regions() -> Files:
    """BED files of a genome with the one sequence chr1."""
    yield from ((name, data) for name, data in anything(".bed"))
    lines = {
        "spaces": "chr1 0 400",
        "absent": "chr2\t0\t400",
        "after the end": "chr1\t0\t999999999",
        "before the start": "chr1\t-5\t400",
        "backwards": "chr1\t400\t0",
        "nothing": "chr1\t5\t5",
        "words": "chr1\ta\tb",
        "digits": "chr1\t0\t" + "9" * 6000,
        "arabic digits": "chr1\t\u0660\t\u0664\u0660",
        "halves": "chr1\t0.5\t400",
        "strand": "chr1\t0\t400\tx\t0\tfoo",
        "strand with a space": "chr1\t0\t400\tx\t0\t- ",
        "overlap": "chr1\t0\t400\nchr1\t399\t800",
        "twice": "chr1\t0\t400\nchr1\t0\t400",
        "header alone": "track name=x",
        "comment alone": "# nothing",
        "two fields": "chr1\t0",
        "no name": "\t0\t400",
        "control": "chr1\x1b[31m\t0\t400",
    }
    for name, text in lines.items():
        yield f"{name}.bed", text.encode()


def png(width: int, height: int, *, depth: int = 8, colour: int = 2, data: bytes = b"") -> bytes:
    """A PNG file with any header."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


def pictures() -> Files:
    """Each to be the only picture of a folder."""
    from PIL import Image

    def saved(picture: Image.Image, form: str, **options: object) -> bytes:
        file = io.BytesIO()
        picture.save(file, form, **options)
        return file.getvalue()

    noise = Image.fromarray(np.random.default_rng(2).integers(0, 255, (64, 64, 3), np.uint8))
    for suffix in (".png", ".jpg", ".gif", ".tif", ".webp", ".bmp"):
        yield f"empty{suffix}", b""
        yield f"text{suffix}", b"hello"
        yield f"random{suffix}", np.random.default_rng(3).bytes(2000)
    forms = {".png": "PNG", ".jpg": "JPEG", ".gif": "GIF", ".tif": "TIFF", ".webp": "WEBP"}
    for suffix, form in forms.items():
        whole = saved(noise, form)
        yield f"cut{suffix}", whole[: len(whole) // 2]
        yield f"header{suffix}", whole[:20]
        yield f"turned{suffix}", whole[:40] + bytes(60) + whole[100:]
    yield "svg.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>"
    yield "huge.png", png(100_000, 100_000, data=zlib.compress(bytes(1000)))
    yield "largest.png", png(2**31 - 1, 2**31 - 1)
    yield "no width.png", png(0, 64)
    yield "no data.png", png(64, 64)
    yield "depth 3.png", png(64, 64, depth=3)
    yield "inflating.png", png(64, 64, data=zlib.compress(bytes(1 << 27), 9))
    yield "one pixel.png", saved(Image.new("RGB", (1, 1)), "PNG")
    yield "thin.png", saved(Image.new("RGB", (1, 5000)), "PNG")
    yield "float.tif", saved(Image.new("F", (64, 64)), "TIFF")
    yield "integers.tif", saved(Image.new("I", (64, 64)), "TIFF")
    yield "cmyk.jpg", saved(Image.new("CMYK", (64, 64)), "JPEG")
    frames = [Image.new("P", (64, 64), i) for i in range(3)]
    yield "frames.gif", saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    yield "clear.png", saved(Image.new("RGBA", (64, 64), (0, 0, 0, 0)), "PNG")
    yield "only.heic", b"\0\0\0\x18ftypheic"
    yield "no picture.txt", b"hello"


# What is wrong, and how a path becomes that.
NO_FILES: dict[str, Callable[[Path], object]] = {
    "fifo": os.mkfifo,
    "zeros": lambda path: path.symlink_to("/dev/zero"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to nothing": lambda path: path.symlink_to("nowhere"),
    "folder": lambda path: path.mkdir(),
}


def write_files(folder: Path, files: Files, suffix: str) -> Iterator[tuple[str, Path]]:
    """Writes the files, and with `suffix` what is no file; what is wrong, and where it is."""
    folder.mkdir(parents=True)
    for number, (name, data) in enumerate(files):
        path = folder / f"{number}{''.join(Path(name).suffixes) or suffix}"
        path.write_bytes(data)
        yield name, path
    for name, make in NO_FILES.items():
        path = folder / f"{name}{suffix}"
        make(path)
        yield name, path
    yield "nowhere", folder / f"nowhere{suffix}"


def write_pictures(folder: Path) -> Iterator[tuple[str, Path]]:
    """Folders of one picture each."""
    for number, (name, data) in enumerate(pictures()):
        below = folder / str(number)
        below.mkdir(parents=True)
        (below / name).write_bytes(data)
        yield name, below
    for name, make in NO_FILES.items():
        below = folder / name
        below.mkdir()
        make(below / "a.png")
        yield name, below
