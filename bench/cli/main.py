"""The command line: `bench COMMAND`. Thin and light: a command is imported when it runs."""

from __future__ import annotations

import gc
import io
import logging
import os
import sys
import traceback
from contextlib import suppress
from pkgutil import resolve_name
from typing import NamedTuple

import click

from bench.runner import interrupts
from bench.runner.interrupts import hear_interrupts, interrupt_on_terminate
from gammabench import INTERRUPTED_LINE
from zoo.errors import BenchError, ModelError, Unavailable, one_line

_log = logging.getLogger(__name__)


class Command(NamedTuple):
    """One line of help, and where the command is: `module:attribute`."""

    help: str
    where: str


# A command's module is imported when it runs, and `bench --help` imports none of them.
COMMANDS = {
    "list": Command("Models, layers, domains and suites.", "bench.cli.list:command"),
    "plan": Command(
        "What a run would do, what is done, and what is missing.", "bench.cli.plan:command"
    ),
    "run": Command("Measure models and write their leaderboard.", "bench.cli.run:command"),
    "status": Command("What an output folder holds.", "bench.cli.status:command"),
    "report": Command(
        "Write the leaderboards from the records.", "leaderboard.commands.report:command"
    ),
    "diagnose": Command(
        "Will an SAE die on the activations in a file?", "bench.cli.diagnose:command"
    ),
    "compare": Command("Two output folders side by side.", "leaderboard.commands.compare:command"),
    "compare-paper": Command(
        "Records beside the published tables.", "leaderboard.commands.compare_paper:command"
    ),
    "convert": Command(
        "A trained SAE in the files of another library.", "bench.cli.convert:command"
    ),
    "export": Command("All cells as one table.", "leaderboard.commands.export:command"),
    "check": Command(
        "Conformance of a model's adapter and card, on a little data.", "bench.cli.check:command"
    ),
    "card": Command("Write the card of a checkpoint that has none.", "bench.cli.card:command"),
    "fetch": Command(
        "Download checkpoints ahead, for machines without network.", "bench.cli.fetch:command"
    ),
    "manifest": Command(
        "Make a folder of activations a model, or check it.", "bench.cli.manifest:command"
    ),
    "show": Command("A model's card and its results.", "leaderboard.commands.show:command"),
    "protocol": Command("Protocols: their keys, values and meaning.", "bench.cli.protocol:command"),
    "validate": Command("Check cards, protocols and records.", "bench.cli.validate:command"),
}

INTERRUPTED = 130


def _set_level(ctx: click.Context, param: click.Parameter, verbose: int) -> None:
    if ctx.parent is not None and not verbose:
        return
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=level, stream=sys.stderr, format="%(name)s: %(message)s", force=True)


verbose_option = click.option(
    "-v",
    "--verbose",
    count=True,
    expose_value=False,
    callback=_set_level,
    help="Say more on stderr; twice for everything.",
)


class LazyGroup(click.Group):
    """The commands of `COMMANDS`, imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = resolve_name(COMMANDS[cmd_name].where)
        # `bench -v run` and `bench run -v` mean the same.
        if not any(param.name == "verbose" for param in command.params):
            verbose_option(command)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]):
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from zoo.errors import UnknownName

            raise UnknownName("command", args[0], COMMANDS, "`bench --help` names them all.")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help) for name, command in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gammabench", prog_name="bench")
@verbose_option
def cli() -> None:
    """Will a sparse autoencoder die on this model's activations, why, and what cures it?

    `bench run` measures the embedded suite; `bench run --domain protein` a part of it.

    Exit codes: 0 all done, 1 some cells failed, 2 usage or bad input, 130 interrupted.
    """


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line and exits with its code."""
    try:
        hear_interrupts()
        code = run_cli(arguments)
    except BaseException:
        # A library that is interrupted may say so by an error of its own.
        if not interrupts.heard:
            raise
        code = _interrupted()
    # `python -m` ends by SIGINT, whatever the code, where the last text that was run as code was
    # interrupted, as the text that makes a dataclass of an import may be.
    exec("")  # noqa: S102
    # A last look for garbage among all that torch has made would take a second.
    gc.freeze()
    sys.exit(code)


def run_cli(arguments: list[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    # Idle threads of torch's pool sleep instead of spinning. On a quiet machine it makes no
    # difference; beside one other busy process it made a run six times faster. Read when torch is
    # imported, which is later.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        given = sys.argv[1:] if arguments is None else arguments
        with interrupt_on_terminate():
            result = cli.main(args=arguments, prog_name="bench", standalone_mode=False, obj=given)
        if sys.stdout is not None:  # as it is where it was closed
            sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except BenchError as error:
        from bench.records.mirror import as_shown

        click.echo(f"bench: {as_shown(error)}", err=True)
        # What is not there says nothing about a model; a run that can measure nothing gives 2 too.
        return 1 if isinstance(error, ModelError) and not isinstance(error, Unavailable) else 2
    except click.Abort:
        return _interrupted()
    except click.ClickException as error:
        if isinstance(error, click.exceptions.NoArgsIsHelpError):
            error.show()
        else:
            click.echo(f"bench: {one_line(error.format_message())}", err=True)
        return 2
    except BrokenPipeError:
        # The reader of stdout went away; Python must not complain about it when it exits.
        _discard_output()
        return 1
    except OSError as error:
        _log.debug("failed", exc_info=True)
        said = one_line(str(error))
        if _is_of_output(error):
            reason = error.strerror or error
            said = f"cannot write the standard output ({reason}). Send it to another place"
        click.echo(f"bench: {said}", err=True)
        _discard_output()
        return 2


def _interrupted() -> int:
    click.echo(INTERRUPTED_LINE, err=True)
    return INTERRUPTED


def _is_of_output(error: OSError) -> bool:
    """Whether it came of writing to stdout: such an error names no file."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return error.filename is None and frame.f_globals["__name__"] in ("click.utils", __name__)


def _discard_output() -> None:
    """What is still to be written to stdout goes nowhere, without a complaint at exit."""
    # Where stdout was closed, or is caught in memory, nothing is left to complain.
    if sys.stdout is not None:
        with suppress(io.UnsupportedOperation):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
