"""The model hub: what a repository holds, its commits, its files in the local cache. No torch.

Everything that goes wrong on the way is one kind of error, `ModelUnavailable`, with its remedy.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from zoo.cards import Card
from zoo.errors import BadCard, HubUnreachable, ModelUnavailable

# Files that loading may need; weights are added in the format preferred.
SMALL_FILES = ("*.json", "*.txt", "*.model", "*.tiktoken", "*.spm", "*.bpe", "*.py")
WEIGHTS = ("*.safetensors", "*.bin", "*.pth", "*.pt")

# What HTTP libraries raise when a body ends early.
_BROKEN_OFF = {"ChunkedEncodingError", "IncompleteRead", "RemoteProtocolError", "ReadError"}

_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS}

_SECONDS = 10

# Endpoints that could not be reached once: a plan of many models does not wait for each.
_unreachable: set[str] = set()


@dataclass(frozen=True)
class Place:
    """A repository on the hub at a revision, and what its user calls it.

    `keys` says where the id and the revision were written, and `local` how a local copy is given,
    for the remedies.
    """

    name: str
    hub: str
    revision: str | None = None
    subfolder: str = ""
    gated: bool = False
    licence_page: str | None = None
    keys: tuple[str, str] = ("checkpoint.hub", "checkpoint.revision")
    local: str = "--weights DIR"
    kind: str = "model"
    parts: tuple[str, ...] = ()
    file: str | None = None

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders of the repository that are read."""
        return (self.subfolder, *self.parts)

    @classmethod
    def of(cls, card: Card) -> Place:
        """Where a card's checkpoint is."""
        checkpoint = card.checkpoint
        return cls(
            card.id,
            str(checkpoint.hub),
            checkpoint.revision,
            checkpoint.subfolder,
            checkpoint.gated,
            checkpoint.licence_page,
            parts=checkpoint.parts,
            file=checkpoint.file,
        )


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository: its path, its bytes, and whether the local cache has it."""

    path: str
    bytes: int
    cached: bool


def weight_patterns(file: str | None) -> tuple[str, ...]:
    """The names that files of weights may have, the preferred first; or the one that is named."""
    return (file,) if file else WEIGHTS


def client() -> ModuleType:
    """The hub's client library, without telemetry and with no progress bars of its own."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # The package loads its parts by name when they are asked for, but not this one.
    import huggingface_hub.constants

    return huggingface_hub


def pinned(card: Card) -> Card:
    """The card with the commit that its hub checkpoint is at now; other cards as they are.

    Code that comes with a checkpoint is pinned by the person who read it, never automatically.

    Raises:
        ModelUnavailable: the hub cannot say, and the cache does not know.
    """
    checkpoint = card.checkpoint
    if checkpoint.source != "hub" or checkpoint.revision is not None or checkpoint.remote_code:
        return card  # code is not run at whatever commit it is at now
    commit = resolve(Place.of(card))
    found = card.model_copy(
        update={"checkpoint": checkpoint.model_copy(update={"revision": commit})}
    )
    found._folder = card.folder
    return found


def resolve(place: Place) -> str:
    """The commit, 40 hexadecimal digits, that the place's branch or tag is at.

    The hub is asked; where it cannot be reached, the local cache says what it was at last.

    Raises:
        ModelUnavailable: there is no such repository or revision, or neither the hub nor
            the cache can tell.
    """
    if place.revision is not None and re.fullmatch(r"[0-9a-f]{40}", place.revision):
        return place.revision
    hub = client()
    try:
        with hub_errors(place):
            if hub.constants.ENDPOINT in _unreachable:
                raise ConnectionError(f"{hub.constants.ENDPOINT} could not be reached a moment ago")
            info = hub.HfApi().repo_info(
                place.hub, revision=place.revision, repo_type=place.kind, timeout=_SECONDS
            )
            return str(info.sha)
    except HubUnreachable:
        known = cached_commit(place)
        if known is None:
            raise
        return known


def cached_commit(place: Place) -> str | None:
    """The commit at which the local cache last saw the branch or tag; None where it never did.

    What was fetched at a commit leaves no note of the branch: then it is the only commit there is.
    """
    from huggingface_hub.errors import CacheNotFound, LocalEntryNotFoundError

    hub = client()
    with hub_errors(place):
        try:
            snapshot = hub.snapshot_download(
                place.hub,
                repo_type=place.kind,
                revision=place.revision,
                allow_patterns=[],
                local_files_only=True,
            )
            return Path(snapshot).name
        except LocalEntryNotFoundError:
            if place.revision not in (None, "main"):
                return None
    try:
        repositories = hub.scan_cache_dir(hub.constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return None
    wanted = (place.hub, place.kind)
    commits = [
        revision.commit_hash
        for found in repositories
        if (found.repo_id, found.repo_type) == wanted
        for revision in found.revisions
    ]
    return commits[0] if len(commits) == 1 else None


def small_files(place: Place) -> tuple[Path, str]:
    """The folder with a repository's configuration and vocabulary, without weights; its commit.

    Raises:
        ModelUnavailable: they cannot be fetched and are not in the cache.
    """
    commit = resolve(place)
    try:
        # By the name of the branch or tag, so that the client notes its commit in the cache.
        snapshot = _snapshot(place, SMALL_FILES)
    except HubUnreachable:
        snapshot = _snapshot(replace(place, revision=commit), SMALL_FILES)
    return snapshot / place.subfolder, snapshot.name


def files(place: Place) -> list[RemoteFile]:
    """The files that `snapshot` fetches, in the format of weights it prefers.

    Raises:
        ModelUnavailable: the hub cannot say.
    """
    hub = client()
    with hub_errors(place):
        sizes = {
            entry.path: entry.size
            for folder in place.folders
            for entry in hub.HfApi().list_repo_tree(
                place.hub,
                path_in_repo=folder or None,
                revision=place.revision,
                repo_type=place.kind,
            )
            if hasattr(entry, "size")
        }
    names = {path: path.rsplit("/", 1)[-1] for path in sizes}
    known = weight_patterns(place.file)
    weights = next((w for w in known if fnmatch.filter(names.values(), w)), known[0])
    wanted = [
        p for p in sizes if any(fnmatch.fnmatch(names[p], g) for g in (*SMALL_FILES, weights))
    ]

    def is_cached(path: str) -> bool:
        found = hub.try_to_load_from_cache(
            place.hub, path, revision=place.revision, repo_type=place.kind
        )
        return isinstance(found, str)

    return [RemoteFile(path, sizes[path], is_cached(path)) for path in sorted(wanted)]


def snapshot(card: Card) -> Path:
    """The repository of a card in the local cache, with weights in the format preferred.

    Files that are there already are not fetched again, and a file that broke off is resumed.

    Raises:
        ModelUnavailable: the remedy says how to get it.
    """
    place = Place.of(card)
    for pattern in weight_patterns(place.file):
        folder = _snapshot(place, (*SMALL_FILES, pattern))
        if any((folder / place.subfolder).glob(pattern)):
            break
    return folder


def dataset(place: Place, pattern: str) -> Path:
    """A dataset's files that the glob means, in the local cache; gives the folder of the snapshot.

    Raises:
        ModelUnavailable: it is unavailable.
    """
    with hub_errors(place):
        return Path(
            client().snapshot_download(
                place.hub, repo_type="dataset", revision=place.revision, allow_patterns=[pattern]
            )
        )


def _snapshot(place: Place, patterns: Iterable[str]) -> Path:
    folders = [f"{name}/" if name else "" for name in place.folders]
    with hub_errors(place):
        return Path(
            client().snapshot_download(
                place.hub,
                repo_type=place.kind,
                revision=place.revision,
                allow_patterns=[below + name for below in folders for name in patterns],
                ignore_patterns=[f"{below}*/*" for below in folders],
            )
        )


@contextmanager
def hub_errors(place: Place) -> Iterator[None]:
    """Turns what the hub's client raises into `ModelUnavailable` with the remedy."""
    from huggingface_hub.errors import HFValidationError

    try:
        yield
    except HFValidationError as error:
        raise BadCard(f"card {place.name!r}: not a hub id: {place.hub!r} ({error})") from None
    except Exception as error:  # the client lets through whatever its HTTP library raises
        failure = _explain(place, error)
        if failure is None:
            raise
        raise failure from error


def _explain(place: Place, error: Exception) -> ModelUnavailable | None:
    """The error in our words; None where it is not the hub's doing."""
    from huggingface_hub import errors

    hub, page = place.hub, place.licence_page
    name = f"{'corpus' if place.kind == 'dataset' else 'model'} {place.name!r}"
    chain = list(_causes(error))
    status = {
        response.status_code
        for cause in chain
        if (response := getattr(cause, "response", None)) is not None
    }

    def raised(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in chain)

    if raised(errors.GatedRepoError) or (place.gated and status & {401, 403}):
        return ModelUnavailable(
            f"{name} is gated: the hub gives {hub} only to those who accepted its licence",
            f"Accept it at {page or f'https://huggingface.co/{hub}'}, then log in with "
            "`huggingface-cli login` (or `hf auth login`).",
        )
    if raised(errors.RepositoryNotFoundError):
        return ModelUnavailable(
            f"{name}: no repository {hub!r} on the hub, or it is private",
            f"Check {place.keys[0]}, or log in with `huggingface-cli login` (or `hf auth login`).",
        )
    if raised(errors.RevisionNotFoundError):
        return ModelUnavailable(
            f"{name}: {hub} has no revision {place.revision}",
            f"Check {place.keys[1]}: it may have been removed.",
        )
    if raised(errors.OfflineModeIsEnabled):
        return HubUnreachable(
            f"{name}: {hub} is not in the local cache, and the hub is switched off",
            f"Unset HF_HUB_OFFLINE, or give a local copy with {place.local}.",
        )
    if status:
        return ModelUnavailable(
            f"{name}: the hub answered {', '.join(map(str, sorted(status)))} for {hub}",
            f"Try again later, or give a local copy with {place.local}.",
        )
    disk = next((cause for cause in chain if getattr(cause, "errno", None) in _DISK_ERRORS), None)
    if disk is not None:
        return ModelUnavailable(
            f"{name}: the download of {hub} cannot be written ({disk})",
            "Make room, or set HF_HOME to a folder on another disk.",
        )
    if isinstance(error, OSError) or _from_http_library(chain):
        if any(
            type(cause).__name__ in _BROKEN_OFF or "Consistency check" in str(cause)
            for cause in chain
        ):
            return ModelUnavailable(
                f"{name}: the download of {hub} broke off", "Run again: it resumes."
            )
        _unreachable.add(client().constants.ENDPOINT)
        return HubUnreachable(
            f"{name}: the hub cannot be reached for {hub}, which is not in the local cache",
            "Check the network (and HF_ENDPOINT, HTTPS_PROXY), or give a local copy with "
            f"{place.local}.",
        )
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _from_http_library(chain: Iterable[BaseException]) -> bool:
    libraries = ("requests", "urllib3", "httpx", "httpcore", "http")
    return any(type(cause).__module__.startswith(libraries) for cause in chain)
