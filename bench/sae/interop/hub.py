"""Published SAEs by their address on the hub: `hub:OWNER/NAME[/FOLDER][@REVISION]`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from zoo import hub
from zoo.errors import UsageError
from zoo.files import user_path

PREFIX = "hub:"

# Files of the libraries in `bench.sae.interop`.
_FILES = ("*.json", "*.safetensors", "ae.pt")


def sae_path(address: str) -> Path:
    """The folder or file that an address names: a path, or a folder of a hub's repository.

    Raises:
        UsageError: it is not an address.
        ModelUnavailable: the hub does not have it, or cannot be reached.
    """
    if not address.startswith(PREFIX):
        return user_path(address)
    target, _, revision = address.removeprefix(PREFIX).partition("@")
    owner, _, rest = target.partition("/")
    name, _, folder = rest.partition("/")
    _check(address, f"{owner}/{name}", folder)
    keys = ("the id", "what stands after the @")
    repo = hub.HubRepository(
        address, f"{owner}/{name}", revision or None, folder, keys=keys, local="DIR"
    )
    pinned = replace(repo, revision=hub.resolve(repo))
    below = f"{folder}/" if folder else ""
    with hub.hub_errors(pinned):
        snapshot = hub.client().snapshot_download(
            pinned.hub, revision=pinned.revision, allow_patterns=[below + file for file in _FILES]
        )
    found = Path(snapshot) / folder
    if not found.is_dir():
        raise UsageError(f"{address}: the repository has no folder {folder!r} with an SAE")
    return found


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
