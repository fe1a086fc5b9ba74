"""Files wherever they are: a path of this machine, `s3://`, `https://`, or the hub's `hf://`.

fsspec opens them. What can go wrong on the way is one kind of error, with its remedy.
"""

from __future__ import annotations

import fnmatch
import functools
import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from zoo.errors import BadCorpus, BenchError, MissingExtra, ModelUnavailable
from zoo.files import check_regular, natural_key
from zoo.install import install_line

# Bytes of a corpus up to which it is read as a whole, shuffled as a whole, and kept in memory.
IN_MEMORY_BYTES = 1 << 28

# What a digest of a large file reads: so many blocks of so many bytes, spread evenly.
SAMPLED_BLOCKS, SAMPLED_BYTES = 8, 1 << 16

# Names under which object stores tell what identifies the content of a file.
_CHECKSUMS = ("ETag", "etag", "sha256", "md5", "checksum")

_GIVE = "Give the path or the URL of a file, or of a folder."

# By what S3's client says.
_REMEDIES = {
    "ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE_DOES_NOT_MATCH|credential": (
        "Name credentials that have access (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
        "AWS_PROFILE); for a public bucket set AWS_NO_SIGN_REQUEST=1."
    ),
    "NO_SUCH_BUCKET": "Check the bucket's name, and AWS_REGION.",
    "NETWORK_CONNECTION|HTTP status 301": "Check the network, AWS_ENDPOINT_URL and AWS_REGION.",
}

_EXTRAS = {"http": "https", "https": "https", "hf": "language"}

_URL = re.compile(r"^[a-z][a-z0-9+]*://")


def is_url(text: str) -> bool:
    """Whether it names something by a protocol, as `s3://bucket/name` does."""
    return _URL.match(text) is not None


def shown(url: str) -> str:
    """A path or URL without what may be secret in it: a user and a password, a query."""
    if not is_url(url):
        return url
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@dataclass(frozen=True)
class StoredFile:
    """A file by its path or URL.

    name: its path below the folder that was listed, by which it is matched and put in order.
    size: bytes. checksum: what the store says of its content, if it says anything.
    """

    url: str
    name: str
    size: int
    checksum: str = ""

    def __str__(self) -> str:
        return shown(self.url)

    @property
    def is_local(self) -> bool:
        return not is_url(self.url)

    @contextmanager
    def open(self, *, whole: bool = False) -> Iterator[IO[bytes]]:
        """The file's bytes; what goes wrong in the context names the file.

        Args:
            whole: it will be read from end to end, so that larger pieces are asked for at once.
        """
        with _errors(self.url):
            if self.is_local:
                check_regular(Path(self.url))
                with Path(self.url).open("rb") as local:
                    yield local
                return
            system, path = file_system(self.url)
            block = (4 if whole else 1) << 20
            with system.open(path, "rb", block_size=block, cache_type="readahead") as remote:
                yield remote


def list_files(place: str, glob: str = "*") -> list[StoredFile]:
    """The file at a path or URL, or those below it that the glob means, in natural order.

    `*` stands for folders too. What is hidden, or in a hidden folder, is left out. A store without
    folders, as a web server is, gives the file itself alone.

    Raises:
        BadCorpus: nothing is there. MissingExtra: a package for this kind of store is absent.
    """
    with _errors(place):
        found = _below(Path(place)) if not is_url(place) else _below_url(place)
    if len(found) == 1 and found[0].url.rstrip("/") == place.rstrip("/"):
        return found
    shown = (file for file in found if not any(p[:1] == "." for p in file.name.split("/")))
    wanted = (file for file in shown if fnmatch.fnmatch(file.name, glob))
    return sorted(wanted, key=lambda file: natural_key(file.name))


def digest(files: Sequence[StoredFile], facts: dict[str, Any]) -> str:
    """`sha256:<hex>` of large files, without reading them whole.

    It covers `facts` and each file's name and size; then what the store says identifies its
    content (an ETag), or else `SAMPLED_BLOCKS` blocks of `SAMPLED_BYTES` bytes at evenly spaced
    places, the first and the last of the file among them. Times are no part of it. An edit that
    keeps the size and lies between the blocks is not noticed.
    """
    whole = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for file in files:
        whole.update(json.dumps([file.name, file.size, file.checksum]).encode())
        if not file.checksum:
            with file.open() as opened:
                for block in _blocks(opened, file.size):
                    whole.update(block)
    return f"sha256:{whole.hexdigest()}"


def _blocks(file: IO[bytes], size: int) -> Iterator[bytes]:
    last = max(0, size - SAMPLED_BYTES)
    for place in sorted({last * i // (SAMPLED_BLOCKS - 1) for i in range(SAMPLED_BLOCKS)}):
        file.seek(place)
        yield file.read(SAMPLED_BYTES)


def _below(path: Path) -> list[StoredFile]:
    if path.is_file():
        return [StoredFile(str(path), path.name, path.stat().st_size)]
    if not path.exists():
        raise BadCorpus(f"no corpus at {path}", _GIVE)
    files = (file for file in path.rglob("*") if file.is_file())
    return [StoredFile(str(f), f.relative_to(path).as_posix(), f.stat().st_size) for f in files]


def _below_url(url: str) -> list[StoredFile]:
    system, root = file_system(url)
    try:
        info = system.info(root)  # asking `isfile` would hide that a store does not answer
    except FileNotFoundError:
        if url.startswith("s3://"):
            _check_bucket(system, root)
        raise
    if info["type"] == "file":
        name = root.partition("?")[0].rsplit("/", 1)[-1]
        return [_stored(system, root, name, info)]
    found = system.find(root, detail=True)
    if not found:
        raise BadCorpus(f"no corpus at {shown(url)}", _GIVE)
    start = len(root.rstrip("/")) + 1
    return [_stored(system, path, path[start:], info) for path, info in found.items()]


def _check_bucket(system: Any, path: str) -> None:
    """Raises `BadCorpus` where it is the bucket that is absent. Not asked of one that answers: a
    bucket may give its objects to those who may not look at itself."""
    bucket = path.partition("/")[0]
    if not system.exists(bucket):
        raise BadCorpus(f"no bucket {bucket!r}", "Check its name, and AWS_REGION.")


def _stored(system: Any, path: str, name: str, info: dict[str, Any]) -> StoredFile:
    size = info.get("size")
    if size is None:
        raise BadCorpus(
            f"{shown(path)}: its server does not say how large it is, nor gives parts of it",
            "Download it, and give the file.",
        )
    checksum = next((str(info[key]) for key in _CHECKSUMS if info.get(key)), "")
    return StoredFile(system.unstrip_protocol(path), name, int(size), checksum)


def file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path there.

    Raises:
        MissingExtra: a package for it is absent. BadCorpus: there is none for its protocol.
    """
    import fsspec

    if url.startswith("s3://"):
        path = url.removeprefix("s3://")
        bucket = path.partition("/")[0]
        if not bucket:
            raise BadCorpus(f"{url} names no bucket", "Write s3://BUCKET/PATH.")
        return _s3(bucket), path
    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        protocol = url.partition("://")[0]
        raise MissingExtra(
            f"{shown(url)} cannot be opened: {' '.join(str(error).split())[:200]}",
            install_line(_EXTRAS[protocol]) if protocol in _EXTRAS else "",
        ) from None
    except ValueError as error:  # an unknown protocol
        raise BadCorpus(f"{shown(url)} cannot be opened ({error})") from None
    return system, str(path)


@functools.cache
def _s3(bucket: str) -> Any:
    """S3 by pyarrow, which needs no further package. It is asked as the AWS tools ask:
    AWS_ENDPOINT_URL names another server, AWS_NO_SIGN_REQUEST reads public buckets without
    credentials, and a region that no variable names is the bucket's own."""
    from fsspec.implementations.arrow import ArrowFSWrapper

    try:
        from pyarrow.fs import S3FileSystem, resolve_s3_region
    except ImportError:
        raise MissingExtra(
            "s3:// needs the package pyarrow, which is not installed", install_line("parquet")
        ) from None
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not (region or endpoint):
        region = resolve_s3_region(bucket)
    anonymous = os.environ.get("AWS_NO_SIGN_REQUEST", "").lower() in ("1", "true", "yes")
    store = S3FileSystem(endpoint_override=endpoint, region=region, anonymous=anonymous)
    return ArrowFSWrapper(store, skip_instance_cache=True)


@contextmanager
def _errors(url: str) -> Iterator[None]:
    """Whatever a store raises, in our words and naming the file; our own errors as they are.

    What a store far away does not give now is no fault of the corpus: `ModelUnavailable`.
    """
    try:
        yield
    except (BenchError, MemoryError):
        raise
    except Exception as error:
        # fsspec calls whatever a web server does not give a file that is not there.
        cause = error.__cause__
        absent = cause is None or getattr(cause, "status", None) == HTTPStatus.NOT_FOUND
        if isinstance(error, FileNotFoundError) and absent:
            raise BadCorpus(f"no corpus at {shown(url)}", _GIVE) from error
        found = cause if isinstance(error, FileNotFoundError) and cause else error
        kind = ModelUnavailable if is_url(url) else BadCorpus
        said, remedy = said_by(found, url)
        raise kind(f"{shown(url)} cannot be read ({said})", remedy) from error


def said_by(error: BaseException, url: str) -> tuple[str, str]:
    """What a store says in its error, in a line, and what to do about it as far as that tells."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    words = str(reason).replace(url, shown(url)).partition(" (Request ID")[0].split()
    said = " ".join(words)[:200]
    remedies = (remedy for found, remedy in _REMEDIES.items() if re.search(found, said))
    return said, next(remedies, "")
