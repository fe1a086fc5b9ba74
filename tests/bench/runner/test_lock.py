"""Two runs on one output folder: the second is told, and the lock of a dead owner is taken."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.runner import lock as lock_module
from bench.runner.checkpoints import saved_states
from bench.runner.lock import NAME, lock_output
from tests.made import write_made
from zoo.errors import OutputError

Bench = Callable[..., tuple[int, str, str]]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "LEASE", 0.6)
    monkeypatch.setattr(lock_module, "TOUCH", 0.05)


CELL = ["--cards", "cards", "--model", "made", "--layer", "0", "--arm", "raw", "--output", "out"]


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def foreign(folder: Path) -> Path:
    """A lock that a process of another machine has left."""
    with lock_output(folder, print):
        marker = (folder / NAME).read_text()
    name = next(line for line in marker.splitlines() if line.startswith("host="))
    (folder / NAME).write_text(marker.replace(name, "host=elsewhere"))
    return folder / NAME


def test_second_run_on_one_output_is_refused_in_words_and_the_first_goes_on(
    tmp_path: Path, bench: Bench, tiny: list[str]
) -> None:
    write_made(tmp_path / "cards", ["made"])
    endless = ["--set", "steps=1000000", "--checkpoint-every", "0.2"]
    first = subprocess.Popen(
        [sys.executable, "-m", "bench", "run", *CELL, *tiny, *endless],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: saved_states(tmp_path / "out" / "state"))
        code, _, err = bench("run", *CELL, *tiny)
        assert code == 2
        _, note, error = err.strip().splitlines()
        assert "waits to see" in note
        assert error.startswith("bench: out is in use by another run (process ")
        assert f"process {first.pid} on " in error
        assert "--output DIR" in error
        # Reading is allowed to everybody meanwhile.
        code, out, _ = bench("status", "--output", "out")
        assert "made" in out
        assert first.poll() is None
    finally:
        first.kill()
        first.communicate()
    # The lock of a killed run keeps nobody of the same machine waiting.
    assert (tmp_path / "out" / NAME).exists()
    code, _, err = bench("run", *CELL, *tiny)
    assert code == 0, err
    assert not (tmp_path / "out" / NAME).exists()


def test_owner_that_is_alive_elsewhere_is_waited_for_until_it_shows(
    tmp_path: Path, short: None
) -> None:
    path = foreign(tmp_path)
    done = threading.Event()

    def touch() -> None:
        while not done.wait(0.1):
            os.utime(path)

    owner = threading.Thread(target=touch)
    owner.start()
    notes: list[str] = []
    try:
        with (
            pytest.raises(OutputError, match=r"in use by another run .* on elsewhere"),
            lock_output(tmp_path, notes.append),
        ):
            pass
    finally:
        done.set()
        owner.join()
    assert "elsewhere" in notes[0]


def test_lock_of_an_owner_that_is_dead_elsewhere_is_taken_after_the_lease(
    tmp_path: Path, short: None
) -> None:
    foreign(tmp_path)
    began = time.monotonic()
    with lock_output(tmp_path, lambda text: None):
        assert time.monotonic() - began >= 0.5
    assert not (tmp_path / NAME).exists()


def test_run_whose_lock_was_taken_over_stops_before_it_writes(tmp_path: Path, short: None) -> None:
    with lock_output(tmp_path, lambda text: None) as lock:
        path = tmp_path / NAME
        marker = path.read_text()
        path.unlink()
        path.write_text(marker.replace("token=", "token=0"))
        threading.Event().wait(0.3)
        stop = threading.Event()

        def touch() -> None:
            while not stop.wait(0.05):
                os.utime(path)

        other = threading.Thread(target=touch)
        other.start()
        try:
            with pytest.raises(OutputError, match="in use by another run"):
                lock.check()
        finally:
            stop.set()
            other.join()
    assert path.exists(), "the other run's lock must stay"


def test_run_whose_folder_was_removed_takes_the_lock_again(tmp_path: Path, short: None) -> None:
    with lock_output(tmp_path / "out", lambda text: None) as lock:
        lock.check()
        (tmp_path / "out" / NAME).unlink()
        threading.Event().wait(0.3)
        lock.check()
        assert (tmp_path / "out" / NAME).exists()


def test_folder_that_cannot_be_made_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OutputError, match="cannot write to"),
        lock_output(tmp_path / "file" / "out", lambda text: None),
    ):
        pass
