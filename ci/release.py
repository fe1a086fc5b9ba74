"""Whether a tag may become a release: it names the version that would be published.

    python ci/release.py v0.1.0

The version stands in pyproject.toml alone. Exit code 1, with the reason, where the tag is not `v`
and that version, or the changelog has no dated section for it (`## 0.1.0, 2026-01-31`). Run by the
release workflow before anything is installed: the standard library has to do.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def refusal(tag: str, root: Path = ROOT) -> str | None:
    """Why this checkout may not be released under the tag; None where it may."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    version = project["version"]
    if tag != f"v{version}":
        return f"the tag is {tag}, and pyproject.toml has version {version}: it wants v{version}"
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    if not re.search(rf"^## {re.escape(version)}, \d{{4}}-\d\d-\d\d\b", changelog, re.MULTILINE):
        return f'CHANGELOG.md has no section "## {version}, YYYY-MM-DD"'
    return None


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python ci/release.py TAG", file=sys.stderr)
        return 2
    reason = refusal(arguments[0])
    if reason:
        print(f"not released: {reason}", file=sys.stderr)
    return 1 if reason else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
