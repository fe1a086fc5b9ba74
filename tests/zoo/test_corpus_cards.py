"""Corpora by name: their cards, `bench list corpora`, `bench fetch --corpus`, `--corpus NAME`."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from bench.plan.blocks import Request, make_plan
from bench.plan.protocol import load_protocol
from tests.hub import COMMIT, Hub, Repository
from zoo.cards import CorpusCard
from zoo.contigs import contig
from zoo.corpora import open_corpus
from zoo.corpus_choice import choose_corpus
from zoo.downloads import download
from zoo.errors import BadCorpus, CorpusUnavailable
from zoo.registry import load_registry

Bench = Callable[..., tuple[int, str, str]]
REGISTRY = load_registry()


@pytest.mark.parametrize("kind", ["text", "image", "protein", "dna"])
def test_each_kind_has_two_real_corpora_one_of_them_open(kind: str) -> None:
    real = [c for c in REGISTRY.corpora.values() if c.kind == kind and c.data == "real"]
    assert len(real) >= 2
    assert any(not card.gated for card in real)
    for card in real:
        assert card.licence
        assert card.sources
        pinned = card.revision or card.sha256 or "==" in (card.install or "")
        assert pinned or "Not pinned" in card.notes


# No corpus of real cells has a card in their dictionary, as their notes say.
NO_REAL_CORPUS = {"geneformer-v2-104m", "geneformer-v2-316m"}


@pytest.mark.parametrize("suite", ["paper", "wider"])
def test_models_of_published_work_read_real_data_of_their_kind(suite: str) -> None:
    for name in REGISTRY.suite(suite).models:
        card = REGISTRY.card(name)
        corpus = REGISTRY.corpus(card.corpus)
        if corpus.kind != "synthetic":
            assert corpus.kind == card.kind, name
            assert corpus.data == "real" or name in NO_REAL_CORPUS


def test_models_that_run_anywhere_read_made_data() -> None:
    for suite in ("embedded", "offline"):
        for name in REGISTRY.suite(suite).models:
            assert REGISTRY.corpus(REGISTRY.card(name).corpus).data == "made"


def test_list_shows_all_corpora_or_one_with_its_sources(bench: Bench) -> None:
    code, out, _ = bench("list", "corpora")
    assert code == 0
    assert all(name in out for name in REGISTRY.corpora)
    (row,) = json.loads(bench("list", "corpora", "openwebtext", "--json")[1])
    assert (row["data"], row["models"]) == ("real", ["gpt2"])
    code, _, err = bench("list", "corpora", "openwebtxt")
    assert (code, err) == (2, "bench: unknown corpus 'openwebtxt'. Did you mean openwebtext?\n")


@pytest.fixture
def texts(hub: Hub, tmp_path: Path) -> Path:
    """A folder of cards with the corpus `texts`, two files of a dataset on the hub."""
    data = tmp_path / "repository" / "data"
    data.mkdir(parents=True)
    for name in ("train-0", "train-1", "test-0"):
        words = [json.dumps({"words": f"{name} passage {i} of some words"}) for i in range(400)]
        (data / f"{name}.jsonl").write_text("\n".join(words), encoding="utf-8")
    hub.repositories["some/texts"] = Repository(tmp_path / "repository", kind="datasets")
    card = {
        **{"id": "texts", "summary": "s", "kind": "text", "source": "hub", "hub": "some/texts"},
        **{"revision": COMMIT, "path": "data/train-*.jsonl", "column": "words"},
    }
    (tmp_path / "mine" / "corpora").mkdir(parents=True)
    (tmp_path / "mine" / "corpora" / "texts.yaml").write_text(yaml.safe_dump(card))
    return tmp_path / "mine"


def test_a_corpus_that_was_fetched_is_read_by_name_without_network(
    bench: Bench, texts: Path, hub: Hub, client: Callable[[str], None]
) -> None:
    fetch = ["fetch", "--cards", str(texts), "--corpus", "texts"]
    code, out, _ = bench(*fetch, "--sizes")
    assert (code, hub.fetched("train-0.jsonl")) == (0, 0)
    assert out.startswith("corpus texts: 2 files, ")
    assert bench(*fetch)[1].endswith(", fetched\n")
    assert bench(*fetch)[1].endswith(", is here\n")
    assert (hub.fetched("train-0.jsonl"), hub.fetched("test-0.jsonl")) == (1, 0)
    client("http://127.0.0.1:1")
    registry = load_registry([texts])
    cards = [registry.card("tiny-gpt2")]
    asked = Request(cards, load_protocol("quick"), corpus=choose_corpus(registry, "texts"))
    (block,) = make_plan(asked, registry)
    assert block.error is None
    assert block.corpus is not None
    assert {spec.corpus for spec in block.specs} == {"texts"}
    assert len(set(block.corpus.examples(0))) == 800
    code, _, err = bench("plan", "--cards", str(texts), "--corpus", "texts", "--model", "tiny-esm2")
    assert code == 2
    assert (
        "--corpus: texts is text, and model 'tiny-esm2' reads protein. There are: antibodies, omg"
        in err
    )


def test_a_corpus_that_is_not_there_is_said_once_before_anything_runs(
    bench: Bench, texts: Path, tiny: list[str], client: Callable[[str], None]
) -> None:
    client("http://127.0.0.1:1")
    run = ["run", "--cards", str(texts), "--corpus", "texts", *tiny, "--model", "tiny-gpt2"]
    code, out, err = bench(*run)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "corpus 'texts': the hub cannot be reached for some/texts" in err
    assert "--corpus NAME" in err
    assert not Path("runs/records").exists()


def test_corpora_that_are_not_there_are_all_named(
    bench: Bench, tiny: list[str], client: Callable[[str], None]
) -> None:
    client("http://127.0.0.1:1")
    code, _, err = bench("run", "gpt2", "pythia-70m", "dinov2-base", "--layer", "0", *tiny)
    assert (code, err.count("\n")) == (2, 1)
    assert "corpus 'imagenet-1k': the hub cannot be reached" in err
    assert err.endswith(
        "The same for gpt2 (corpus openwebtext); pythia-70m (corpus pile-uncopyrighted).\n"
    )


def test_a_name_that_is_neither_corpus_nor_path_is_refused(bench: Bench) -> None:
    code, _, err = bench("run", "--model", "tiny-gpt2", "--corpus", "python-topic")
    assert code == 2
    assert err == (
        "bench: --corpus: nothing at python-topic, and no corpus has that name. "
        "Did you mean python-topics?\n"
    )


# ----------------------------------------------------------------------------------------- URLs


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server on the loopback interface, and the folder that it serves."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    folder = tmp_path / "site"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    server.server_close()
    thread.join()


def _proteins(url: str, digest: str | None) -> CorpusCard:
    content = {"id": "p", "summary": "s", "kind": "protein", "source": "url", "url": url}
    return CorpusCard.model_validate(content | {"sha256": digest})


def test_a_file_at_a_url_is_downloaded_once_and_checked(
    site: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAMMABENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    address, folder = site
    content = b">a\nMKVLA\n>b\nMLLAT\n"
    (folder / "p.fasta").write_bytes(content)
    card = _proteins(f"{address}/p.fasta", hashlib.sha256(content).hexdigest())
    with pytest.raises(CorpusUnavailable, match="`bench fetch --corpus p` downloads it"):
        open_corpus(card)
    download(card)
    (folder / "p.fasta").unlink()
    assert download(card).read_bytes() == content
    assert sorted(open_corpus(card).examples(0)) == ["MKVLA", "MLLAT"]
    (folder / "q.fasta").write_bytes(content)
    with pytest.raises(BadCorpus, match="has not the digest that the card says"):
        download(_proteins(f"{address}/q.fasta", "0" * 64))
    with pytest.raises(CorpusUnavailable, match="cannot be downloaded"):
        download(_proteins(f"{address}/absent.fasta", None))


def test_the_regions_of_the_human_genome_lie_within_its_autosomes_and_apart() -> None:
    from zoo.fasta import _read_bed

    card = REGISTRY.corpus("human-genome")
    regions = _read_bed(card.beside(str(card.regions)))  # refuses regions that overlap
    assert len(regions) == card.examples
    assert {region.name for region in regions} == {f"chr{n}" for n in range(1, 23)}
    assert sum(region.stop - region.start for region in regions) == card.tokens


# -------------------------------------------------------------------------------------- contigs


def test_a_contig_joins_proteins_and_bases_in_their_order() -> None:
    row = {
        "CDS_seqs": ["MALT*", "MLGI"],
        "CDS_position_ids": [2, 4],
        "CDS_orientations": [True, False],
        "IGS_seqs": ["<sep>", "AATTT", "GGA"],
        "IGS_position_ids": [0, 1, 3],
    }
    assert contig(row, "here") == "<+>aattt<+>MALT*<+>gga<->MLGI"
    with pytest.raises(BadCorpus, match="here: the lists of a contig are not of one length"):
        contig(row | {"IGS_position_ids": [0]}, "here")


@pytest.mark.parametrize("memory", [1 << 20, -1], ids=["in memory", "streamed"])
def test_a_table_of_contigs_is_read_as_such(
    memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoo.streams.storage.IN_MEMORY_BYTES", memory)
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    from zoo.corpora import file_corpus

    columns = {
        "CDS_seqs": [["MALT"], ["MKV"]],
        "CDS_position_ids": [[1], [0]],
        "CDS_orientations": [[True], [False]],
        "IGS_seqs": [["AAT"], []],
        "IGS_position_ids": [[0], []],
    }
    types = [pa.list_(t) for t in (pa.string(), pa.int32(), pa.bool_(), pa.string(), pa.int32())]
    schema = pa.schema(list(zip(columns, types, strict=True)))
    pq.write_table(pa.table(columns, schema=schema), tmp_path / "omg.parquet")
    found = file_corpus(tmp_path / "omg.parquet", "protein").examples(0)
    assert sorted(found) == ["<+>aat<+>MALT", "<->MKV"]
