"""Signals: a run stops at the end of a step, or at once when it is asked again."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# Whether this process was asked to stop while something here listened.
heard = False


class Interruption:
    """Whether a signal has asked to stop."""

    asked = False


@contextmanager
def interruptible(notify: Callable[[str], None]) -> Iterator[Interruption]:
    """While this holds, the first SIGINT or SIGTERM asks to stop; a second one stops at once.

    Only in the main thread of a process: elsewhere signals belong to others.
    """
    found = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield found
        return

    def ask(number: int, frame: Any) -> None:
        global heard
        heard = True
        if found.asked:
            raise KeyboardInterrupt
        found.asked = True
        notify("stopping after this step, with a checkpoint; interrupt again to stop at once")

    # A signal that this process ignores is for the one that started it.
    handled = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, ask) for number in handled}
    try:
        yield found
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interrupt_on_terminate() -> Iterator[None]:
    """While this holds, SIGTERM does what Ctrl-C does: files are left whole, the exit code is 130.

    Only in the main thread of a process: elsewhere signals belong to others.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: Any) -> None:
        global heard
        heard = True
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def end_with_parent() -> None:
    """From now on this process ends when the one that started it does.

    A parent that is killed cannot say stop, and a worker may have nothing to say for minutes.
    """
    import multiprocessing

    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
