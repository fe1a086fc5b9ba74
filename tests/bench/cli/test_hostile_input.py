"""Whatever the input: one line for one fault, code 2, and soon."""

from __future__ import annotations

import gzip
import os
import socket
from pathlib import Path

import pytest

from bench.cli.main import run_cli
from bench.runner.engines.ray import check_address
from zoo.corpora import file_corpus
from zoo.errors import BadCorpus, UsageError
from zoo.files import check_regular, user_path


def _one_line(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run_cli(list(arguments)) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert err.startswith("bench: ")
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize(
    "target",
    [
        "../../etc",
        "a b",
        "a\nb",
        "a\u202eb",
        "~nouser-x/y",
        "a//b",
        "a" * 5000,
        "a@b c",
        "a@../b",
        "a/b/c",
        "",
    ],
)
@pytest.mark.parametrize("kind", ["hf-causal", "hf-masked", "timm"])
def test_what_is_no_id_of_the_hub_is_said_so_without_asking_it(
    kind: str,
    target: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # `../../etc` is a folder, seen from some checkouts
    _one_line(capsys, "plan", "--model", f"{kind}:{target}")


@pytest.mark.parametrize("address", ["hub:", "hub:a", "hub:../..", "hub:a b/c", "~nouser-x/y"])
def test_what_is_no_address_of_an_sae_is_said_so(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _one_line(capsys, "convert", address, str(tmp_path / "out"), "--to", "saelens")


@pytest.mark.parametrize("address", ["nonsense", "ray://x", "host:port", "host:99999", ":1", "a:0"])
def test_nonsense_is_no_address_of_a_cluster(address: str) -> None:
    with pytest.raises(UsageError, match="which is no address"):
        check_address(address)


def test_an_address_where_nobody_listens_is_refused_soon() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(UsageError, match="within 10 seconds"):
        check_address(address)


@pytest.mark.parametrize(
    "name", ["x.npy", "x.npz", "x.safetensors", "x.pt", "x.parquet", "x.yaml", "x.json"]
)
@pytest.mark.parametrize("kind", ["fifo", "device", "socket"])
def test_a_file_that_is_no_file_is_not_opened(
    name: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _no_file(tmp_path / name, kind)
    command = "validate" if path.suffix in (".yaml", ".json") else "diagnose"
    _one_line(capsys, command, str(path))


@pytest.mark.parametrize("name", ["x.txt", "x.jsonl", "x.parquet", "x.txt.gz"])
@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_nor_is_a_corpus_of_that_kind(name: str, kind: str, tmp_path: Path) -> None:
    corpus = file_corpus(_no_file(tmp_path / name, kind), "text")
    with pytest.raises(BadCorpus, match="regular file"):
        _ = corpus.items


def _no_file(path: Path, kind: str) -> Path:
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        os.mknod(path, 0o140600)
    return path


def test_a_regular_file_and_a_link_to_one_pass(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    check_regular(tmp_path / "a")
    check_regular(tmp_path / "b")
    with pytest.raises(OSError, match="is a folder"):
        check_regular(tmp_path)


def test_a_gzip_bomb_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    path = tmp_path / "x.txt.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        for _ in range(80):
            file.write(b"a" * (1 << 20))
    with pytest.raises(BadCorpus, match="inflates more than"):
        _ = file_corpus(path, "text").items


def test_ordinary_gzipped_text_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.txt.gz"
    words = "\n\n".join(f"passage {i} {i * i}" for i in range(20_000))
    path.write_bytes(gzip.compress(words.encode()))
    assert file_corpus(path, "text").items == words.split("\n\n")


@pytest.mark.parametrize("text", ["~nouser-x/y", "a\nb", "a\0b", "x" * 5000])
def test_what_no_file_system_takes_is_no_path(text: str) -> None:
    with pytest.raises(UsageError):
        user_path(text)


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--nope"],
        ["run", "--limit", "x"],
        ["run", "--engine", "nope"],
        ["diagnose"],
        ["diagnose", "x.npy", "-n", str(10**13)],
        ["diagnose", "x.npy", "-n", "0"],
        ["diagnose", "x" * 5000 + ".npy"],
        ["validate", "x" * 5000],
        ["--nope"],
    ],
    ids=lambda arguments: " ".join(arguments)[:40],
)
def test_a_wrong_command_line_is_one_line(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    _one_line(capsys, *arguments)


def test_a_device_without_numbers_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import numpy as np

    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(64, 8)).astype("f4"))
    file = str(tmp_path / "x.npy")
    err = _one_line(capsys, "diagnose", file, "-n", "16", "-k", "2", "--device", "meta")
    assert "holds no numbers" in err
