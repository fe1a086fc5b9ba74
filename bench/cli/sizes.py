"""Large numbers and times, for a reader and by a user."""

from __future__ import annotations

import re
from typing import Any

import click

from zoo.counts import read_count


def decimal_size(count: int) -> str:
    """Bytes for a reader, in decimal units as the hub shows them."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} bytes"


def short(count: int) -> str:
    """124439808 as 124M."""
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= 0.9995 * size:  # 999.6M would be 1e+03M
            return f"{count / size:.3g}{letter}"
    return str(count)


def ranges(numbers: list[int]) -> str:
    """Sorted numbers in short: [0, 1, 2, 5] is `0-2, 5`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{r[0]}-{r[-1]}" if len(r) > 1 else str(r[0]) for r in runs)


_DURATION = re.compile(
    r"((?P<days>[0-9]{1,6}(\.[0-9]{1,6})?)d)?((?P<hours>[0-9]{1,6}(\.[0-9]{1,6})?)h)?"
    r"((?P<minutes>[0-9]{1,6}(\.[0-9]{1,6})?)m)?((?P<seconds>[0-9]{1,6}(\.[0-9]{1,6})?)s)?",
    re.ASCII | re.IGNORECASE,
)
_SECONDS = {"days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}


def read_duration(text: str) -> float | None:
    """Seconds of `24h`, `90m`, `2h30m`, `1.5d`; None where the text says none, or nothing."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        return None
    parts = found.groupdict()
    total = sum(seconds * float(parts[unit] or 0) for unit, seconds in _SECONDS.items())
    return total or None


def power_of_ten(count: float) -> str:
    """1.2e18, as operations are written; nothing where there are none."""
    return f"{count:.1e}".replace("e+", "e") if count else ""


class WholeNumber(click.ParamType):
    """A whole number as people write it: 4096, 4k, 2e5, 1.5M, 100_000."""

    name = "number"

    def __init__(self, smallest: int, largest: int | None = None) -> None:
        self.smallest, self.largest = smallest, largest

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Raises click's `BadParameter` where the text is no such number."""
        count = value if isinstance(value, int) else read_count(str(value))
        if count is None:
            self.fail(f"{value!r} is not a whole number, such as 4096, 4k or 2e5.", param, ctx)
        if count < self.smallest or (self.largest is not None and count > self.largest):
            limits = f"at least {self.smallest:,}"
            if self.largest is not None:
                limits += f" and at most {self.largest:,}"
            self.fail(f"{value!r} is out of range: {limits}.", param, ctx)
        return count


class Duration(click.ParamType):
    """A time as people write it: 24h, 90m, 2h30m, 1.5d; in seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Raises click's `BadParameter` where the text is no such time."""
        seconds = value if isinstance(value, float) else read_duration(str(value))
        if seconds is None:
            self.fail(f"{value!r} is not a time, such as 24h, 90m or 2h30m.", param, ctx)
        return seconds
