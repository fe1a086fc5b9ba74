"""Work done ahead of its consumer, in threads and bounded; the order is that of the input."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")

# How often a thread that waits for room looks whether it is still wanted, in seconds.
_LOOK = 0.05

# Items per worker that are under way or ready.
PER_WORKER = 8


def mapped(function: Callable[[In], Out], items: Iterable[In], workers: int) -> Iterator[Out]:
    """`map(function, items)`, worked out by so many threads ahead of who takes it.

    At most `PER_WORKER` items per worker are ahead. An error is raised where its item's turn
    comes. With 0 workers it is `map`.
    """
    if workers < 1:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="prepare")
    futures = prefetched((pool.submit(function, item) for item in items), PER_WORKER * workers)
    try:
        for future in futures:
            yield future.result()
    finally:
        futures.close()
        pool.shutdown(cancel_futures=True)


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
