"""Fixtures of the adapters' tests."""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from adapters import Adapter, compat, open_adapter
from tests.adapters.tiny import FAMILIES

# Code that comes with checkpoints is copied here, not into the user's cache.
_modules = os.environ["HF_MODULES_CACHE"] = tempfile.mkdtemp(prefix="remote-code-")
atexit.register(shutil.rmtree, _modules, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def _settings() -> None:
    torch.set_num_threads(1)
    compat.prepare()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family's tiny checkpoint, made on first use; read it, do not write."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            family = FAMILIES[name]
            absent = [p for p in family.packages if importlib.util.find_spec(p) is None]
            if absent:
                pytest.skip(f"{absent[0]} is not installed")
            folder = tmp_path_factory.mktemp(name)
            family.save(folder)
            made[name] = folder
        return made[name]

    return get


@pytest.fixture
def opened(checkpoint: Callable[[str], Path]) -> Callable[[str], Adapter]:
    """A family's adapter on its tiny checkpoint."""
    return lambda name: open_adapter(FAMILIES[name].card, weights=checkpoint(name))
