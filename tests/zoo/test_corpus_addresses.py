"""`--corpus hub:OWNER/NAME` and addresses of servers, on a hub and a server of this machine."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.hub import COMMIT, Hub, Repository, client, hub
from zoo.cards import Card
from zoo.corpus import Corpus
from zoo.corpus_address import HubAddress, UrlAddress, parse_address
from zoo.corpus_choice import choose_corpus
from zoo.errors import BadCorpus, ModelUnavailable, UsageError
from zoo.registry import Registry, load_registry
from zoo.streams import StreamedCorpus, storage

__all__ = ["client", "hub"]

REGISTRY: Registry = load_registry()
TEXTS = [f"passage {i} {'x' * (i % 30)}." for i in range(40)]
PROTEINS = [f"MKV{'L' * (i % 7)}{'AYG' * (i // 7)}" for i in range(40)]
MODELS = {"text": "tiny-gpt2", "protein": "tiny-esm2", "image": "tiny-dinov2"}


def model(kind: str) -> Card:
    return REGISTRY.card(MODELS[kind])


def opened(address: str, kind: str = "text", **options: object) -> Corpus:
    return choose_corpus(REGISTRY, address, **options).open(model(kind), REGISTRY)  # type: ignore[arg-type]


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), number, dtype=np.uint8)).save(buffer, "png")
    return buffer.getvalue()


def tar(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def parquet(rows: list[dict]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer, row_group_size=10)
    return buffer.getvalue()


JSONL = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode()
FASTA = "".join(f">p{i}\n{letters}*\n" for i, letters in enumerate(PROTEINS)).encode()
PICTURES = {f"class/{i}.png": png(i) for i in range(12)}
FORMATS: dict[str, tuple[str, dict[str, bytes]]] = {
    "parquet": ("text", {"data/a.parquet": parquet([{"text": text} for text in TEXTS])}),
    "jsonl": ("text", {"data/a.jsonl": JSONL}),
    "jsonl.gz": ("text", {"data/a.jsonl.gz": gzip.compress(JSONL)}),
    "jsonl.zst": ("text", {"data/a.jsonl.zst": pa.compress(JSONL, "zstd", asbytes=True)}),
    "tar": ("text", {"data/a.tar": tar({f"{i}.txt": t.encode() for i, t in enumerate(TEXTS)})}),
    "fasta": ("protein", {"a.fasta": FASTA}),
    "fasta.gz": ("protein", {"a.fa.gz": gzip.compress(FASTA)}),
    "pictures": ("image", PICTURES),
    "tar of pictures": ("image", {"train.tar": tar(PICTURES)}),
    "parquet of pictures": (
        "image",
        {"a.parquet": parquet([{"image": {"bytes": each}} for each in PICTURES.values()])},
    ),
}


@pytest.fixture
def put(hub: Hub, tmp_path: Path) -> Callable[..., Repository]:
    """Puts files into the repository some/data of the hub, beside a README and a script."""

    def write(files: dict[str, bytes], **facts: object) -> Repository:
        folder = tmp_path / "repository"
        for name, content in {**files, "README.md": b"# Data", "load.py": b"pass"}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        found = Repository(folder, kind="datasets", **facts)  # type: ignore[arg-type]
        hub.repositories["some/data"] = found
        return found

    return write


@pytest.mark.parametrize("memory", [1 << 28, -1], ids=["in memory", "streamed"])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_of_the_hub_is_read_by_its_address(
    name: str,
    memory: int,
    put: Callable[..., Repository],
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(storage, "IN_MEMORY_BYTES", memory)
    kind, files = FORMATS[name]
    put(files)
    corpus = opened("hub:some/data", kind)
    found = list(corpus.examples(0))
    if kind == "image":
        assert sorted(int(each[0, 0, 0]) for each in found) == list(range(12))
    else:
        assert sorted(found) == sorted(TEXTS if kind == "text" else PROTEINS)
    assert corpus.name == "hub:some/data"
    assert corpus.fingerprint() == opened("hub:some/data@main", kind).fingerprint()
    assert isinstance(corpus, StreamedCorpus) == (memory < 0 and name != "pictures")
    assert hub.fetched("load.py") == 0


def test_a_path_is_a_file_a_glob_or_a_configuration(put: Callable[..., Repository]) -> None:
    rows = {name: f'{{"text": "{name}"}}\n'.encode() for name in ("en/a", "en/b", "de/a")}
    put({f"{name}.jsonl": content for name, content in rows.items()})
    for path, names in {
        ":en": ["en/a", "en/b"],
        ":en/a.jsonl": ["en/a"],
        ":*/a.jsonl": ["de/a", "en/a"],
        "": ["de/a", "en/a", "en/b"],
    }.items():
        corpus = opened(f"hub:some/data{path}")
        assert sorted(corpus.examples(0)) == names
        assert corpus.name == f"hub:some/data{path}"
    prints = {opened(f"hub:some/data{p}").fingerprint() for p in (":en", ":de", "")}
    assert len(prints) == 3


def test_columns_and_commits_are_told_apart(put: Callable[..., Repository]) -> None:
    repository = put({"a.parquet": parquet([{"text": "a", "body": "b"}] * 9)})
    body = opened("hub:some/data", column="body")
    assert (set(body.examples(0)), body.name) == ({"b"}, "hub:some/data:body")
    before = opened("hub:some/data").fingerprint()
    assert body.fingerprint() != before
    repository.commit = "f" * 40
    assert opened("hub:some/data").fingerprint() != before
    with pytest.raises(BadCorpus, match=r"no column 'x'\. Name one of these with --column"):
        next(opened("hub:some/data", column="x").examples(0))


@pytest.mark.parametrize("memory", [1 << 28, -1], ids=["in memory", "streamed"])
def test_a_gated_dataset_says_where_its_licence_is_accepted(
    memory: int, put: Callable[..., Repository], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "IN_MEMORY_BYTES", memory)
    put({"a.jsonl": JSONL}, gated=True)
    with pytest.raises(ModelUnavailable) as caught:
        opened("hub:some/data")
    assert str(caught.value) == (
        "corpus 'hub:some/data' is gated: the hub gives some/data only to those who accepted its "
        "licence. Accept it at https://huggingface.co/datasets/some/data, then log in with "
        "`huggingface-cli login` (or `hf auth login`)."
    )


@pytest.mark.parametrize(
    ("address", "kind", "error", "says"),
    [
        ("hub:some/none", "text", ModelUnavailable, "no repository 'some/none' on the hub, or it"),
        ("hub:some/data@v9", "text", ModelUnavailable, "some/data has no revision v9"),
        (
            "hub:some/data",
            "image",
            BadCorpus,
            "has no file in * that is read as image at",
        ),
        ("hub:some/data:b.jsonl", "text", BadCorpus, "some/data has no file b.jsonl at 0123"),
        ("hub:some data", "text", UsageError, "names no dataset of the hub. It is hub:OWNER/NAME"),
        ("hub:", "text", UsageError, "names no dataset of the hub"),
        ("ftp://a/b", "text", UsageError, "An address begins with hub:, https:// or s3://"),
    ],
)
def test_what_an_address_lacks_is_said_in_a_line(
    address: str,
    kind: str,
    error: type[Exception],
    says: str,
    put: Callable[..., Repository],
) -> None:
    put({"a.jsonl": b'{"title": "a"}\n'})
    with pytest.raises(error) as caught:
        list(opened(address, kind).examples(0))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_server_gives_one_file(put: Callable[..., Repository], hub: Hub) -> None:
    pytest.importorskip("aiohttp")
    put({"a.jsonl": JSONL})
    url = f"{hub.endpoint}/datasets/some/data/resolve/{COMMIT}/a.jsonl"
    corpus = opened(f"{url}?token=secret")
    assert sorted(corpus.examples(0)) == sorted(TEXTS)
    assert corpus.name == url
    assert corpus.fingerprint() == opened(url).fingerprint()
    with pytest.raises(BadCorpus, match="no corpus at http"):
        opened(url.replace("a.jsonl", "b.jsonl"))
    with pytest.raises(ModelUnavailable, match=r"http://127\.0\.0\.1:1/a\.jsonl cannot be read"):
        opened("http://127.0.0.1:1/a.jsonl?token=secret")


def test_addresses_are_told_from_names_and_paths() -> None:
    assert parse_address("hub:a/b@v1:c/*.parquet") == HubAddress("a/b", "v1", "c/*.parquet")
    assert parse_address("s3://bucket/place") == UrlAddress("s3://bucket/place")
    assert str(parse_address("https://user:word@host/a.fa?key=1")) == "https://host/a.fa"
    assert parse_address("corpora/a.txt") is parse_address("openwebtext") is None
