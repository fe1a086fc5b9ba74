"""The progress of a run in a notebook: one bar that fills, by tqdm."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Seconds between two looks at the run.
_EVERY = 0.5


def in_notebook() -> bool:
    """Whether this is the kernel of a notebook, and not a terminal that runs IPython."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


@contextmanager
def notebook_bar(progress: Any) -> Iterator[None]:
    """While this holds, a bar shows which share of a `RunProgress` is done, and what it says."""
    with warnings.catch_warnings():
        # Without ipywidgets it is a bar of text, which is as good.
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm

        bar = tqdm(total=100, desc="bench run", bar_format="{l_bar}{bar}| {postfix}")
    over = threading.Event()

    def show() -> None:
        bar.n = round(100 * progress.share)
        bar.set_postfix_str(progress.summary)

    def follow() -> None:
        while not over.wait(_EVERY):
            show()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        show()
        bar.close()
