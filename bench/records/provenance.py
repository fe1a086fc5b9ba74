"""Where, when and with what a record was made."""

from __future__ import annotations

import platform
import subprocess
import time
from datetime import UTC, datetime
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from bench.records.schema import Provenance
from zoo.cards import DataKind

PACKAGES = (
    "gammabench",
    "torch",
    "transformers",
    "timm",
    "esm",
    "enformer-pytorch",
    "tokenizers",
    "safetensors",
    "numpy",
    "scipy",
)


class Clock:
    """Started with a block; makes the provenance of its records.

    Attributes:
        started: UTC, ISO 8601. earlier: seconds of the runs before this one.
        resumed: times the block was resumed from a checkpoint. notes: what did not go as planned.
    """

    def __init__(self) -> None:
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self.earlier = 0.0
        self.resumed = 0
        self.notes: list[str] = []
        self._tick = time.monotonic()

    @property
    def seconds(self) -> float:
        """Wall time so far, over all runs."""
        return self.earlier + time.monotonic() - self._tick

    def provenance(
        self,
        *,
        protocol: str,
        device: str,
        matmul: str,
        revision: str | None,
        tried: str | None = None,
        data: DataKind | None = None,
    ) -> Provenance:
        """The provenance as of now."""
        import torch

        commit, dirty = git_state()
        return Provenance(
            protocol=protocol,
            packages=package_versions(),
            python=platform.python_version(),
            device=device_name(device),
            threads=torch.get_num_threads(),
            matmul=matmul,
            git_commit=commit,
            git_dirty=dirty,
            revision=revision,
            tried=tried,
            data=data,
            started=self.started,
            seconds=round(self.seconds, 3),
            resumed=self.resumed,
            notes=tuple(self.notes),
        )


@lru_cache(maxsize=1)
def package_versions() -> dict[str, str]:
    """Versions of the installed packages that a number may depend on."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def device_name(device: str) -> str:
    """The device as its maker calls it."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    model = _cpu_model() or platform.machine()
    return model if device == "cpu" else f"{device} ({model})"


def _cpu_model() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or None
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else None


@lru_cache(maxsize=1)
def git_state() -> tuple[str | None, bool | None]:
    """Commit and dirtiness of the checkout that this file runs from; None outside of one."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(here), *arguments],
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    # A package installed inside another repository does not belong to it.
    if git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None, None
    status = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "HEAD"), None if status is None else bool(status)
