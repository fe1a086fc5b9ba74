"""Items taken or made ahead of their consumer, in threads and bounded."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")

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


def mapped(
    function: Callable[[In], Out],
    items: Iterable[In],
    *,
    workers: int,
    room: int,
    size: Callable[[Out], int],
) -> Generator[Out, None, None]:
    """function(item) of each item, in order; with workers, threads are at work on the next ones.

    The first is made before there are threads, so that what is set up on first use is set up once.
    Errors come where they would without workers.

    Args:
        workers: threads; 0 makes each where it is asked for.
        room: the sum of `size` of what is ready and of what is under way, which is taken to be as
            large as the last one was.
    """
    # Threads: what takes time here (tokenizers in Rust, Pillow, files, the net) lets go of the
    # interpreter's lock. Processor time of a JPEG of 400 x 320, on two busy cores: 1.5 ms in two
    # threads, 3.8 ms in two processes, which copy it back; of 4,000 letters by a tokenizer in Rust:
    # 3.1 ms in 0, 2 and 4 threads, 4.2 ms in a process.
    if not workers:
        yield from map(function, items)
        return
    source = iter(items)
    waiting: deque[Future[Out]] = deque()
    for item in source:
        last = function(item)
        yield last
        break
    else:
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="ahead") as pool:
        try:
            more = True
            while True:
                typical = max(1, size(last))
                while more and (not waiting or _held(waiting, size, typical) < room):
                    more = _take(source, waiting, lambda item: pool.submit(function, item))
                if not waiting:
                    return
                last = waiting.popleft().result()
                yield last
        finally:
            for future in waiting:
                future.cancel()


def _take(
    source: Iterator[In], waiting: deque[Future[Out]], submit: Callable[[In], Future[Out]]
) -> bool:
    """Submits the next item; False if there is none. An error waits for its turn."""
    try:
        item = next(source)
    except StopIteration:
        return False
    except Exception as error:
        failed: Future[Out] = Future()
        failed.set_exception(error)
        waiting.append(failed)
        return False
    waiting.append(submit(item))
    return True


def _held(waiting: Iterable[Future[Out]], size: Callable[[Out], int], typical: int) -> int:
    ready = (future.done() and future.exception() is None for future in waiting)
    return sum(
        max(1, size(future.result())) if is_ready else typical
        for future, is_ready in zip(waiting, ready, strict=True)
    )
