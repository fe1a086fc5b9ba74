"""The file names of pages: safe whatever a model or domain is called."""

from __future__ import annotations

import re

from zoo.cards import DOMAINS
from zoo.files import content_hash

# Names that are files on every system; Windows keeps some for devices, whatever their suffix.
_SAFE_NAME = re.compile(
    r"(?!(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$))[a-z0-9][a-z0-9._-]{0,99}",
)


# The page of remedies.
CURES = "cures.md"

# The page of SAEs that others have trained.
PUBLISHED_SAES = "published-saes.md"


def domain_page(domain: str) -> str:
    """The file name of a domain's page."""
    return f"{domain if domain in DOMAINS else _hashed(domain)}.md"


def model_page(model: str) -> str:
    """The file name of a model's page, below `models/`: safe whatever the model is called."""
    return f"{model if _SAFE_NAME.fullmatch(model) else _hashed(model)}.md"


def _hashed(name: str) -> str:
    readable = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40]
    return f"{readable or 'unnamed'}~{content_hash(name)[:8]}"
