"""Published SAEs by their address: a path, or `hub:OWNER/NAME[/FOLDER][@REVISION]`."""

from __future__ import annotations

import fnmatch
import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

from zoo import hub
from zoo.errors import BadWeights, UsageError
from zoo.files import sha256_of, user_path

PREFIX = "hub:"

# Files of the libraries in `bench.sae.interop`.
_FILES = ("*.json", "*.safetensors", "ae.pt", "ae_*.pt", "config.yaml", "params.npz")

# What a name ends with that is a file of a folder with several SAEs; its settings lie beside it.
_ONE_FILE = (".pt", ".safetensors", ".npz")


@dataclass(frozen=True)
class PublishedPlace:
    """Where an SAE is on this machine, what it is called, and what identifies it.

    name: its address without a revision, or of a path the last part.
    identity: `hub:OWNER/NAME/FOLDER@COMMIT`, or `sha256:` of the files of a path.
    """

    path: Path
    name: str
    identity: str


def refuse_no_address(address: str) -> None:
    """Raises `UsageError` for what is no address: nothing, or a URL."""
    if not address.strip():
        raise UsageError("--sae: no SAE is named", "Give a name of `bench list saes`, or a folder.")
    if "://" in address:
        raise UsageError(
            f"--sae: {address} is a URL, and SAEs are read from this machine or from the hub",
            "Copy it here and give its folder, or write hub:OWNER/NAME[/FOLDER][@REVISION].",
        )


def sae_path(address: str) -> Path:
    """The folder or file that an address names; see `sae_place`."""
    refuse_no_address(address)
    return user_path(address) if not address.startswith(PREFIX) else sae_place(address).path


def sae_place(address: str) -> PublishedPlace:
    """What an address names: a path, or a folder of a hub's repository.

    `hub:OWNER/NAME/FOLDER@REVISION` or, as other tools write it, `hub:OWNER/NAME@REVISION:FOLDER`.

    Raises:
        UsageError: it is not an address.
        BadWeights: there is nothing at the path.
        ModelUnavailable: the hub does not have it, or cannot be reached.
    """
    if not address.startswith(PREFIX):
        path = user_path(address)
        return PublishedPlace(path, path.resolve().name, _digest(path))
    repo = hub_repository(address)
    pinned = replace(repo, revision=hub.resolve(repo))
    with hub.hub_errors(pinned):
        snapshot = hub.client().snapshot_download(
            pinned.hub, revision=pinned.revision, allow_patterns=_patterns(repo.subfolder)
        )
    found = Path(snapshot) / repo.subfolder
    if not found.exists():
        raise UsageError(f"{address}: the repository has no folder {repo.subfolder!r} with an SAE")
    name = f"{repo.hub}/{repo.subfolder}".removesuffix("/")
    return PublishedPlace(found, name, f"{PREFIX}{name}@{pinned.revision}")


def sae_files(address: str) -> list[hub.RemoteFile]:
    """The files of a hub's repository that an SAE's address means.

    Raises:
        UsageError: it is no address of a hub.
        ModelUnavailable: the hub does not have it, or cannot be reached.
    """
    repo = hub_repository(address)
    below = repo.subfolder
    folder = below.rpartition("/")[0] if below.endswith(_ONE_FILE) else below
    client = hub.client()
    with hub.hub_errors(repo):
        tree = client.HfApi().list_repo_tree(
            repo.hub, path_in_repo=folder or None, revision=repo.revision
        )
        sizes = {entry.path: entry.size for entry in tree if hasattr(entry, "size")}

    def is_cached(path: str) -> bool:
        found = client.try_to_load_from_cache(repo.hub, path, revision=repo.revision)
        return isinstance(found, str)

    patterns = _patterns(below)
    wanted = [path for path in sizes if any(fnmatch.fnmatch(path, glob) for glob in patterns)]
    return [hub.RemoteFile(path, sizes[path], is_cached(path)) for path in sorted(wanted)]


def _patterns(below: str) -> list[str]:
    """The files of a repository that an SAE in a folder, or in a file, consists of."""
    if below.endswith(_ONE_FILE):
        above = below.rpartition("/")[0]
        return [below, f"{above}/config.json".removeprefix("/")]
    return [f"{below}/{name}".removeprefix("/") for name in _FILES]


def hub_repository(address: str) -> hub.HubRepository:
    """The repository, revision and folder that an address names. Raises `UsageError`."""
    target, _, version = address.removeprefix(PREFIX).partition("@")
    revision, _, below = version.partition(":")
    if not version:
        target, _, below = target.partition(":")
    owner, _, rest = target.partition("/")
    name, _, folder = rest.partition("/")
    folder = folder or below
    _check(address, f"{owner}/{name}", folder)
    return hub.HubRepository(
        f"{PREFIX}{owner}/{name}",
        f"{owner}/{name}",
        revision or None,
        folder,
        keys=("the id", "the revision"),
        instead="the folder of a local copy",
        holds="SAE",
    )


def _digest(path: Path) -> str:
    """`sha256:` over the names and contents of an SAE's files."""
    if not path.exists():
        raise BadWeights(f"no SAE at {path}", "Give a folder or a file.")
    files = [path] if path.is_file() else [f for glob in _FILES for f in path.glob(glob)]
    try:
        contents = {file.name: sha256_of(file) for file in files if file.is_file()}
    except OSError as error:
        raise BadWeights(f"{path}: cannot be read ({error.strerror or error})") from None
    # A single file is the same under another name.
    named = list(contents.values()) if path.is_file() else sorted(contents.items())
    return f"sha256:{hashlib.sha256(json.dumps(named).encode()).hexdigest()}"


def _check(address: str, repository: str, folder: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    example = "Write hub:OWNER/NAME[/FOLDER][@REVISION], for example hub:me/saes/layer_3@main."
    try:
        validate_repo_id(repository)
    except HFValidationError:
        raise UsageError(f"{address!r} names no repository of a hub", example) from None
    if any(part in ("", ".", "..") for part in folder.split("/")) and folder:
        raise UsageError(f"{address!r} names no folder of a repository", example)
