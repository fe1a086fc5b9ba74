"""Corpora that are one file at a URL: downloaded once, resumed where it broke off. No torch.

    <cache>/corpora/<digest of the URL>/<name of the file>

The cache is `GAMMABENCH_CACHE`, else `~/.cache/gammabench`. A file is checked against the card's
digest when it is downloaded, and gets its name only then.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from zoo.cards import CorpusCard
from zoo.errors import BadCorpus, CorpusUnavailable
from zoo.files import sha256_of

_SECONDS = 30
_CHUNK = 1 << 20


def place(card: CorpusCard) -> Path:
    """Where the file of the card is, or will be."""
    name = Path(urllib.parse.urlsplit(str(card.url)).path).name
    folder = hashlib.sha256(f"{card.url} {card.sha256}".encode()).hexdigest()[:16]
    return cache_folder() / "corpora" / folder / name


def cache_folder() -> Path:
    """Where this package keeps what it can get again."""
    return Path(os.environ.get("GAMMABENCH_CACHE") or Path.home() / ".cache" / "gammabench")


def downloaded(card: CorpusCard) -> Path:
    """The file of the card.

    Raises:
        CorpusUnavailable: it was not downloaded.
    """
    path = place(card)
    if not path.is_file():
        raise CorpusUnavailable(
            f"corpus {card.id!r} is not here",
            f"`bench fetch --corpus {card.id}` downloads it, or give another as --corpus.",
        )
    return path


def download(card: CorpusCard) -> Path:
    """Downloads the file of the card, if it is not there; what broke off is resumed.

    Raises:
        CorpusUnavailable: the server cannot be reached, refuses, or the disk is full.
        BadCorpus: what came has not the card's digest.
    """
    path = place(card)
    if path.is_file():
        return path
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _fetch(str(card.url), part)
    except (OSError, urllib.error.URLError) as error:
        raise CorpusUnavailable(
            f"corpus {card.id!r}: {card.url} cannot be downloaded ({error})",
            "Check the network and the disk, and run again: it resumes.",
        ) from None
    if card.sha256 is not None and sha256_of(part) != card.sha256:
        part.unlink()
        raise BadCorpus(
            f"corpus {card.id!r}: what {card.url} gave has not the digest that the card says",
            "Try again; if it stays so, the file was changed.",
        )
    part.replace(path)
    return path


def _fetch(url: str, part: Path) -> None:
    """Appends to the file what it lacks. Raises `OSError`."""
    done = part.stat().st_size if part.is_file() else 0
    headers = {"Range": f"bytes={done}-"} if done else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 (a card's, http or https)
    with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310
        resumed = answer.status == 206
        with part.open("ab" if resumed else "wb") as file:
            shutil.copyfileobj(answer, file, _CHUNK)
        wanted = int(answer.headers.get("Content-Length") or 0)
    got = part.stat().st_size - (done if resumed else 0)
    if wanted and got != wanted:
        raise OSError(f"it broke off after {part.stat().st_size} bytes")
