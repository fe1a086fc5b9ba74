"""Signals: a run stops at the end of a step, or at once when it is asked again."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
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


def _interrupt(number: int, frame: Any) -> None:
    global heard
    heard = True
    raise KeyboardInterrupt


@contextmanager
def interrupt_on_terminate() -> Iterator[None]:
    """While this holds, SIGTERM does what Ctrl-C does: files are left whole, the exit code is 130.

    Only in the main thread of a process: elsewhere signals belong to others.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def hear_interrupts() -> None:
    """From now on SIGINT interrupts this process, unless it was started to ignore it.

    A library may swallow the interrupt, as one in compiled code that makes a class does, and go on
    with half of it: Python says that it ignored it, and here it is raised again.
    """
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, _interrupt)
    before = sys.unraisablehook

    def again(ignored: Any) -> None:
        if issubclass(ignored.exc_type, KeyboardInterrupt):
            # By another thread, as it would be raised in here, and be ignored too.
            _thread.start_new_thread(_interrupt_soon, ())
        else:
            before(ignored)

    sys.unraisablehook = again


def _interrupt_soon() -> None:
    time.sleep(0.01)
    _thread.interrupt_main()


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
