"""A corpus at `s3://`, on a local server."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.hub import PROXIES
from zoo.errors import BadCorpus
from zoo.streams import StreamedCorpus, chunks, storage, stored_corpus

ROWS = [f"passage {i}" for i in range(80)]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A bucket with a folder of JSON lines and one of parquet, and the client that wrote them."""
    boto3 = pytest.importorskip("boto3", reason="boto3 is not installed")
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    values = {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "DEFAULT_REGION": "us-east-1"}
    for key, value in (values | {"ENDPOINT_URL": endpoint}).items():
        monkeypatch.setenv(f"AWS_{key}", value)
    monkeypatch.setattr(storage, "IN_MEMORY_BYTES", -1)
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 256)
    storage._s3.cache_clear()
    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket="corpus")
    lines = "".join(json.dumps({"text": row}) + "\n" for row in ROWS)
    client.put_object(Bucket="corpus", Key="lines/a.jsonl", Body=lines.encode())
    pq.write_table(pa.table({"text": ROWS}), tmp_path / "a.parquet", row_group_size=30)
    client.put_object(
        Bucket="corpus", Key="table/a.parquet", Body=(tmp_path / "a.parquet").read_bytes()
    )
    yield client
    storage._s3.cache_clear()


@pytest.mark.parametrize("place", ["lines", "lines/a.jsonl", "table"])
def test_a_bucket_is_streamed_and_goes_on_anywhere(place: str, bucket: Any) -> None:
    corpus = stored_corpus(f"s3://corpus/{place}", "text", "far away")
    assert isinstance(corpus, StreamedCorpus)
    order = list(corpus.examples(0))
    assert Counter(order) == Counter(ROWS)
    assert list(itertools.islice(corpus.training(0, 10, 25), 5)) == order[35:40]


def test_what_is_not_in_the_bucket_is_said(bucket: Any) -> None:
    with pytest.raises(BadCorpus, match="no corpus at s3://corpus/absent"):
        stored_corpus("s3://corpus/absent", "text", "far away")
