"""One run at a time on an output folder. Commands that only read are not kept out.

The lock is a file that names its owner (process and host) and that the owner touches every few
seconds. It needs nothing of the file system but that a file is created by one process alone, so it
holds between the machines of a cluster too. An owner that was killed loses it: at once to a
process of its machine, which sees that it is gone, and to others as soon as they have seen the file
untouched for `LEASE` seconds of their own clock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import OutputError

if TYPE_CHECKING:
    from filelock import SoftFileLease

NAME = ".run.lock"

# Seconds after which an untouched lock has no owner any more, and between two touches.
LEASE = 30.0
TOUCH = 2.0

_Notify = Callable[[str], None]


class OutputLock:
    """The lock that this process holds on an output folder."""

    def __init__(self, output: Path, lease: SoftFileLease, notify: _Notify) -> None:
        self._output = output
        self._lease = lease
        self._notify = notify

    def check(self) -> None:
        """To be called before writing: takes the lock again where it was lost.

        It is where the folder was removed, or could not be reached for a while.

        Raises:
            OutputError: another run has it now.
        """
        if self._lease.compromise is not None:
            self._lease.release(force=True)
            _take(self._output, self._lease, self._notify)


@contextmanager
def lock_output(output: Path, notify: _Notify) -> Iterator[OutputLock]:
    """While this holds, no other run writes to the output folder.

    Where there is an owner, this waits until it has touched the lock or has lost it.

    Raises:
        OutputError: another run holds the folder, or it cannot be written to.
    """
    from filelock import SoftFileLease

    lease = SoftFileLease(output / NAME, lease_duration=LEASE, heartbeat_interval=TOUCH)
    _take(output, lease, notify)
    try:
        yield OutputLock(output, lease, notify)
    finally:
        lease.release(force=True)


def _take(output: Path, lease: SoftFileLease, notify: _Notify) -> None:
    from filelock import LeaseSettingsMismatch

    who = "of another version of gammabench"
    try:
        output.mkdir(parents=True, exist_ok=True)
        if _taken(lease, seconds=0):
            return
        owner, touched = lease.owner, _touched(lease)
        who = f"process {owner.pid} on {owner.hostname}" if owner else "it has just begun"
        notify(f"{output} is locked by another run ({who}); waits to see whether that still runs")
        while _touched(lease) == touched:
            if _taken(lease, seconds=TOUCH / 5):
                return
    except LeaseSettingsMismatch:
        pass
    except OSError as error:
        raise OutputError(
            f"cannot write to {output} ({error.strerror or error})",
            "Give a folder that can be written to as --output DIR.",
        ) from None
    raise OutputError(
        f"{output} is in use by another run ({who})",
        f"Wait until it has ended, or give another folder as --output DIR. {NAME} in it may be "
        "removed where no run is left.",
    )


def _taken(lease: SoftFileLease, *, seconds: float) -> bool:
    from filelock import Timeout

    try:
        lease.acquire(timeout=seconds)
    except Timeout:
        return False
    return True


def _touched(lease: SoftFileLease) -> tuple[int, int]:
    """Other after each touch, and after each change of the owner."""
    try:
        found = os.stat(lease.lock_file)
    except FileNotFoundError:
        return 0, 0
    return found.st_ino, found.st_mtime_ns
