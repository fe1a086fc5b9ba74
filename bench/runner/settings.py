"""How a run is carried out: no part of what is measured, hence of no cell's name. No torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from bench.compute.row_shards import Processes
    from bench.plan.blocks import Block
    from bench.records.mirror import Mirror

# What a block is doing.
Phase = Literal["load", "sample", "train", "census"]


@dataclass(frozen=True)
class Settings:
    """Where a block runs and what it leaves besides its records.

    device: as torch names it.
    trust_remote_code: run code that comes with a checkpoint.
    states: folder of checkpoints to go on from; None keeps none.
    save_every: seconds between checkpoints.
    saes: folder for the trained SAEs, by the cells' hashes; None keeps none.
    cache: folder of stored activations; None reads and writes none.
    profile: folder for a table of where each block's time went, and a trace; None makes none.
    readers: threads that read, decode and tokenise ahead of the model, which then works ahead of
        the training too; None decides by the device.
    banks: SAEs of one shape step together where that is faster; else each by itself, so that the
        time of a step is its own. On a CPU no number depends on it.
    processes: that measure the block together, each with its part of the rows of every dictionary;
        None where this one has them whole. All of them have the block's records.
    mirror: the output folder at a URL, which the process that measures a block writes to; None
        where it is a folder of this machine.
    """

    device: str = "cpu"
    trust_remote_code: bool = False
    states: Path | None = None
    save_every: float = 60.0
    saes: Path | None = None
    cache: Path | None = None
    profile: Path | None = None
    readers: int | None = None
    banks: bool = True
    processes: Processes | None = None
    mirror: Mirror | None = None

    def readers_on(self, device: str) -> int:
        """How many readers there are: by default up to 4 beside a GPU; on a CPU none, as all its
        cores work for the model or the training anyway."""
        if self.readers is not None:
            return self.readers
        return 0 if device == "cpu" else min(4, max(1, (os.cpu_count() or 1) - 1))


class Progress(Protocol):
    """Receives the progress of a block."""

    def advance(self, steps: int) -> None:
        """`steps` more SAE training steps are done; fewer than 0 where some must be redone."""

    def note(self, text: str) -> None:
        """Something a user should know."""

    def phase(self, name: Phase) -> None:
        """What the block is doing now. Steps announced before `train` are a checkpoint's."""


class BlockListener(Protocol):
    """Receives the progress of a run: is told which blocks begin, and gives what hears of each."""

    def begin(self, block: Block) -> Progress:
        """The block is begun."""

    def note(self, text: str) -> None:
        """Something a user should know."""


class NoProgress:
    """Progress that goes nowhere, of a block or of a run."""

    def begin(self, block: Block) -> Progress:
        """Itself."""
        return self

    def advance(self, steps: int) -> None:
        """Ignored."""

    def note(self, text: str) -> None:
        """Ignored."""

    def phase(self, name: Phase) -> None:
        """Ignored."""
