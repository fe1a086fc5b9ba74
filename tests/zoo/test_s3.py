"""Corpora at `s3://`, on a local server."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.zoo.test_corpus_addresses import FORMATS, PROTEINS, TEXTS, opened
from zoo.streams import StreamedCorpus, chunks, storage

Bench = Callable[..., tuple[int, str, str]]


def put(s3: Any, name: str) -> str:
    """Writes a corpus of that format below s3://bucket/far; its kind."""
    kind, files = FORMATS[name]
    for path, content in files.items():
        s3.put_object(Bucket="bucket", Key=f"far/{path}", Body=content)
    return kind


@pytest.mark.parametrize("name", [name for name in FORMATS if "pictures" not in name])
def test_every_format_is_streamed_and_goes_on_in_the_middle(
    name: str, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "IN_MEMORY_BYTES", -1)
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 256)
    kind = put(s3, name)
    corpus = opened("s3://bucket/far", kind)
    assert isinstance(corpus, StreamedCorpus)
    order = list(corpus.examples(0))
    assert Counter(order) == Counter(TEXTS if kind == "text" else PROTEINS)
    assert list(itertools.islice(corpus.training(0, 10, 15), 5)) == order[25:30]
    (key,) = FORMATS[name][1]
    assert Counter(opened(f"s3://bucket/far/{key}", kind).examples(0)) == Counter(order)


@pytest.mark.parametrize("name", [name for name in FORMATS if "pictures" in name])
def test_pictures_are_read(name: str, s3: Any) -> None:
    found = opened("s3://bucket/far", put(s3, name)).examples(0)
    assert sorted(int(each[0, 0, 0]) for each in found) == list(range(12))


def test_a_model_is_measured_on_what_a_bucket_holds(s3: Any, bench: Bench, tiny: list[str]) -> None:
    random.seed(1)
    letters = [chr(97 + i) for i in range(26)]
    rows = [{"text": " ".join(random.choices(letters, k=60))} for _ in range(400)]
    body = "\n".join(map(json.dumps, rows)).encode()
    s3.put_object(Bucket="bucket", Key="far/a.jsonl", Body=body)
    corpus = ["--corpus", "s3://bucket/far", "--arm", "raw", "--layer", "0"]
    code, out, err = bench("run", "tiny-gpt2", *corpus, *tiny, "--json")
    assert code == 0, err
    (record,) = json.loads(out)["records"]
    assert record["spec"]["corpus"].startswith("s3://bucket/far")
    assert bench("run", "tiny-gpt2", *corpus, *tiny)[1].count("1 done before") == 1


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("s3://bucket/absent", "no corpus at s3://bucket/absent. Give the path or the URL"),
        ("s3://nowhere/far", "no bucket 'nowhere'. Check its name, and AWS_REGION."),
        ("s3://nowhere", "no bucket 'nowhere'. "),
        ("s3://", "s3:// names no bucket. Write s3://BUCKET/PATH."),
    ],
)
def test_what_is_not_there_is_one_line(address: str, says: str, s3: Any, bench: Bench) -> None:
    code, out, err = bench("run", "tiny-gpt2", "--corpus", address)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err


def test_credentials_are_asked_for(s3: Any, bench: Bench, without_credentials: None) -> None:
    s3.put_object(Bucket="bucket", Key="a.txt", Body=b"text")
    code, out, err = bench("run", "tiny-gpt2", "--corpus", "s3://bucket/a.txt")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "Name credentials that have access (AWS_ACCESS_KEY_ID" in err


def test_a_server_that_does_not_answer_is_named(
    s3: Any, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    storage._s3.cache_clear()
    code, out, err = bench("run", "tiny-gpt2", "--corpus", "s3://bucket/a.txt")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "Check the network, AWS_ENDPOINT_URL and AWS_REGION." in err
