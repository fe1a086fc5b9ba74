"""`manifest.json`: what a folder of precomputed activations holds. No torch.

It names every array with its shape and dtype, says which layer it belongs to, and identifies every
file by size and SHA-256, so that activations that were changed, cut off or mixed up are refused
rather than measured.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal

import pydantic
from pydantic import Field

from zoo.cards import DataKind, Domain, Strict, explain
from zoo.errors import BadActivations, BadManifest
from zoo.files import read_json, sha256_of

MANIFEST = "manifest.json"


class DumpArray(Strict):
    """One array of a layer. Its last axis is the width; the others count tokens."""

    path: str
    key: str | None
    shape: tuple[int, ...]
    dtype: str

    @property
    def tokens(self) -> int:
        """Rows of width `shape[-1]`."""
        return math.prod(self.shape[:-1])


class DumpLayer(Strict):
    """The arrays of one layer, in order."""

    layer: int = Field(ge=0)
    parts: tuple[DumpArray, ...] = Field(min_length=1)


class DumpStream(Strict):
    """Layers of one width over the same tokens."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    width: int = Field(ge=1)
    layers: tuple[DumpLayer, ...] = Field(min_length=1)

    @property
    def tokens(self) -> int:
        """Tokens of each layer."""
        return sum(part.tokens for part in self.layers[0].parts)


class File(Strict):
    """What identifies a file. A file whose size and time are unchanged is not hashed again."""

    path: str
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    mtime_ns: int


class Manifest(Strict):
    """`manifest.json`. `data`: whether the model read real data or made data."""

    format: Literal["gammabench-dump-1"] = "gammabench-dump-1"
    summary: str
    domain: Domain
    data: DataKind = "real"
    streams: tuple[DumpStream, ...] = Field(min_length=1)
    files: tuple[File, ...] = Field(min_length=1)

    def identity(self) -> str:
        """`sha256:<hex>` that changes whenever the activations do, wherever they lie."""
        facts = self.model_dump(include={"streams": True, "files": {"__all__": {"path", "sha256"}}})
        return f"sha256:{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()}"


def make_manifest(
    folder: Path,
    streams: tuple[DumpStream, ...],
    domain: Domain,
    summary: str = "",
    data: DataKind = "real",
) -> Manifest:
    """The manifest of a folder; reads its files once, to hash them."""
    paths = sorted({part.path for part in _parts(streams)})
    return Manifest(
        summary=summary or "Precomputed activations",
        domain=domain,
        data=data,
        streams=streams,
        files=tuple(_identity(folder, path) for path in paths),
    )


def write_manifest(folder: Path, manifest: Manifest) -> Path:
    """Writes `manifest.json`. Raises `BadManifest` where the folder cannot be written to."""
    path = folder / MANIFEST
    beside = path.with_suffix(".json.part")
    try:
        beside.write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise BadManifest(f"{path} cannot be written ({error.strerror})") from None
    return path


def read_manifest(folder: Path) -> Manifest:
    """The folder's manifest.

    Raises:
        BadManifest: there is none, or it is not one.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise BadManifest(
            f"no folder of activations at {folder}", "Give a folder that holds a file per layer."
        )
    try:
        return Manifest.model_validate(read_json(path))
    except FileNotFoundError:
        raise BadManifest(
            f"{folder} has no {MANIFEST}",
            f"Write it with `bench manifest {folder} --domain DOMAIN`.",
        ) from None
    except pydantic.ValidationError as error:
        raise BadManifest(*explain(Manifest, error, str(path))) from None
    except (OSError, ValueError) as error:
        raise BadManifest(f"{path} cannot be read ({error})") from None


def verify(folder: Path, manifest: Manifest, *, contents: bool = False) -> list[str]:
    """What differs between the manifest and the files, in words; empty where nothing does.

    Sizes and headers are always compared, contents where a file's time differs from the
    manifest's or `contents` asks for it.
    """
    problems = []
    sound: set[str] = set()
    for file in manifest.files:
        problem = _other_file(folder / file.path, file, contents)
        if problem:
            problems.append(f"{file.path} {problem}")
        else:
            sound.add(file.path)
    problems += _other_arrays(folder, manifest, sound)
    for stream in manifest.streams:
        wide = [part for part in _parts([stream]) if part.shape[-1] != stream.width]
        if wide:
            problems.append(f"{wide[0].path} is {wide[0].shape[-1]} wide, not {stream.width}")
        runs = {tuple(part.tokens for part in layer.parts) for layer in stream.layers}
        if len(runs) > 1:
            problems.append(f"the layers of {stream.name} do not hold the same tokens")
    return problems


def _other_file(path: Path, file: File, contents: bool) -> str | None:
    if not path.is_file():
        return "is absent"
    status = path.stat()
    if status.st_size != file.bytes:
        return f"has {status.st_size} bytes, not {file.bytes}"
    if not contents and status.st_mtime_ns == file.mtime_ns:
        return None
    found = sha256_of(path)
    if found == file.sha256:
        return None
    return f"has other contents (SHA-256 {found[:12]}, not {file.sha256[:12]})"


def _other_arrays(folder: Path, manifest: Manifest, sound: set[str]) -> Iterator[str]:
    """What differs in the headers of the files that are sound otherwise."""
    from zoo.arrays import read_headers

    listed = {file.path for file in manifest.files}
    by_file: dict[str, list[DumpArray]] = {}
    for part in _parts(manifest.streams):
        by_file.setdefault(part.path, []).append(part)
    for path, parts in by_file.items():
        if path not in listed:
            yield f"{path} is not among the manifest's files"
        if path not in sound:
            continue
        try:
            headers = {header.key: header for header in read_headers(folder / path)}
        except BadActivations as error:
            yield error.message
            continue
        for part in parts:
            where = path if part.key is None else f"{path}, {part.key}"
            header = headers.get(part.key)
            if header is None:
                yield f"{where} is absent"
            elif (header.dtype, header.shape) != (part.dtype, part.shape):
                yield (
                    f"{where} is {header.dtype} {list(header.shape)}, "
                    f"not {part.dtype} {list(part.shape)}"
                )


def checked_manifest(folder: Path) -> Manifest:
    """The folder's manifest, if it tells the truth.

    Raises:
        BadManifest: there is none, or it says other than what the folder holds.
    """
    manifest = read_manifest(folder)
    problems = verify(folder, manifest)
    if problems:
        more = f"; {len(problems) - 1} more" if len(problems) > 1 else ""
        raise BadManifest(
            f"{folder / MANIFEST} does not say what the folder holds: {problems[0]}{more}",
            f"`bench manifest {folder} --check` names all; write it again if the files are right.",
        )
    return manifest


def described(streams: Iterable[DumpStream]) -> str:
    """The streams in a line."""
    return "; ".join(
        f"{stream.name}: {len(stream.layers)} layer{'s' if len(stream.layers) > 1 else ''} x "
        f"{stream.width}, {stream.tokens:,} tokens"
        for stream in streams
    )


def _parts(streams: Iterable[DumpStream]) -> Iterator[DumpArray]:
    for stream in streams:
        for layer in stream.layers:
            yield from layer.parts


def _identity(folder: Path, path: str) -> File:
    status = (folder / path).stat()
    return File(
        path=path,
        bytes=status.st_size,
        sha256=sha256_of(folder / path),
        mtime_ns=status.st_mtime_ns,
    )
