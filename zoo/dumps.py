"""Precomputed activations as models: `dump:<folder>`. No torch.

Each stream of the folder (see `zoo.scan`) becomes a model of its own.
"""

from __future__ import annotations

import re
from pathlib import Path

from zoo.cards import Card, Checkpoint, DataKind, Domain, Tap
from zoo.manifest import MANIFEST, DumpStream, Manifest, checked_manifest, described, read_manifest
from zoo.scan import alphafold_files, scan

# Tokens of one chunk, which is read, batched and shuffled as one example.
CHUNK = 256
# Of an array of more axes, such as pairs of tokens: it is large, and may be deflated.
CHUNK_OF_PAIRS = 1024


def dump_cards(folder: Path) -> list[Card]:
    """One card per stream of a folder of activations.

    AlphaFold 3's embeddings need no manifest: their layout is known.

    Raises:
        BadManifest: there is no manifest, or it is not true.
    """
    manifest: Manifest | None = None
    if (folder / MANIFEST).exists() or not folder.is_dir() or not alphafold_files(folder):
        manifest = checked_manifest(folder)
        streams, domain, summary = manifest.streams, manifest.domain, manifest.summary
        data = manifest.data
    else:
        streams = scan(folder)
        domain, summary, data = "protein", "AlphaFold 3 embeddings", "real"
    name = "dump." + slug(folder.resolve().name)
    return [
        _card(
            name if len(streams) == 1 else f"{name}.{stream.name}",
            folder,
            stream,
            domain=domain,
            data=data,
            summary=f"{summary}; {described([stream])}",
            options={"stream": stream.name},
        )
        for stream in streams
    ]


def streams_of(folder: Path) -> tuple[DumpStream, ...]:
    """The streams of a dump that was checked when its card was made."""
    if (folder / MANIFEST).exists():
        return read_manifest(folder).streams
    return scan(folder)


def slug(text: str) -> str:
    """`text` as it may stand in an id."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("._-")[:80] or "x"


def _card(
    name: str,
    folder: Path,
    stream: DumpStream,
    *,
    domain: Domain,
    data: DataKind,
    summary: str,
    options: dict,
) -> Card:
    numbers = tuple(layer.layer for layer in stream.layers)
    whole = numbers == tuple(range(len(numbers)))
    flat = all(len(part.shape) == 2 for layer in stream.layers for part in layer.parts)
    tap = Tap(
        blocks=("layer.{i}",),
        layers=numbers[-1] + 1,
        width=stream.width,
        numbers=None if whole else numbers,
    )
    return Card(
        id=name,
        summary=summary,
        domain=domain,
        data=data,
        adapter="array",
        checkpoint=Checkpoint(source="folder", path=str(folder.resolve())),
        tap=tap,
        corpus="draws",
        context=CHUNK if flat else CHUNK_OF_PAIRS,
        parameters=0,
        options=options,
    )
