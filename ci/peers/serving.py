"""What the workers share: they answer `VARIANT STEPS` on stdin with seconds per step.

Run by a peer's own Python, which has torch and the peer, and nothing of this project.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

BATCHES = 4

# Takes a number of steps, gives the seconds that they took.
Timed = Callable[[int], float]


@dataclass(frozen=True)
class Job:
    """width, dictionary size, features per token, tokens per step; our float32 product setting."""

    d: int
    n: int
    k: int
    batch: int
    matmul: str

    def batches(self) -> Tensor:
        """The same activations for every contestant, [BATCHES, batch, d]."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(BATCHES, self.batch, self.d, generator=generator).to(self.device)

    @property
    def device(self) -> str:
        """Where to train: the CPU, unless `PEERS_DEVICE` says otherwise."""
        return os.environ.get("PEERS_DEVICE", "cpu")


class Endless:
    """Those batches, again and again."""

    def __init__(self, job: Job) -> None:
        self._batches = job.batches()
        self._number = 0

    def __iter__(self) -> Iterator[Tensor]:
        return self

    def __next__(self) -> Tensor:
        self._number += 1
        return self._batches[self._number % BATCHES]


@contextlib.contextmanager
def matmul(setting: str) -> Iterator[None]:
    """A float32 product setting; the former one comes back after."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(setting)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def with_matmul(setting: str, run: Timed) -> Timed:
    """`run` under a product setting."""

    def timed(steps: int) -> float:
        with matmul(setting):
            return run(steps)

    return timed


def waited(run: Timed, steps: int) -> float:
    """The seconds of `run`, and those until a device has done what it was given."""
    seconds = run(steps)
    start = time.perf_counter()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return seconds + time.perf_counter() - start


def serve(build: Callable[[Job], dict[str, Timed]]) -> None:
    """Reads the job from the arguments, answers until stdin ends. A variant that fails says why."""
    parser = argparse.ArgumentParser()
    for name in ("d", "n", "k", "batch", "threads", "answers"):
        parser.add_argument(name, type=int)
    parser.add_argument("matmul")
    given = vars(parser.parse_args())
    torch.set_num_threads(given.pop("threads"))
    # A descriptor of their own, as libraries print to stdout.
    answers = os.fdopen(given.pop("answers"), "w")
    variants = build(Job(**given))
    print(json.dumps(list(variants)), file=answers, flush=True)
    for line in sys.stdin:
        name, _, steps = line.strip().rpartition(" ")
        try:
            answer: dict[str, object] = {"seconds": waited(variants[name], int(steps)) / int(steps)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps(answer), file=answers, flush=True)
