"""The command line itself: help, completion, verbosity, progress, streams."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.cli.main import COMMANDS, cli

Bench = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_of_its_own(bench: Bench, name: str) -> None:
    code, out, _ = bench(name, "--help")
    assert code == 0
    assert f"Usage: bench {name}" in out
    command = cli.get_command(None, name)  # type: ignore[arg-type]
    assert command is not None
    assert command.help
    for param in command.params:
        if param.param_type_name == "option":
            assert param.help, f"{name} {param.opts} has no help"  # type: ignore[attr-defined]


def test_help_names_every_command(bench: Bench) -> None:
    _, out, _ = bench("--help")
    for name, line in COMMANDS.items():
        assert name in out
        assert line.help in out


def test_an_unknown_command_is_answered_with_a_near_one(bench: Bench) -> None:
    code, _, err = bench("rnu")
    assert code == 2
    assert err == "bench: unknown command 'rnu'. Did you mean run?\n"


@pytest.mark.parametrize("command", ["plan", "check", "card", "run"])
def test_a_model_that_is_not_there_is_bad_input(bench: Bench, command: str) -> None:
    code, out, err = bench(command, "hf-causal:no/such")
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_the_version_is_the_distributions(bench: Bench) -> None:
    from importlib.metadata import version

    import gammabench

    assert version("gammabench") in bench("--version")[1]
    assert gammabench.__version__ == version("gammabench")


def test_list_is_machine_readable(bench: Bench) -> None:
    document = json.loads(bench("list", "--json")[1])
    rows = {row["id"]: row for row in document["models"]}
    assert rows["tiny-gpt2"]["layers"] == 4
    assert rows["tiny-gpt2"]["state"] == "ready"
    assert "tiny-gpt2" in document["suites"]["embedded"]


def test_shell_completion_knows_models_and_domains(tmp_path: Path) -> None:
    def complete(words: str) -> set[str]:
        environment = os.environ | {
            "_BENCH_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        }
        done = subprocess.run(
            [sys.executable, "-m", "bench"],
            env=environment,
            capture_output=True,
            text=True,
        )
        return {line.partition(",")[2] for line in done.stdout.splitlines()}

    assert "tiny-gpt2" in complete("bench run --model tiny-g")
    assert complete("bench run --domain prot") == {"protein"}
    assert complete("bench run --protocol pa") == {"paper"}
    assert "centered" in complete("bench run --arm cent")


def test_verbosity_may_stand_before_or_after_the_command(bench: Bench) -> None:
    import logging

    for words in (["-vv", "list"], ["list", "-vv"]):
        assert bench(*words)[0] == 0
        assert logging.getLogger().level == logging.DEBUG
        bench("list")
        assert logging.getLogger().level == logging.WARNING


def test_without_a_terminal_progress_is_a_line_at_once_and_one_per_block(
    bench: Bench,
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    seen: list[str] = []

    def device(name: str) -> str:
        seen.append(capsys.readouterr().err)
        return "cpu"

    # Before torch is asked for a device, and so before any model is loaded.
    monkeypatch.setattr("bench.cli.run.pick_device", device)
    _, _, err = bench("run", *arguments)
    assert seen[0].startswith("bench: measures 6 cells of 1 model (made); about ")
    done = err.splitlines()
    assert len(done) == 1
    assert re.match(r"bench: made, 3 layers: done in \d+ s; born dead [\d.]+ % raw, ", done[0])
    assert "6 of 6 cells done" in done[0]
    assert bench("run", *arguments)[2] == ""  # nothing is left to do


def test_on_a_terminal_progress_is_on_stderr_and_results_on_stdout(
    bench: Bench,
    arguments: list[str],
) -> None:
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 100))
    shown = b""
    with open("out.txt", "w+", encoding="utf-8") as stdout:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench", "run", *arguments],
            stdout=stdout,
            stderr=follower,
        )
        os.close(follower)
        while part := _read(leader):
            shown += part
        os.close(leader)
        assert process.wait() == 0
        stdout.seek(0)
        out = stdout.read()
    assert b"tokens/s" in shown
    assert b"made" in shown
    assert "6 cells: 6 measured now" in out
    assert "tokens/s" not in out


@pytest.mark.parametrize("command", ["run", "show", "plan"])
def test_sentences_are_as_narrow_as_the_terminal(
    bench: Bench, arguments: list[str], command: str
) -> None:
    assert bench("run", *arguments)[0] == 0
    words = {"run": arguments, "show": ["made", "--cards", "cards"], "plan": ["synthetic"]}[command]
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 60))
    # Python's readline says another width behind the back of `os.environ`.
    here = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    process = subprocess.Popen(
        [sys.executable, "-m", "bench", command, *words], stdout=follower, env=here
    )
    os.close(follower)
    shown = b""
    while part := _read(leader):
        shown += part
    os.close(leader)
    assert process.wait() == 0
    lines = shown.decode().splitlines()
    sentences = [
        line
        for line in lines
        if re.search(r"means over|n 64|^In |operations|born|training steps", line)
    ]
    assert sentences
    assert max(map(len, sentences)) <= 60


def _read(terminal: int) -> bytes:
    """What the terminal shows next; nothing once its other end is closed."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    done = subprocess.run(
        f"{sys.executable} -m bench list --json | head -1",
        shell=True,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk is faked")
@pytest.mark.parametrize(
    ("redirection", "code", "says"),
    [
        (">&-", 0, ""),
        (
            "> /dev/full",
            2,
            "bench: cannot write the standard output (No space left on device). "
            "Send it to another place\n",
        ),
    ],
)
def test_a_closed_output_gives_no_traceback(redirection: str, code: int, says: str) -> None:
    command = f'"{sys.executable}" -m bench list {redirection}'
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (code, says)


def test_terminate_ends_any_command_as_an_interrupt_does(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(
        "bench.cli.list.command.callback", lambda **_: os.kill(os.getpid(), signal.SIGTERM)
    )
    assert bench("list")[0] == 130
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.skipif(os.name != "posix", reason="Python ends so by a signal of POSIX alone")
def test_an_interrupt_within_text_that_is_run_gives_its_exit_code_too(tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text(
        "from bench.cli import main\n"
        "def run_cli(arguments):\n"
        "    try: exec('raise KeyboardInterrupt')\n"
        "    except KeyboardInterrupt: return 130\n"
        "main.run_cli = run_cli\n"
        "main.main([])\n"
    )
    here = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    assert subprocess.run([sys.executable, "-m", "interrupted"], env=here).returncode == 130
