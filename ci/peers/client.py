"""Starts the workers, each with its own Python, and asks them for seconds per step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

HERE = Path(__file__).parent

# What is installed for each peer, with the torch of this environment.
PEERS = {
    "saelens": "sae-lens==6.54.12",
    "sparsify": "eai-sparsify==1.3.3",
    "dictionary_learning": "dictionary-learning==0.1.0",
    "saev": "saev==0.1.0",
}

# Those whose training steps a worker here times.
TIMED = [name for name in PEERS if (HERE / f"with_{name}.py").is_file()]

# What this project and its loggers import in `peers.watched`.
WATCHING = ("pydantic", "scipy", "tabulate", "wandb")


class PeerFailed(Exception):
    """A peer cannot be started, or its step failed."""


class Peer:
    """One peer's worker at one size. `start_seconds`: until it was ready, imports included."""

    def __init__(
        self, name: str, python: Path, size: tuple[int, int, int, int], matmul: str, threads: int
    ) -> None:
        answers, theirs = os.pipe()
        arguments = [*map(str, size), str(threads), str(theirs), matmul]
        quiet = {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": str(threads)}
        began = time.perf_counter()
        self.name = name
        # A file, as a pipe without a reader fills up and stops the writer.
        self._said = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115 - closed by close()
        self._process = subprocess.Popen(
            [str(python.absolute()), "-m", f"peers.with_{name}", *arguments],
            cwd=HERE.parent,
            stdin=subprocess.PIPE,
            stdout=self._said,
            stderr=subprocess.STDOUT,
            pass_fds=[theirs],
            text=True,
            env={**os.environ, **quiet},
        )
        os.close(theirs)
        self._answers = os.fdopen(answers)
        self.variants: list[str] = json.loads(self._answer())
        self.start_seconds = time.perf_counter() - began

    def seconds(self, variant: str, steps: int) -> float:
        """Seconds per step, over `steps` steps. Raises PeerFailed, with the peer's own words."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{variant} {steps}\n")
        self._process.stdin.flush()
        answer = json.loads(self._answer())
        if "error" in answer:
            raise PeerFailed(f"{self.name}, {variant}: {answer['error']}")
        return float(answer["seconds"])

    def close(self) -> None:
        """Ends the worker."""
        self._process.communicate()
        self._answers.close()
        self._said.close()

    def _answer(self) -> str:
        line = self._answers.readline()
        if not line:
            self._said.seek(0)
            last = self._said.read().strip().splitlines()[-1:] or ["no message"]
            raise PeerFailed(f"{self.name} does not start: {last[0]}")
        return line


def make_peer(name: str, folder: Path) -> Path:
    """Builds the environment of a peer in `folder`, where it is not there; its Python."""
    import torch

    python = folder / name / "bin" / "python"
    if python.exists():
        return python
    print(f"building the environment of {name}", file=sys.stderr)
    venv.create(folder / name, with_pip=True)
    constraints = folder / "constraints.txt"
    constraints.write_text(f"torch=={torch.__version__.split('+')[0]}\n")
    pip = [str(python.absolute()), "-m", "pip", "--quiet"]
    packages = [PEERS[name], *WATCHING]
    subprocess.run([*pip, "install", "-c", str(constraints), *packages], check=True)
    # Nothing here needs it, and where its build is not torch's, importing it fails.
    subprocess.run([*pip, "uninstall", "--yes", "torchvision"], check=True)
    return python
