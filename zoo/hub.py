"""The model hub: what a repository holds, its commits, its files in the local cache. No torch.

Everything that goes wrong on the way is one kind of error, `ModelUnavailable`, with its remedy.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import re
from collections.abc import Iterable, Iterator, Sequence
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
class HubRepository:
    """A repository on the hub at a revision, and what its user calls it.

    `keys` says where the id and the revision were written, `instead` what one gives where there is
    no hub, for the remedies, and `holds` what it is.
    """

    name: str
    hub: str
    revision: str | None = None
    subfolder: str = ""
    gated: bool = False
    licence_page: str | None = None
    keys: tuple[str, str] = ("checkpoint.hub", "checkpoint.revision")
    instead: str = "a local copy with --weights DIR"
    holds: str = "model"
    kind: str = "model"
    parts: tuple[str, ...] = ()
    file: str | None = None

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders of the repository that are read."""
        return (self.subfolder, *self.parts)

    @classmethod
    def of(cls, card: Card) -> HubRepository:
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
    # The package loads its parts by name when they are asked for, but not these.
    import huggingface_hub.constants
    from huggingface_hub.utils import disable_progress_bars

    if huggingface_hub.constants.HF_HUB_DISABLE_PROGRESS_BARS is None:
        # Somebody imported it before the environment was set.
        disable_progress_bars()
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
    commit = resolve(HubRepository.of(card))
    found = card.model_copy(
        update={"checkpoint": checkpoint.model_copy(update={"revision": commit})}
    )
    found._folder = card.folder
    return found


def resolve(repo: HubRepository) -> str:
    """The commit, 40 hexadecimal digits, that the branch or tag is at.

    The hub is asked; where it cannot be reached, the local cache says what it was at last.

    Raises:
        ModelUnavailable: there is no such repository or revision, or neither the hub nor
            the cache can tell.
    """
    if repo.revision is not None and re.fullmatch(r"[0-9a-f]{40}", repo.revision):
        return repo.revision
    hub = client()
    try:
        with hub_errors(repo):
            if hub.constants.ENDPOINT in _unreachable:
                raise ConnectionError(f"{hub.constants.ENDPOINT} could not be reached a moment ago")
            info = hub.HfApi().repo_info(
                repo.hub,
                revision=repo.revision,
                repo_type=repo.kind,
                timeout=_SECONDS,
            )
            return str(info.sha)
    except HubUnreachable:
        known = cached_commit(repo)
        if known is None:
            raise
        return known


def cached_commit(repo: HubRepository) -> str | None:
    """The commit at which the local cache last saw the branch or tag; None where it never did.

    What was fetched at a commit leaves no note of the branch: then it is the only commit there is.
    """
    from huggingface_hub.errors import CacheNotFound, LocalEntryNotFoundError

    hub = client()
    with hub_errors(repo):
        try:
            snapshot = hub.snapshot_download(
                repo.hub,
                repo_type=repo.kind,
                revision=repo.revision,
                allow_patterns=[],
                local_files_only=True,
            )
            return Path(snapshot).name
        except LocalEntryNotFoundError:
            if repo.revision not in (None, "main"):
                return None
    try:
        repositories = hub.scan_cache_dir(hub.constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return None
    wanted = (repo.hub, repo.kind)
    commits = [
        revision.commit_hash
        for found in repositories
        if (found.repo_id, found.repo_type) == wanted
        for revision in found.revisions
    ]
    return commits[0] if len(commits) == 1 else None


def small_files(repo: HubRepository) -> tuple[Path, str]:
    """The folder with a repository's configuration and vocabulary, without weights; its commit.

    Raises:
        ModelUnavailable: they cannot be fetched and are not in the cache.
    """
    commit = resolve(repo)
    try:
        # By the name of the branch or tag, so that the client notes its commit in the cache.
        snapshot = _snapshot(repo, SMALL_FILES)
    except HubUnreachable:
        snapshot = _snapshot(replace(repo, revision=commit), SMALL_FILES)
    return snapshot / repo.subfolder, snapshot.name


def files(repo: HubRepository) -> list[RemoteFile]:
    """The files that `snapshot` fetches, in the format of weights it prefers.

    Raises:
        ModelUnavailable: the hub cannot say.
    """
    hub = client()
    with hub_errors(repo):
        sizes = {
            entry.path: entry.size
            for folder in repo.folders
            for entry in hub.HfApi().list_repo_tree(
                repo.hub,
                path_in_repo=folder or None,
                revision=repo.revision,
                repo_type=repo.kind,
            )
            if hasattr(entry, "size")
        }
    names = {path: path.rsplit("/", 1)[-1] for path in sizes}
    known = weight_patterns(repo.file)
    weights = next((w for w in known if fnmatch.filter(names.values(), w)), known[0])
    wanted = [
        p for p in sizes if any(fnmatch.fnmatch(names[p], g) for g in (*SMALL_FILES, weights))
    ]

    def is_cached(path: str) -> bool:
        found = hub.try_to_load_from_cache(
            repo.hub, path, revision=repo.revision, repo_type=repo.kind
        )
        return isinstance(found, str)

    return [RemoteFile(path, sizes[path], is_cached(path)) for path in sorted(wanted)]


def snapshot(card: Card) -> Path:
    """The repository of a card in the local cache, with weights in the format preferred.

    Files that are there already are not fetched again, and a file that broke off is resumed.

    Raises:
        ModelUnavailable: the remedy says how to get it.
    """
    repo = HubRepository.of(card)
    for pattern in weight_patterns(repo.file):
        folder = _snapshot(repo, (*SMALL_FILES, pattern))
        if any((folder / repo.subfolder).glob(pattern)):
            break
    return folder


def has_dataset(repo: HubRepository, patterns: Sequence[str]) -> bool:
    """Whether files that the globs mean are in the local cache at the revision."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = client().snapshot_download(
            repo.hub,
            repo_type="dataset",
            revision=repo.revision,
            allow_patterns=list(patterns),
            local_files_only=True,
        )
    except LocalEntryNotFoundError:
        return False
    names = [file.relative_to(folder).as_posix() for file in Path(folder).rglob("*")]
    return any(fnmatch.filter(names, pattern) for pattern in patterns)


def dataset_files(repo: HubRepository, pattern: str) -> list[RemoteFile]:
    """The files of a dataset that the glob means.

    Raises:
        ModelUnavailable: the hub cannot say.
    """
    hub = client()
    with hub_errors(repo):
        tree = hub.HfApi().list_repo_tree(
            repo.hub, recursive=True, revision=repo.revision, repo_type=repo.kind
        )
        sizes = {entry.path: entry.size for entry in tree if hasattr(entry, "size")}

    def is_cached(path: str) -> bool:
        found = hub.try_to_load_from_cache(
            repo.hub, path, revision=repo.revision, repo_type=repo.kind
        )
        return isinstance(found, str)

    wanted = sorted(path for path in sizes if fnmatch.fnmatch(path, pattern))
    return [RemoteFile(path, sizes[path], is_cached(path)) for path in wanted]


def dataset(repo: HubRepository, patterns: Sequence[str]) -> Path:
    """A dataset's files that the globs mean, in the local cache; gives the folder of the snapshot.

    Raises:
        ModelUnavailable: it is unavailable.
    """
    with hub_errors(repo):
        return Path(
            client().snapshot_download(
                repo.hub,
                repo_type="dataset",
                revision=repo.revision,
                allow_patterns=list(patterns),
            )
        )


def _snapshot(repo: HubRepository, patterns: Iterable[str]) -> Path:
    folders = [f"{name}/" if name else "" for name in repo.folders]
    with hub_errors(repo):
        return Path(
            client().snapshot_download(
                repo.hub,
                repo_type=repo.kind,
                revision=repo.revision,
                allow_patterns=[below + name for below in folders for name in patterns],
                ignore_patterns=[f"{below}*/*" for below in folders],
            )
        )


@contextmanager
def hub_errors(repo: HubRepository) -> Iterator[None]:
    """Turns what the hub's client raises into `ModelUnavailable` with the remedy."""
    from huggingface_hub.errors import HFValidationError

    try:
        yield
    except HFValidationError as error:
        raise BadCard(f"card {repo.name!r}: not a hub id: {repo.hub!r} ({error})") from None
    except Exception as error:  # the client lets through whatever its HTTP library raises
        failure = _explain(repo, error)
        if failure is None:
            raise
        raise failure from error


def _explain(repo: HubRepository, error: Exception) -> ModelUnavailable | None:
    """The error in our words; None where it is not the hub's doing."""
    name = f"{repo.holds} {repo.name!r}"
    chain = list(_causes(error))
    refusal = _explain_refusal(repo, name, chain)
    if refusal is not None:
        return refusal
    disk = next((cause for cause in chain if getattr(cause, "errno", None) in _DISK_ERRORS), None)
    if disk is not None:
        return ModelUnavailable(
            f"{name}: the download of {repo.hub} cannot be written ({disk})",
            "Make room, or set HF_HOME to a folder on another disk.",
        )
    if not isinstance(error, OSError) and not _from_http_library(chain):
        return None
    if any(
        type(cause).__name__ in _BROKEN_OFF or "Consistency check" in str(cause) for cause in chain
    ):
        return ModelUnavailable(
            f"{name}: the download of {repo.hub} broke off", "Run again: it resumes."
        )
    _unreachable.add(client().constants.ENDPOINT)
    return HubUnreachable(
        f"{name}: the hub cannot be reached for {repo.hub}, which is not in the local cache",
        f"Check the network (and HF_ENDPOINT, HTTPS_PROXY), or give {repo.instead}.",
    )


def _explain_refusal(
    repo: HubRepository, name: str, chain: Sequence[BaseException]
) -> ModelUnavailable | None:
    """What the hub answered; None where it did not answer."""
    from huggingface_hub import errors

    hub, page = repo.hub, repo.licence_page
    responses = (getattr(cause, "response", None) for cause in chain)
    status = {response.status_code for response in responses if response is not None}

    def raised(kind: type[BaseException]) -> bool:
        return any(isinstance(cause, kind) for cause in chain)

    # First, as a GatedRepoError is a RepositoryNotFoundError too.
    if raised(errors.GatedRepoError) or (repo.gated and status & {401, 403}):
        return ModelUnavailable(
            f"{name} is gated: the hub gives {hub} only to those who accepted its licence",
            f"Accept it at {page or _page(repo)}, then log in with "
            "`huggingface-cli login` (or `hf auth login`).",
        )
    if raised(errors.RepositoryNotFoundError):
        return ModelUnavailable(
            f"{name}: no repository {hub!r} on the hub, or it is private",
            f"Check {repo.keys[0]}, or log in with `huggingface-cli login` (or `hf auth login`).",
        )
    if raised(errors.RevisionNotFoundError):
        return ModelUnavailable(
            f"{name}: {hub} has no revision {repo.revision}",
            f"Check {repo.keys[1]}: it may have been removed.",
        )
    if raised(errors.OfflineModeIsEnabled):
        return HubUnreachable(
            f"{name}: {hub} is not in the local cache, and the hub is switched off",
            f"Unset HF_HUB_OFFLINE, or give {repo.instead}.",
        )
    if status:
        return ModelUnavailable(
            f"{name}: the hub answered {', '.join(map(str, sorted(status)))} for {hub}",
            f"Try again later, or give {repo.instead}.",
        )
    return None


def _page(repo: HubRepository) -> str:
    return f"https://huggingface.co/{'datasets/' if repo.kind == 'dataset' else ''}{repo.hub}"


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
