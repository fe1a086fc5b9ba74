"""Hub checkpoints over the real client, from a hub on the loopback interface."""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from adapters import Adapter, open_adapter
from tests.adapters.tiny import FAMILIES, SENTENCES, make_card
from tests.hub import COMMIT, PROXIES, Hub, Repository, forget_connections, serve
from zoo.cards import Card, CorpusCard
from zoo.corpora import open_corpus
from zoo.errors import BadCorpus, BadWeights, ModelUnavailable


def _card(**checkpoint: Any) -> Card:
    card = FAMILIES["gpt2"].card
    place = {"source": "hub", "hub": "some/tiny", "revision": COMMIT} | checkpoint
    return make_card(tokens=card.tokens, checkpoint=place)


def _failure(card: Card) -> str:
    with pytest.raises(ModelUnavailable) as failure:
        _ = open_adapter(card).model
    return str(failure.value)


def test_hub_equals_a_local_folder(
    hub: Hub, checkpoint: Callable[[str], Path], opened: Callable[[str], Adapter]
) -> None:
    hub.repositories["some/tiny"] = Repository(checkpoint("gpt2"))
    adapter = open_adapter(_card())
    found = next(adapter.activations([0, 2], SENTENCES, batch_size=3))
    expected = next(opened("gpt2").activations([0, 2], SENTENCES, batch_size=3))
    for layer in (0, 2):
        assert torch.equal(found.by_layer[layer], expected.by_layer[layer])
    assert adapter.revision == COMMIT


def test_no_bars_of_the_client_where_it_was_imported_before() -> None:
    code = (
        "import huggingface_hub.constants\nfrom zoo import hub\nhub.client()\n"
        "from huggingface_hub.utils import are_progress_bars_disabled as off\nassert off()\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "HF_HUB_DISABLE_PROGRESS_BARS"}
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, env=environment)


def test_revision_that_is_not_pinned_is_resolved(
    hub: Hub, checkpoint: Callable[[str], Path]
) -> None:
    hub.repositories["some/tiny"] = Repository(checkpoint("gpt2"))
    assert open_adapter(_card(revision=None)).revision == COMMIT


def test_safetensors_are_preferred_and_nothing_else_is_fetched(
    hub: Hub, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    import shutil

    folder = tmp_path / "repository"
    shutil.copytree(checkpoint("gpt2"), folder)
    (folder / "pytorch_model.bin").write_bytes(b"large")
    (folder / "tf_model.h5").write_bytes(b"large")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "config.json").write_text("{}")
    hub.repositories["some/tiny"] = Repository(folder)
    names = {path.name for path in open_adapter(_card()).folder.iterdir()}
    assert "model.safetensors" in names
    assert not names & {"pytorch_model.bin", "tf_model.h5", "onnx"}


def test_bin_is_fetched_where_there_is_nothing_else(
    hub: Hub, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    import shutil

    from safetensors.torch import load_file

    folder = tmp_path / "repository"
    shutil.copytree(checkpoint("gpt2"), folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    hub.repositories["some/tiny"] = Repository(folder)
    assert len(open_adapter(_card()).blocks) == 3


def test_subfolder(hub: Hub, checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    import shutil

    shutil.copytree(checkpoint("gpt2"), tmp_path / "repository" / "inner")
    (tmp_path / "repository" / "model.safetensors").write_bytes(b"of another part")
    hub.repositories["some/tiny"] = Repository(tmp_path / "repository")
    assert len(open_adapter(_card(subfolder="inner")).blocks) == 3
    assert not any(
        path == "/some/tiny/resolve/main/model.safetensors" for _, path, _ in hub.requests
    )


def test_no_such_repository(hub: Hub) -> None:
    assert _failure(_card()) == (
        "model 'tiny': no repository 'some/tiny' on the hub, or it is private. Check "
        "checkpoint.hub, or log in with `huggingface-cli login` (or `hf auth login`)."
    )


def test_no_such_revision(hub: Hub, checkpoint: Callable[[str], Path]) -> None:
    hub.repositories["some/tiny"] = Repository(checkpoint("gpt2"))
    assert _failure(_card(revision="f" * 40)) == (
        f"model 'tiny': some/tiny has no revision {'f' * 40}. "
        "Check checkpoint.revision: it may have been removed."
    )


@pytest.mark.parametrize("page", [None, "https://example.org/licence"])
def test_gated_repository(page: str | None, hub: Hub, checkpoint: Callable[[str], Path]) -> None:
    hub.repositories["some/tiny"] = Repository(checkpoint("gpt2"), gated=True)
    assert _failure(_card(gated=True, licence_page=page)) == (
        "model 'tiny' is gated: the hub gives some/tiny only to those who accepted its licence. "
        f"Accept it at {page or 'https://huggingface.co/some/tiny'}, then log in with "
        "`huggingface-cli login` (or `hf auth login`)."
    )


def test_gated_repository_with_a_token(
    hub: Hub, checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_made_up")
    hub.repositories["some/tiny"] = Repository(checkpoint("gpt2"), gated=True)
    assert len(open_adapter(_card(gated=True)).blocks) == 3


def test_outage(hub: Hub) -> None:
    hub.outage = 503
    assert _failure(_card()) == (
        "model 'tiny': the hub answered 503 for some/tiny. "
        "Try again later, or give a local copy with --weights DIR."
    )


def test_download_that_breaks_off_once_resumes(hub: Hub, checkpoint: Callable[[str], Path]) -> None:
    repository = Repository(checkpoint("gpt2"), breaks={"model.safetensors": 1})
    hub.repositories["some/tiny"] = repository
    try:
        folder = open_adapter(_card()).folder
    except ModelUnavailable:  # some versions of the client retry by themselves, some do not
        folder = open_adapter(_card()).folder
    weights = folder / "model.safetensors"
    assert weights.read_bytes() == (repository.folder / "model.safetensors").read_bytes()
    ranges = [wanted for method, path, wanted in hub.requests if path.endswith("safetensors")]
    assert any(wanted and wanted.startswith("bytes=") for wanted in ranges)


def test_download_that_always_breaks_off(hub: Hub, checkpoint: Callable[[str], Path]) -> None:
    hub.repositories["some/tiny"] = Repository(
        checkpoint("gpt2"), breaks={"model.safetensors": 1000}
    )
    assert _failure(_card()) == (
        "model 'tiny': the download of some/tiny broke off. Run again: it resumes."
    )


UNREACHABLE = (
    "model 'tiny': the hub cannot be reached for some/tiny, which is not in the local cache. "
    "Check the network (and HF_ENDPOINT, HTTPS_PROXY), or give a local copy with --weights DIR."
)


def _closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_no_network(client: Callable[[str], None]) -> None:
    client(f"http://127.0.0.1:{_closed_port()}")
    assert _failure(_card()) == UNREACHABLE


def test_no_network_but_in_the_cache(
    hub: Hub, client: Callable[[str], None], checkpoint: Callable[[str], Path]
) -> None:
    hub.repositories["some/tiny"] = Repository(checkpoint("gpt2"))
    first = open_adapter(_card()).folder
    client(f"http://127.0.0.1:{_closed_port()}")
    adapter = open_adapter(_card())
    assert adapter.folder == first
    assert len(adapter.blocks) == 3


def test_hub_switched_off(client: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    client("http://127.0.0.1:1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    forget_connections()
    assert _failure(_card()).startswith(
        "model 'tiny': some/tiny is not in the local cache, and the hub is switched off. Unset "
    )


def test_repository_without_weights(
    hub: Hub, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(checkpoint("gpt2"), tmp_path / "repository")
    (tmp_path / "repository" / "model.safetensors").unlink()
    hub.repositories["some/tiny"] = Repository(tmp_path / "repository")
    with pytest.raises(BadWeights, match=r"no weights \(\*\.safetensors or \*\.bin\)"):
        _ = open_adapter(_card()).model


def test_cache_that_cannot_be_written(
    hub: Hub, checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from adapters import checkpoints

    def full(*arguments: Any, **options: Any) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.snapshot_download", full)
    with pytest.raises(ModelUnavailable) as failure:
        checkpoints.local_folder(_card())
    assert str(failure.value) == (
        "model 'tiny': the download of some/tiny cannot be written ([Errno 28] No space left on "
        "device). Make room, or set HF_HOME to a folder on another disk."
    )


def test_id_that_is_none() -> None:
    with pytest.raises(ValidationError, match=r"checkpoint\.hub"):
        _card(hub="a/b/c")


def test_endpoint_of_the_environment_is_used(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    """In a process of its own, without anything patched."""
    code = (
        "from tests.adapters.test_hub import _card\n"
        "from adapters import open_adapter\n"
        "print(len(open_adapter(_card()).blocks))"
    )
    drop = (*PROXIES, "HF_HUB_OFFLINE", "HF_HOME")
    kept = {name: value for name, value in os.environ.items() if name not in drop}
    with serve() as running:
        running.repositories["some/tiny"] = Repository(checkpoint("gpt2"))
        settings = {"HF_ENDPOINT": running.endpoint, "HF_HOME": str(tmp_path / "home")}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=kept | settings,
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.stdout, done.stderr, done.returncode) == ("3\n", "", 0)
    assert running.fetched("model.safetensors") == 1


# ------------------------------------------------------------------------------------- datasets


def _dataset(hub: Hub, folder: Path, **changes: Any) -> CorpusCard:
    """A dataset on the hub, two files of which are asked for, and the corpus card that asks."""
    (folder / "data").mkdir(parents=True)
    for name in ("train-0", "train-1", "test-0"):
        lines = [json.dumps({"text": f"{name} passage {i}", "id": i}) for i in range(3)]
        (folder / "data" / f"{name}.jsonl").write_text("\n".join(lines))
    hub.repositories["some/texts"] = Repository(folder, kind="datasets")
    content = {
        **{"id": "texts", "summary": "s", "kind": "text", "source": "hub", "hub": "some/texts"},
        **{"revision": COMMIT, "path": "data/train-*.jsonl", "column": "text"},
    }
    return CorpusCard.model_validate(content | changes)


def test_a_dataset_of_the_hub_gives_the_column_of_the_files_asked_for(
    hub: Hub, tmp_path: Path
) -> None:
    card = _dataset(hub, tmp_path / "repository")
    corpus = open_corpus(card)
    found = list(itertools.islice(corpus.examples(seed=0), 6))
    assert sorted(found) == [f"train-{n} passage {i}" for n in range(2) for i in range(3)]
    assert hub.fetched("train-1.jsonl") == 1
    assert not hub.fetched("test-0.jsonl")
    again = open_corpus(card)
    assert list(itertools.islice(again.examples(seed=0), 6)) == found
    assert again.fingerprint() == corpus.fingerprint()
    assert hub.fetched("train-1.jsonl") == 1


def test_a_dataset_is_read_at_its_pinned_revision_only(hub: Hub, tmp_path: Path) -> None:
    other = "f" * 40
    card = _dataset(hub, tmp_path / "repository", revision=other)
    with pytest.raises(ModelUnavailable, match=f"some/texts has no revision {other}"):
        open_corpus(card)
    assert not hub.fetched("train-0.jsonl")


def test_a_model_of_the_same_name_is_no_dataset(hub: Hub, tmp_path: Path) -> None:
    card = _dataset(hub, tmp_path / "repository")
    hub.repositories["some/texts"].kind = "models"
    with pytest.raises(ModelUnavailable, match="no repository 'some/texts' on the hub"):
        open_corpus(card)


def test_a_dataset_without_a_file_of_that_name_says_so(hub: Hub, tmp_path: Path) -> None:
    card = _dataset(hub, tmp_path / "repository", path="data/validation-*.jsonl")
    with pytest.raises(BadCorpus) as failure:
        open_corpus(card)
    assert str(failure.value) == (
        f"corpus 'texts': some/texts has no file data/validation-*.jsonl at {COMMIT}. "
        "Correct its path."
    )
