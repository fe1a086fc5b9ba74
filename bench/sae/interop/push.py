"""An SAE's folder as a repository of the hub."""

from __future__ import annotations

from pathlib import Path

from zoo import hub
from zoo.errors import UsageError

_LOGIN = "Log in with `huggingface-cli login` (or `hf auth login`), or set HF_TOKEN."


def check_repository(repo: str) -> None:
    """Raises `UsageError` where a name can be no repository, or nobody is logged in."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError:
        raise UsageError(
            f"--push-to-hub: {repo!r} names no repository", "Say OWNER/NAME."
        ) from None
    if "/" not in repo:
        raise UsageError(f"--push-to-hub: {repo!r} names no owner", "Say OWNER/NAME.")
    if hub.client().get_token() is None:
        raise UsageError("--push-to-hub: the hub takes files of nobody without a token", _LOGIN)


def push_folder(folder: Path, repo: str, *, private: bool = False, existing: bool = False) -> str:
    """Uploads all files of a folder as one commit; the commit's address.

    existing: the repository may be there already. private: of one that is not.

    Raises:
        UsageError: nobody is logged in, the hub refuses, or the repository is there.
        ModelUnavailable: the hub cannot be reached.
    """
    from huggingface_hub.errors import HfHubHTTPError

    check_repository(repo)
    place = hub.HubRepository(
        repo, repo, keys=("the id", "the revision"), instead="OUT alone", holds="SAE"
    )
    api = hub.client().HfApi()
    refusal: UsageError | None = None
    with hub.hub_errors(place):
        try:
            api.create_repo(repo, private=private, exist_ok=existing)
            found = api.upload_folder(
                repo_id=repo, folder_path=folder, commit_message="Add a sparse autoencoder"
            )
        except HfHubHTTPError as error:
            refusal = _refused(repo, getattr(error.response, "status_code", None))
    if refusal is not None:
        raise refusal
    return str(found.commit_url)


def _refused(repo: str, status: int | None) -> UsageError:
    """What the hub's refusal means."""
    if status == 409:
        return UsageError(
            f"--push-to-hub: the repository {repo} exists already",
            "Take another name, or add a commit to it with --existing.",
        )
    if status == 401:
        return UsageError("--push-to-hub: the hub does not know the token", _LOGIN)
    if status == 403:
        return UsageError(
            f"--push-to-hub: the token may not write to {repo}",
            "Take a token with the right to write, or a repository of your own.",
        )
    return UsageError(f"--push-to-hub: the hub answered {status} for {repo}", "Try again later.")
