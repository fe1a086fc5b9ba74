"""The type of options and arguments that name an output folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


class OutputPlace(click.ParamType):
    """An output folder of this machine, or one at a URL, of which it gives a working folder.

    files: whether it may be a file too.
    """

    name = "directory"

    def __init__(self, *, files: bool = False) -> None:
        self._path = click.Path(file_okay=files, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The folder. Raises `OutputError` where a URL cannot be read."""
        from bench.records.mirror import open_output

        if isinstance(value, Path) or "://" not in value:
            return self._path.convert(value, param, ctx)
        return open_output(value)
