"""The command that installs an extra, for this copy of gammabench as it came onto the machine."""

from __future__ import annotations

import functools
import json
import re
import shlex
import tomllib
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

DISTRIBUTION = "gammabench"

# Where the rooms lie: a checkout, or a folder of installed packages.
ROOT = Path(__file__).resolve().parents[1]


def install_line(extra: str | None = None) -> str:
    """The command that brings what is missing: an extra, or without one a base dependency.

    In a checkout it installs the checkout, whichever folder the command is typed in. A copy that
    was installed from a URL is installed from there again, at the same commit. Otherwise the copy
    came from a package index, where its name is enough.
    """
    brackets = f"[{extra}]" if extra else ""
    if _is_checkout(ROOT):
        return f"pip install -e {_quoted(f'{_from_here(ROOT)}{brackets}')}"
    wanted, url = f"{DISTRIBUTION}{brackets}", _origin()
    return f"pip install {_quoted(f'{wanted} @ {url}' if url else wanted)}"


@functools.cache
def _is_checkout(folder: Path) -> bool:
    """Whether the folder has this project's pyproject.toml, which no wheel holds."""
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(project.get("project", {}).get("name") == DISTRIBUTION)


def _from_here(folder: Path) -> str:
    try:
        return "." if Path.cwd() == folder else str(folder)
    except FileNotFoundError:  # the working folder was deleted
        return str(folder)


def _origin() -> str | None:
    """The URL that the installed copy came from, as pip takes it after `@` (PEP 610, PEP 508).

    None where it came from an index, or from a file or folder that is no longer there.
    """
    # Beside the code: elsewhere on the path there may be the metadata of another copy.
    found = next(iter(metadata.distributions(name=DISTRIBUTION, path=[str(ROOT)])), None)
    text = found and found.read_text("direct_url.json")
    if not text:
        return None
    origin = json.loads(text)
    url = str(origin["url"])
    parts = urlsplit(url)
    if parts.scheme == "file" and not Path(url2pathname(parts.path)).exists():
        return None
    if vcs := origin.get("vcs_info"):
        url = f"{vcs['vcs']}+{url}@{vcs['commit_id']}"
    return f"{url}#subdirectory={origin['subdirectory']}" if "subdirectory" in origin else url


def _quoted(text: str) -> str:
    """For a shell: in double quotes, which every system's shell understands, where they suffice."""
    if re.fullmatch(r"[\w./-]+", text):
        return text
    return shlex.quote(text) if re.search(r'["$`!]', text) else f'"{text}"'
