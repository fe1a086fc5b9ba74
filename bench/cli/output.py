"""The type of options and arguments that name an output folder, and how wide text is printed."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import click

from zoo.errors import UsageError

# Stores that fsspec knows and that live in the memory of this process.
LOST_WITH_THE_PROCESS = ("memory://",)


# Columns of sentences in a file or a pipe, and the most and the fewest in a terminal.
_WIDEST, _NARROWEST = 100, 20


def text_width() -> int:
    """Columns that sentences on stdout take at most."""
    if sys.stdout is None or not sys.stdout.isatty():
        return _WIDEST
    return min(_WIDEST, max(_NARROWEST, shutil.get_terminal_size().columns))


class OutputPlace(click.ParamType):
    """An output folder of this machine, or one at a URL, of which it gives a working folder.

    files: whether it may be a file too.
    """

    name = "directory"

    def __init__(self, *, files: bool = False) -> None:
        self._path = click.Path(file_okay=files, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The folder.

        Raises:
            OutputError: a URL cannot be read.
            UsageError: nothing that is written there lasts.
        """
        from bench.records.mirror import open_output

        if isinstance(value, Path) or "://" not in value:
            return self._path.convert(value, param, ctx)
        if value.startswith(LOST_WITH_THE_PROCESS):
            raise UsageError(
                f"--output {value}: what is written there is lost when this command ends",
                "Give a folder, or a URL of a bucket such as s3://BUCKET/FOLDER.",
            )
        return open_output(value)
