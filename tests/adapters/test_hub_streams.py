"""Datasets of the hub, and files of a web server, that are streamed: in each format."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import tarfile
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.hub import COMMIT, Hub, Repository, client, hub
from zoo.cards import CorpusCard
from zoo.corpora import open_corpus
from zoo.errors import ModelUnavailable
from zoo.streams import StreamedCorpus, chunks, storage, stored_corpus

__all__ = ["client", "hub"]

ROWS = [f"passage {i} {'x' * (i % 30)}." for i in range(80)]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "IN_MEMORY_BYTES", -1)
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 512)


def _write(path: Path, rows: list[str]) -> None:
    lines = "".join(json.dumps({"text": row}) + "\n" for row in rows).encode()
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"text": rows}), path, row_group_size=20)
    elif path.suffix == ".zst":
        with pa.CompressedOutputStream(str(path), "zstd") as packed:
            packed.write(lines)
    elif path.suffix == ".tar":
        with tarfile.open(path, "w") as archive:
            for number, row in enumerate(rows):
                member = tarfile.TarInfo(f"{number}.txt")
                member.size = len(row)
                archive.addfile(member, io.BytesIO(row.encode()))
    else:
        path.write_bytes(gzip.compress(lines) if path.suffix == ".gz" else lines)


def _card(hub: Hub, folder: Path, suffix: str) -> CorpusCard:
    (folder / "data").mkdir(parents=True)
    for number in range(2):
        _write(folder / "data" / f"train-{number}{suffix}", ROWS[40 * number :][:40])
    hub.repositories["some/texts"] = Repository(folder, kind="datasets")
    return CorpusCard.model_validate(
        {
            **{"id": "texts", "summary": "s", "kind": "text", "source": "hub"},
            **{"hub": "some/texts", "revision": COMMIT, "path": f"data/*{suffix}"},
        }
    )


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet", ".tar"])
def test_a_large_dataset_of_the_hub_is_streamed(suffix: str, hub: Hub, tmp_path: Path) -> None:
    card = _card(hub, tmp_path / "repository", suffix)
    corpus = open_corpus(card)
    assert isinstance(corpus, StreamedCorpus)
    order = list(corpus.examples(0))
    assert Counter(order) == Counter(ROWS)
    assert list(itertools.islice(corpus.training(0, 10, 30), 5)) == order[40:45]
    assert not list((tmp_path / "cache").rglob(f"*{suffix}"))  # nothing was downloaded
    assert corpus.fingerprint() == open_corpus(card).fingerprint()


def test_a_hub_that_goes_away_is_no_fault_of_the_corpus(hub: Hub, tmp_path: Path) -> None:
    corpus = open_corpus(_card(hub, tmp_path / "repository", ".jsonl"))
    hub.outage = 503
    with pytest.raises(ModelUnavailable, match="cannot be read"):
        list(corpus.examples(0))


def test_a_file_of_a_web_server_is_streamed(hub: Hub, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="the extra https is not installed")
    _card(hub, tmp_path / "repository", ".jsonl")
    url = f"{hub.endpoint}/datasets/some/texts/resolve/{COMMIT}/data/train-0.jsonl"
    corpus = stored_corpus(url, "text", "web")
    assert Counter(corpus.examples(0)) == Counter(ROWS[:40])
