"""A model hub on the loopback interface, speaking as much of the protocol as its client needs.

A plugin of pytest too: the fixtures `hub`, and `client` for an endpoint where nothing answers.

Repositories are folders. A repository may be gated, and files may break off while they are sent;
the client then asks for the rest by a Range header, as it does of the real hub.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qsl, unquote

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


@dataclass
class Repository:
    """One repository with a single commit. Without a token a gated one gives no file.

    `tags` are the names of its branches and tags.
    `kind` is models or datasets.
    `breaks` says how often each file is broken off in the middle before it is sent whole.
    """

    folder: Path
    commit: str = COMMIT
    gated: bool = False
    breaks: dict[str, int] = field(default_factory=dict)
    tags: tuple[str, ...] = ("main",)
    kind: str = "models"


@dataclass
class Hub:
    """The running hub. `requests` holds (method, path, Range header) of each request.

    `owned` is where repositories that a client with a token creates are kept; without it, or with
    `refuses_writes`, nobody may write.
    """

    endpoint: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    outage: int | None = None
    owned: Path | None = None
    refuses_writes: bool = False
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)

    def fetched(self, name: str) -> int:
        """How many requests were made for the body of that file."""
        return sum(m == "GET" and path.endswith(f"/{name}") for m, path, _ in self.requests)


_API = re.compile(
    r"^/api/(?P<kind>models|datasets)/(?P<id>[^/]+/[^/]+)"
    r"(/(?P<what>revision|tree)/(?P<revision>[^/]+)(/(?P<below>.+))?)?$"
)
_WRITE = re.compile(r"^/api/models/(?P<id>[^/]+/[^/]+)/(?P<what>preupload|commit)/main$")
_FILE = re.compile(
    r"^/((?P<kind>datasets)/)?(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)$"
)


@contextmanager
def serve() -> Iterator[Hub]:
    """A hub on a free port, until the context ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    hub = Hub(f"http://127.0.0.1:{server.server_port}")
    server.hub = hub  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        """What is known of paths; and what writes: new repositories and commits."""
        hub: Hub = self.server.hub  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        hub.requests.append((self.command, self.path, None))
        if self.path == "/api/validate-yaml":
            return self._send_json({"errors": [], "warnings": []})
        if self.path == "/api/repos/create" or _WRITE.match(self.path):
            return self._write(hub, body)
        match = re.match(r"^/api/datasets/([^/]+/[^/]+)/paths-info/", self.path)
        repository = hub.repositories.get(match[1]) if match else None
        if repository is None:
            return self._fail(404, "RepoNotFound")
        wanted = set(json.loads(body)["paths"]) if body[:1] == b"{" else set()
        wanted = wanted or {v for k, v in parse_qsl(body.decode()) if k == "paths"}
        self._send_json([entry for entry in _entries(repository) if entry["path"] in wanted])

    def log_message(self, *arguments: Any) -> None:
        pass

    def _write(self, hub: Hub, body: bytes) -> None:
        """A new repository, how its files are to come (all with the commit), or a commit."""
        if "Authorization" not in self.headers:
            return self._fail(401, "")
        if hub.owned is None or hub.refuses_writes:
            return self._fail(403, "")
        match = _WRITE.match(self.path)
        if match is None:
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if name in hub.repositories:
                known = {"url": f"{hub.endpoint}/{name}"}
                return self._send(409, json.dumps(known).encode(), {})
            (hub.owned / name).mkdir(parents=True)
            hub.repositories[name] = Repository(hub.owned / name)
            return self._send_json({"url": f"{hub.endpoint}/{name}"})
        if match["what"] == "preupload":
            paths = [file["path"] for file in json.loads(body)["files"]]
            files = [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in paths]
            return self._send_json({"files": files})
        folder = hub.repositories[match["id"]].folder
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                path = folder / line["value"]["path"]
                path.write_bytes(base64.b64decode(line["value"]["content"]))
        where = f"{hub.endpoint}/{match['id']}/commit/{COMMIT}"
        self._send_json({"commitUrl": where, "commitOid": COMMIT})

    def _answer(self) -> None:
        hub: Hub = self.server.hub  # type: ignore[attr-defined]
        path = self.path.split("?")[0]
        hub.requests.append((self.command, path, self.headers.get("Range")))
        if hub.outage:
            return self._fail(hub.outage, "")
        match = _API.match(path) or _FILE.match(path)
        repository = hub.repositories.get(match["id"]) if match else None
        if match is None or repository is None or repository.kind != (match["kind"] or "models"):
            return self._fail(404, "RepoNotFound")
        if match["revision"] not in (None, repository.commit, *repository.tags):
            return self._fail(404, "RevisionNotFound")
        if "name" not in match.groupdict():
            if match["what"] == "tree":
                return self._list(repository, match["below"])
            return self._describe(match["id"], repository)
        if repository.gated and "Authorization" not in self.headers:
            return self._fail(401, "GatedRepo")
        file = repository.folder / match["name"]
        if not file.is_file():
            return self._fail(404, "EntryNotFound")
        return self._file(repository, match["name"], file.read_bytes())

    def _describe(self, name: str, repository: Repository) -> None:
        self._send_json(
            {
                "id": name,
                "sha": repository.commit,
                "gated": "manual" if repository.gated else False,
                "private": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
                "siblings": [{"rfilename": path} for path, _ in _files(repository)],
            }
        )

    def _list(self, repository: Repository, below: str | None) -> None:
        folder = f"{unquote(below)}/" if below else ""
        found = [entry for entry in _entries(repository) if entry["path"].startswith(folder)]
        found += _folders(found, folder)
        if not re.search(r"[?&]recursive=(true|1)", self.path, re.IGNORECASE):
            found = [each for each in found if "/" not in each["path"].removeprefix(folder)]
        self._send_json(found) if found else self._fail(404, "EntryNotFound")

    def _send_json(self, content: Any) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _file(self, repository: Repository, name: str, content: bytes) -> None:
        headers = {
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X-Repo-Commit": repository.commit,
            "Accept-Ranges": "bytes",
        }
        wanted = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, stop, status = 0, len(content), 200
        if wanted:
            start, status = int(wanted[1]), 206
            stop = min(int(wanted[2] or len(content) - 1) + 1, len(content))
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
        body = content[start:stop]
        broken = self.command == "GET" and repository.breaks.get(name, 0) > 0
        if broken:
            repository.breaks[name] -= 1
        self._send(status, body, headers, sent=len(body) // 2 if broken else None)

    def _fail(self, status: int, code: str) -> None:
        headers = {"X-Error-Code": code} if code else {}
        self._send(status, b"", headers)

    def _send(
        self, status: int, body: bytes, headers: dict[str, str], sent: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[:sent])
        if sent is not None:
            self.close_connection = True


def _entries(repository: Repository) -> list[dict[str, Any]]:
    """What the hub says of each file."""
    return [
        {
            "type": "file",
            "path": path,
            "size": len(content),
            "oid": hashlib.sha1(content).hexdigest(),
        }
        for path, content in _files(repository)
    ]


def _folders(files: list[dict[str, Any]], folder: str) -> list[dict[str, Any]]:
    """The folders below a folder that hold files, as the hub lists them."""
    above = (parent.as_posix() for file in files for parent in PurePosixPath(file["path"]).parents)
    paths = sorted({path for path in above if path != "." and path.startswith(folder)})
    return [{"type": "directory", "path": path, "oid": "0"} for path in paths]


def _files(repository: Repository) -> list[tuple[str, bytes]]:
    """Path and content of each file."""
    folder = repository.folder
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [(path.relative_to(folder).as_posix(), path.read_bytes()) for path in files]


# ----------------------------------------------------------------------------------- fixtures


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Points the hub's client, with an empty cache, to an endpoint."""
    from huggingface_hub import HfFileSystem, constants, file_download

    import zoo.hub

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
        HfFileSystem.clear_instance_cache()  # it keeps the endpoint
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
