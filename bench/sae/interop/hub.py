"""Published SAEs by their address: a path, or `hub:OWNER/NAME[/FOLDER][@REVISION]`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

from zoo import hub
from zoo.errors import BadWeights, UsageError
from zoo.files import sha256_of, user_path

PREFIX = "hub:"

# Files of the libraries in `bench.sae.interop`.
_FILES = ("*.json", "*.safetensors", "ae.pt")


@dataclass(frozen=True)
class PublishedPlace:
    """Where an SAE is on this machine, what it is called, and what identifies it.

    name: its address without a revision, or of a path the last part.
    identity: `hub:OWNER/NAME/FOLDER@COMMIT`, or `sha256:` of the files of a path.
    """

    path: Path
    name: str
    identity: str


def sae_path(address: str) -> Path:
    """The folder or file that an address names; see `sae_place`."""
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
    below = f"{repo.subfolder}/" if repo.subfolder else ""
    with hub.hub_errors(pinned):
        snapshot = hub.client().snapshot_download(
            pinned.hub, revision=pinned.revision, allow_patterns=[below + file for file in _FILES]
        )
    found = Path(snapshot) / repo.subfolder
    if not found.is_dir():
        raise UsageError(f"{address}: the repository has no folder {repo.subfolder!r} with an SAE")
    name = f"{repo.hub}/{repo.subfolder}".removesuffix("/")
    return PublishedPlace(found, name, f"{PREFIX}{name}@{pinned.revision}")


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
    keys = ("the id", "what stands after the @")
    return hub.HubRepository(
        address, f"{owner}/{name}", revision or None, folder, keys=keys, local="DIR"
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

    example = "For example hub:OWNER/NAME/layer_3@main."
    try:
        validate_repo_id(repository)
    except HFValidationError:
        raise UsageError(f"{address!r} names no repository of a hub", example) from None
    if any(part in ("", ".", "..") for part in folder.split("/")) and folder:
        raise UsageError(f"{address!r} names no folder of a repository", example)
