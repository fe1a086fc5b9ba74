"""An interrupt ends a command in one line and with 130, from its first import on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends a signal as a terminal would")

SAID = "bench: interrupted; run the same command again to go on\n"

# `bench list`, where the first import of a module meets an interrupt.
AT_IMPORT = """
import os, signal, sys
class Interrupter:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupter())
sys.argv = ["/somewhere/bin/bench", "list"]
from gammabench import main
main()
"""

# An interrupt that is swallowed, or that ends in another error, within the command.
WITHIN = """
import os, signal, time
from bench.cli import main
class Swallows:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
def run_cli(arguments):
    {body}
main.run_cli = run_cli
main.main([])
"""
ANOTHER = "try: os.kill(os.getpid(), signal.SIGINT)\n    except KeyboardInterrupt: raise ValueError"


def run(code: str, **options: object) -> tuple[int, str]:
    here = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=here, capture_output=True, text=True, **options)
    return done.returncode, done.stderr.lstrip()  # click ends the line that was interrupted


@pytest.mark.parametrize("module", ["bench.cli.main", "click", "bench.cli.list", "zoo.registry"])
def test_an_interrupt_while_modules_are_imported_is_no_traceback(module: str) -> None:
    assert run(AT_IMPORT.format(module=module)) == (130, SAID)


@pytest.mark.parametrize("body", ["Swallows(); time.sleep(5)", ANOTHER], ids=["swallowed", "other"])
def test_an_interrupt_that_a_library_changes_is_still_one(body: str) -> None:
    assert run(WITHIN.format(body=body)) == (130, SAID)


def test_an_error_without_an_interrupt_is_told() -> None:
    code, err = run(WITHIN.format(body="raise ValueError('odd')"))
    assert code == 1
    assert "ValueError: odd" in err


def test_a_command_that_was_started_to_ignore_interrupts_goes_on() -> None:
    def ignore() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    code, err = run(AT_IMPORT.format(module="click"), preexec_fn=ignore)
    assert (code, err) == (0, "")


def test_a_program_that_imports_the_package_keeps_its_own_interrupts() -> None:
    code = "import signal, gammabench; print(signal.getsignal(signal.SIGINT))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "default_int_handler" in done.stdout
