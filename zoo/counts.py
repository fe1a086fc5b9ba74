"""Counts as people write them: `1k`, `2e5`, `1.5M`, `100_000`, `100,000`."""

from __future__ import annotations

import re
from decimal import Decimal

_COUNT = re.compile(
    r"(?P<number>[0-9]+([_,][0-9]{3})*(\.[0-9]+)?)(e\+?(?P<zeros>[0-9]{1,2}))?(?P<unit>[kmg]?)",
    re.ASCII | re.IGNORECASE,
)
_UNITS = {"": 0, "k": 3, "m": 6, "g": 9}

# Longer ones are no counts of anything here.
_MAX_CHARACTERS = 40


def read_count(text: str) -> int | None:
    """The whole number that the text says; None where it says none."""
    found = _COUNT.fullmatch(text.strip()) if len(text) <= _MAX_CHARACTERS else None
    if found is None:
        return None
    number = Decimal(re.sub("[_,]", "", found["number"]))
    value = number.scaleb(int(found["zeros"] or 0) + _UNITS[found["unit"].lower()])
    return int(value) if value == int(value) else None
