"""Blocks as tasks of a Ray cluster; the records come back to the process that asked.

The cluster is the one that `RAY_ADDRESS` names, else one on this machine. Checkpoints and trained
SAEs are files: machines share them by an output at a URL, or by a shared folder.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path

from bench.plan.blocks import Block
from bench.records.schema import Record
from bench.runner.engines import longest_first
from bench.runner.engines.local import LocalEngine
from bench.runner.settings import BlockListener, NoProgress, Settings
from zoo.errors import OutputError, UsageError, WorkerFailed
from zoo.install import install_line

_SECONDS = 10
_ADDRESS_REMEDY = "Set RAY_ADDRESS to HOST:PORT of a cluster, or unset it for one on this machine."


# How often a task is tried again whose process or machine was lost.
_RETRIES = 2


class RayEngine(LocalEngine):
    """One task per block; a task on a GPU has one to itself, one on CPUs a core.

    A task also asks for the memory that the plan says its block takes. One whose process or machine
    is lost is tried again, and goes on from its checkpoint where it finds that.
    """

    def __init__(self) -> None:
        try:
            import ray
        except ImportError:
            raise UsageError("Ray is not installed", install_line("ray")) from None
        check_address(os.environ.get("RAY_ADDRESS", ""))
        try:
            ray.init(ignore_reinit_error=True, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UsageError(
                f"Ray cannot be reached or started ({_first_line(error)})", _ADDRESS_REMEDY
            ) from None

    def records(
        self, blocks: Sequence[Block], settings: Settings, progress: BlockListener
    ) -> Generator[Record, None, None]:
        """The records as blocks come back; the longest begin first."""
        import ray

        from bench.runner.block import block_steps, failed_records

        needs = {"num_gpus": 1} if settings.device.startswith("cuda") else {"num_cpus": 1}
        task = ray.remote(max_retries=_RETRIES, **needs)(_measure)
        settings = _everywhere(settings)
        most = max((node["Resources"].get("memory", 0) for node in ray.nodes()), default=0)
        running = {}
        for block in longest_first(blocks, settings.device):
            # More than any machine has would be waited for without end.
            memory = int(min(block.memory, most))
            running[task.options(memory=memory).remote(block, settings)] = block
        try:
            while running:
                (ready,), _ = ray.wait(list(running), num_returns=1)
                block = running.pop(ready)
                try:
                    found = ray.get(ready)
                    if isinstance(found, OutputError):
                        raise found
                    yield from found
                except ray.exceptions.RayError as error:
                    reason = _reason(error)
                    message = f"the task that measured {block.card.id} failed ({reason})"
                    lost = WorkerFailed(message, "Run again with --failed.")
                    yield from failed_records(block, lost)
                progress.begin(block).advance(block_steps(block))
        finally:
            for left in running:
                ray.cancel(left, force=True)

    def finish(self) -> None:
        """Leaves the cluster, or ends the one on this machine."""
        import ray

        ray.shutdown()


def check_address(address: str) -> None:
    """Raises `UsageError` where nobody listens at an address of a Ray cluster within 10 seconds.

    Ray itself tries for minutes. Addresses without a port (`auto`, `local`) are left to Ray.
    """
    if address in ("", "auto", "local"):
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (colon and host and port.isdecimal() and 0 < int(port[:6]) < 65536):
        raise UsageError(f"RAY_ADDRESS is {address[:100]!r}, which is no address", _ADDRESS_REMEDY)
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS).close()
    except (OSError, UnicodeError) as error:
        raise UsageError(
            f"RAY_ADDRESS is {address!r}: nobody answers there within {_SECONDS} seconds "
            f"({_first_line(error)})",
            _ADDRESS_REMEDY,
        ) from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]


def _everywhere(settings: Settings) -> Settings:
    """A task runs in a folder of its own."""

    def absolute(path: Path | None) -> Path | None:
        return None if path is None else path.resolve()

    return replace(
        settings,
        states=absolute(settings.states),
        saes=absolute(settings.saes),
        cache=absolute(settings.cache),
        profile=absolute(settings.profile),
    )


def _reason(error: Exception) -> str:
    """What went wrong in a task, in a line, without Ray's traceback and colours."""
    cause = getattr(error, "cause", None)
    lines = str(error).split() if cause is None else [f"{type(cause).__name__}:", str(cause)]
    return " ".join(lines)[:300]


def _measure(block: Block, settings: Settings) -> list[Record] | OutputError:
    """The block's records; an output folder that cannot be written ends the run, not the block."""
    import torch

    from bench.runner.measure import measure

    if not settings.device.startswith("cuda"):
        torch.set_num_threads(1)
    try:
        return list(measure(block, settings, NoProgress()))
    except OutputError as error:
        return error
