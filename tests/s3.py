"""S3 on the loopback interface, by moto: the fixture `s3`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from tests.hub import PROXIES
from zoo.streams import storage

_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}


@pytest.fixture(scope="session")
def _endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line per request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """boto3's client of a server that holds one empty bucket, `bucket`; `s3://` leads there."""
    import boto3

    for name in (*PROXIES, "AWS_PROFILE", "AWS_REGION", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    variables = {"AWS_ENDPOINT_URL": _endpoint, "AWS_DEFAULT_REGION": "us-east-1"}
    # Without credentials nobody is to ask the network for them.
    variables["AWS_EC2_METADATA_DISABLED"] = "true"
    for name, value in (_CREDENTIALS | variables).items():
        monkeypatch.setenv(name, value)
    storage._s3.cache_clear()
    client = boto3.client("s3", endpoint_url=_endpoint)
    client.create_bucket(Bucket="bucket")
    yield client
    for item in client.list_objects_v2(Bucket="bucket").get("Contents", ()):
        client.delete_object(Bucket="bucket", Key=item["Key"])
    client.delete_bucket(Bucket="bucket")
    storage._s3.cache_clear()


@pytest.fixture
def without_credentials(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As somebody whom the bucket gives nothing."""
    for name in _CREDENTIALS:
        monkeypatch.delenv(name)
    storage._s3.cache_clear()
