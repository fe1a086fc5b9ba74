"""Items taken ahead of their consumer, in a thread and bounded."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import Any, TypeVar

In = TypeVar("In")

# How often a thread that waits for room looks whether it is still wanted, in seconds.
_LOOK = 0.05


def prefetched(items: Iterable[In], size: int = 1) -> Generator[In, None, None]:
    """The items, of which a thread takes up to `size` ahead. Errors come where they are met."""
    found: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=size)
    ended = threading.Event()

    def put(what: str, value: Any) -> bool:
        while not ended.is_set():
            try:
                found.put((what, value), timeout=_LOOK)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put("item", item):
                    return
            put("end", None)
        except BaseException as error:  # told to who takes the items
            put("error", error)

    thread = threading.Thread(target=work, name="read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            what, value = found.get()
            if what == "end":
                return
            if what == "error":
                raise value
            yield value
    finally:
        ended.set()
        thread.join()
