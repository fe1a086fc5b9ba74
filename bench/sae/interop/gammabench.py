"""Our own files: `sae.safetensors` and `sae.json` (`SAE.save`, `load_sae`)."""

from __future__ import annotations

from pathlib import Path

from bench.sae.interop.files import peek_json, write_folder
from bench.sae.model import CONFIG_FILE, SAE, SAE_FORMAT, load_sae
from bench.sae.origin import Origin


def matches(place: Path) -> bool:
    return peek_json(place / CONFIG_FILE).get("format") == SAE_FORMAT


def read(place: Path) -> tuple[SAE, Origin]:
    origin = peek_json(place / CONFIG_FILE).get("origin", {})
    return load_sae(place), Origin.of(origin if isinstance(origin, dict) else {})


def write(sae: SAE, place: Path, origin: Origin) -> list[str]:
    write_folder(place, lambda folder: sae.save(folder, origin))
    return []
