"""Fixtures of the adapters' tests."""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import zoo.hub
from adapters import Adapter, compat, open_adapter
from tests.adapters.tiny import FAMILIES
from tests.hub import Hub, serve

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")

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


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Points the hub's client, with an empty cache, to an endpoint."""
    import time

    from huggingface_hub import constants, file_download

    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 4096)  # what is kept of a broken file
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the client waits before it retries

    def point(endpoint: str) -> None:
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        for module in (constants, file_download):
            monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        forget_connections()

    yield point
    zoo.hub._unreachable.clear()
    forget_connections()


def forget_connections() -> None:
    """The client keeps its connections, and with them whether it was offline."""
    from huggingface_hub.utils import _http

    for name in ("reset_sessions", "close_session"):  # before and since version 1
        if hasattr(_http, name):
            getattr(_http, name)()


@pytest.fixture
def hub(client: Callable[[str], None]) -> Iterator[Hub]:
    with serve() as running:
        client(running.endpoint)
        yield running
