"""Which arrays of a folder are which layer of which stream, from their headers alone. No torch.

A stream is a sequence of layers of one width over the same tokens. Arrays are of one stream where
their whole names are the same but for the layer's number and those of shards: `layer0-attn` and
`layer0-mlp` are two streams, `layer0-shard1` and `layer0-shard2` two parts of one. A number is a
shard's where it stands alone or after a word of `_SHARD`. AlphaFold 3's saved embeddings hold two
streams: the single representation and the pair representation.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from zoo.arrays import ARRAY_FORMATS, Header, is_array_file, read_headers
from zoo.errors import BadActivations, BadManifest
from zoo.files import natural_order
from zoo.manifest import DumpArray, DumpLayer, DumpStream, Manifest

# AlphaFold 3: `<job>/seed-<n>_embeddings/<job>_seed-<n>_embeddings.npz` by run_alphafold.py
# --save_embeddings. [tokens, 384] and [tokens, tokens, 128], half precision.
ALPHAFOLD_FILES = "*embeddings.npz"
ALPHAFOLD_STREAMS = {"single_embeddings": "single", "pair_embeddings": "pair"}

_LAYER = re.compile(r"(?:layer|block|hidden_state|resid)s?[._-]?(\d+)", re.IGNORECASE)
_SHARD = "shard|part|chunk|batch|rank|file|job|seed|run|sample|split"
_SHARD_NUMBER = re.compile(
    rf"(?:(?<![a-z])(?:{_SHARD})s?[._-]?|(?<![a-z0-9]))\d+(?:-?of-?\d+)?(?![a-z0-9])", re.IGNORECASE
)

# With more names than a model has kinds of streams, they are names of examples.
_MOST_STREAMS = 8


def scan(
    folder: Path, *, pattern: str | None = None, key: str | None = None, flatten: bool = False
) -> tuple[DumpStream, ...]:
    """The streams that the arrays of a folder make, from their headers.

    Args:
        pattern: glob of the files below the folder, `{i}` where the layer's number stands;
            default all files of a known kind.
        key: name of the array within files whose arrays have names, `{i}` as above; default all
            real floating point ones.
        flatten: take arrays of more than two axes, all but the last counting tokens. Right only
            where there is no padding among them.

    Where neither says `{i}`, the layer is the number after `layer`, `block`, `hidden_state` or
    `resid` in the key or the path; arrays without any are of layer 0. What `pattern` or `key` names
    is one stream, whatever the stars stand for.

    Raises:
        BadManifest: nothing is found, or which array is which layer cannot be told.
    """
    if not folder.is_dir():
        raise BadManifest(
            f"no folder of activations at {folder}", "Give a folder that holds a file per layer."
        )
    if pattern is None and key is None and (jobs := alphafold_files(folder)):
        return _alphafold(folder, jobs)
    found, unnumbered = _arrays_by_stream(folder, pattern, key, flatten)
    numbered = sum(len(parts) for layers in found.values() for parts in layers.values())
    if not numbered:
        raise BadManifest(
            f"{folder} holds no activations ({', '.join(ARRAY_FORMATS)})"
            + (f" that {pattern or key!r} names" if pattern or key else ""),
            "Arrays are real floating point, [tokens, width].",
        )
    if unnumbered and len(unnumbered) < numbered:
        raise BadManifest(
            f"{folder}: which layer {unnumbered[0]} belongs to cannot be told",
            "Say where the number stands, as in --pattern 'layer{i}-*.npy' or --key 'layer{i}'.",
        )
    names = _stream_names(folder, list(found))
    return tuple(
        _stream(names[name, width], width, layers)
        for (name, width), layers in sorted(found.items(), key=lambda item: names[item[0]])
    )


def _arrays_by_stream(
    folder: Path, pattern: str | None, key: str | None, flatten: bool
) -> tuple[dict[tuple[str, int], dict[int, list[DumpArray]]], list[str]]:
    """The arrays by (shared name, width) and layer, and those whose layer has no number."""
    wanted = _matcher(pattern or "**/*")
    named = _matcher(key) if key is not None else None
    found: dict[tuple[str, int], dict[int, list[DumpArray]]] = {}
    unnumbered: list[str] = []
    for path in _array_files(folder):
        relative = path.relative_to(folder).as_posix()
        place = wanted.fullmatch(relative)
        if place is None:
            continue
        for header in _headers(path):
            name = named.fullmatch(header.key or "") if named and header.key else None
            if named and header.key is not None and name is None:
                continue
            if named is None and not header.is_float:
                continue
            where = relative if header.key is None else f"{relative}, {header.key}"
            part = _part(relative, header, where, flatten)
            number = _number(place, name, relative, header.key)
            if number is None:
                unnumbered.append(where)
            own = [relative] if pattern is None else []
            own += [header.key] if key is None and header.key else []
            stream = found.setdefault((shared_name("/".join(own)), part.shape[-1]), {})
            stream.setdefault(number or 0, []).append(part)
    return found, unnumbered


def layer_number(name: str) -> int | None:
    """The number after a word that means layer, the last one of a path, if there is any."""
    numbers = _LAYER.findall(name)
    return int(numbers[-1]) if numbers else None


def shared_name(name: str) -> str:
    """What the names of a stream's arrays have in common: without layers' and shards' numbers."""
    name = re.sub(rf"({'|'.join(map(re.escape, ARRAY_FORMATS))})(?=/|$)", "", name)
    name = _LAYER.sub(lambda match: match[0].removesuffix(match[1]), name)
    return re.sub(r"[\W_]+", "-", _SHARD_NUMBER.sub("", name)).strip("-").lower()


def _stream_names(folder: Path, found: list[tuple[str, int]]) -> dict[tuple[str, int], str]:
    """A name for each stream: `main` for the only one, by its width where that tells it apart."""
    names = sorted({name for name, _ in found})
    if len(names) > _MOST_STREAMS:
        raise BadManifest(
            f"{folder}: which files are one stream cannot be told from {len(names)} names, such as "
            f"{names[0]!r} and {names[1]!r}",
            "Say so with --pattern, as '*.npy' where all are, or '*-layer{i}.npy'.",
        )
    if len(found) == 1:
        return {found[0]: "main"}
    if len({width for _, width in found}) == len(found):
        return {(name, width): f"width-{width}" for name, width in found}
    widths = Counter(name for name, _ in found)
    return {
        (name, width): (name or "main") + (f".width-{width}" if widths[name] > 1 else "")
        for name, width in found
    }


def left_out(folder: Path, manifest: Manifest) -> list[str]:
    """Files that may hold activations and are not in the manifest: new ones, or never meant."""
    known = {file.path for file in manifest.files}
    found = (path.relative_to(folder).as_posix() for path in _array_files(folder))
    return [path for path in found if path not in known]


def _array_files(folder: Path) -> list[Path]:
    files = (path for path in folder.rglob("*") if is_array_file(path))
    return sorted((path for path in files if path.is_file()), key=natural_order)


def _matcher(glob: str) -> re.Pattern[str]:
    """A glob over a path, `**/` for any folders, `{i}` for a number."""
    translated = {"**/": "(?:.*/)?", "{i}": r"(?P<layer>\d+)", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*/|\{i\}|\*|\?)", glob)
    return re.compile("".join(translated.get(piece, re.escape(piece)) for piece in pieces))


def _number(
    place: re.Match[str], name: re.Match[str] | None, path: str, key: str | None
) -> int | None:
    """The layer's number: where it was said to stand, else after a word that means layer."""
    said = [match for match in (name, place) if match and "layer" in match.re.groupindex]
    if said:
        return int(said[0]["layer"])
    number = layer_number(key or "")
    return layer_number(path) if number is None else number


def _headers(path: Path) -> list[Header]:
    try:
        return read_headers(path)
    except BadActivations as error:
        raise BadManifest(error.message, error.remedy) from None


def _part(path: str, header: Header, where: str, flatten: bool) -> DumpArray:
    shape = header.shape
    if not header.is_float:
        raise BadManifest(f"{where} holds {header.dtype}, not real floating point numbers")
    if len(shape) < 2 or (len(shape) > 2 and not flatten) or 0 in shape:
        raise BadManifest(
            f"{where} has shape {shape}, not [tokens, width]",
            "If no padding is among its tokens, give --flatten." if len(shape) > 2 else "",
        )
    return DumpArray(path=path, key=header.key, shape=shape, dtype=header.dtype)


def _stream(name: str, width: int, layers: dict[int, list[DumpArray]]) -> DumpStream:
    """The stream, if its layers are divided into the same runs of tokens."""
    stream = DumpStream(
        name=name,
        width=width,
        layers=tuple(DumpLayer(layer=i, parts=tuple(parts)) for i, parts in sorted(layers.items())),
    )
    runs = {layer.layer: [part.tokens for part in layer.parts] for layer in stream.layers}
    first = stream.layers[0].layer
    for number, found in runs.items():
        if found != runs[first]:
            raise BadManifest(
                f"layer {number} holds {sum(found)} tokens in {len(found)} arrays, layer {first} "
                f"holds {sum(runs[first])} in {len(runs[first])}",
                "Every layer needs the same tokens, divided alike.",
            )
    return stream


# -------------------------------------------------------------------------------- AlphaFold 3


def alphafold_files(folder: Path) -> list[Path]:
    """All jobs' files below the folder, if all of its arrays are AlphaFold 3's.

    What lies in a job's folder beside its embeddings (`seed-1_distogram`) is another output of it.
    """
    files = sorted(folder.rglob(ALPHAFOLD_FILES), key=natural_order)
    jobs = {path.parent.parent for path in files if path.parent != folder}
    others = [path for path in _array_files(folder) if path not in set(files)]
    return files if all(path.parent.parent in jobs for path in others) else []


def _alphafold(folder: Path, files: Iterable[Path]) -> tuple[DumpStream, ...]:
    found: dict[str, dict[int, list[DumpArray]]] = {}
    for path in files:
        relative = path.relative_to(folder).as_posix()
        headers = {header.key: header for header in _headers(path)}
        for key in ALPHAFOLD_STREAMS:
            if key not in headers:
                raise BadManifest(
                    f"{path} holds no {key!r}, as AlphaFold 3's embeddings do",
                    "Say what it holds with --key NAME, if it is not one of its files.",
                )
            name = ALPHAFOLD_STREAMS[key]
            part = _part(relative, headers[key], f"{relative}, {key}", flatten=name == "pair")
            found.setdefault(name, {0: []})[0].append(part)
    streams = []
    for name, layers in found.items():
        widths = {part.shape[-1]: part.path for part in layers[0]}
        if len(widths) > 1:
            (one, first), (two, second), *_ = widths.items()
            raise BadManifest(f"{first} is {one} wide at {name}, but {second} is {two} wide")
        streams.append(_stream(name, next(iter(widths)), layers))
    return tuple(streams)
