"""Every command on every input of a kept set: one line for a fault, the right code, and soon.

One input in eight by default; `pytest -m slow` takes all, in some minutes.
"""

from __future__ import annotations

import functools
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import zoo.registry
from bench.cli.main import run_cli
from tests.conftest import TINY
from tests.hostile import arrays, corpora, folders, words
from tests.hostile.watch import Watch
from zoo.cards import read_model

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and makes FIFOs")

CHECKPOINTS = Path(__file__).parents[3] / "zoo" / "checkpoints"
SMALL = [word for setting in TINY for word in ("--set", setting)]
INIT_STATS = "model,domain,layer,gamma,gamma_raw,effective_rank"


_read_own = functools.cache(read_model)


def _read_once(model: Any, path: Path) -> Any:
    """`read_model`, the package's own cards once: every command reads them all."""
    return (_read_own if path.is_relative_to(CHECKPOINTS.parent) else read_model)(model, path)


@pytest.fixture(scope="module")
def _warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Everything is imported before commands are bounded: an import broken off stays broken."""
    output = str(tmp_path_factory.mktemp("warm"))
    for model in ("tiny-gpt2", "tiny-dinov2"):
        run_cli(["run", "--model", model, "--layer", "0", *SMALL, "--output", output])
    run_cli(["check", "tiny-gpt2"])
    run_cli(["card", f"hf-causal:{CHECKPOINTS / 'tiny-gpt2'}"])
    run_cli(["export", "--output", output, "--format", "parquet"])


@pytest.fixture(params=[pytest.param(1, marks=pytest.mark.slow, id="all"), 8])
def watch(
    _warm: None,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Watch]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("bench.runner.engines.auto_workers", lambda blocks, device: 1)
    monkeypatch.setattr("leaderboard.figures.store.available", lambda: False)  # a second each
    monkeypatch.setattr(zoo.registry, "read_model", _read_once)
    found = Watch(capsys, request.param)
    yield found
    assert found.codes
    if found.stride == 1:  # not all are refused for one wrong reason
        assert len(found.codes) > 1
    assert not found.faults, "\n".join(found.faults)


@pytest.mark.parametrize("suffix", arrays.KINDS)
def test_arrays_in_a_folder(suffix: str, watch: Watch, tmp_path: Path) -> None:
    for number, (wrong, path) in enumerate(
        watch.some(arrays.write_nasty_arrays(tmp_path / "all", suffix))
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        path.rename(folder / f"layer0{suffix}")
        code = watch.run(wrong, "manifest", folder, "--domain", "language")
        if code == 0:
            model = f"dump:{folder}"
            watch.run(wrong, "plan", "--model", model, *SMALL, lines=2)


TEXT = ("tiny-gpt2", corpora.texts, ".txt")
PROTEIN = ("tiny-esm2", lambda: corpora.sequences(corpora.RESIDUES), ".fa")
DNA = ("tiny-enformer", lambda: corpora.sequences(corpora.BASES), ".fa")


@pytest.mark.parametrize(
    ("model", "files", "suffix"), [TEXT, PROTEIN, DNA], ids=["text", "protein", "dna"]
)
def test_corpora(
    model: str, files: Callable[[], corpora.Files], suffix: str, watch: Watch, tmp_path: Path
) -> None:
    every = corpora.write_files(tmp_path / "corpora", files(), suffix)
    for number, (wrong, path) in enumerate(watch.some(every)):
        run_corpus(watch, wrong, number, model, path)


def run_corpus(watch: Watch, wrong: str, number: int, model: str, path: Path) -> None:
    """Plans with every corpus; loads the model, which takes its time, for some of them."""
    options = ["--model", model, "--corpus", path, "--layer", 0, "--arm", "raw", *SMALL]
    watch.run(wrong, "plan", *options, lines=2)
    if number % 12 == 0:
        watch.run(wrong, "run", *options, "--output", "runs", codes=(0, 1, 2), lines=4)
    elif number % 3 == 0:
        watch.run(wrong, "check", model, "--corpus", path, codes=(0, 1, 2))


def test_pictures(watch: Watch, tmp_path: Path) -> None:
    for number, (wrong, path) in enumerate(
        watch.some(corpora.write_pictures(tmp_path / "pictures"))
    ):
        run_corpus(watch, wrong, number, "tiny-dinov2", path)


def test_regions(watch: Watch, tmp_path: Path) -> None:
    (tmp_path / "genome.fa").write_text(f">chr1\n{corpora.BASES}\n")
    for wrong, path in watch.some(
        corpora.write_files(tmp_path / "beds", corpora.regions(), ".bed")
    ):
        options = ["--corpus", "genome.fa", "--regions", path]
        watch.run(wrong, "plan", "--model", "tiny-enformer", *options, lines=2)
        watch.run(wrong, "check", "tiny-enformer", *options, codes=(0, 1, 2))


def test_names(watch: Watch) -> None:
    for name in watch.some(words.NAMES):
        watch.run("name", "plan", "--model", name)
        watch.run("name", "run", "--model", name, codes=(0, 1, 2), lines=3)
        watch.run("name", "check", name)
        watch.run("name", "card", name)
        watch.run("name", "fetch", "--model", name, "--sizes", codes=(0, 1, 2))
        watch.run("name", "diagnose", name)
        watch.run("name", "convert", name, "out", "--to", "saelens", codes=(1, 2))
        watch.run("name", "validate", name)
        watch.run("name", "manifest", name)
        for command in ("status", "report", "export"):
            watch.run("name", command, "--output", name)
        watch.run("name", "compare", name, name)
        watch.run("name", "compare-paper", "--init-stats", name, "--trained", name)


def test_settings_and_options(watch: Watch) -> None:
    for setting in watch.some(words.SETTINGS):
        watch.run("setting", "plan", "--model", "tiny-gpt2", "--layer", 0, "--set", setting)
    for option, value in watch.some(words.OPTIONS):
        watch.run("option", "plan", "--model", "tiny-gpt2", option, value)


def test_yaml(watch: Watch, tmp_path: Path) -> None:
    for number, (wrong, data) in enumerate(watch.some(words.yamls())):
        for below in ("", "corpora", "suites"):
            folder = tmp_path / f"{number}" / below
            folder.mkdir(parents=True, exist_ok=True)
        kind = wrong.split(",")[0]
        below = {"corpus": "corpora", "suite": "suites"}.get(kind, "")
        path = tmp_path / str(number) / below / "x.yaml"
        path.write_bytes(data)
        code = watch.run(wrong, "validate", path)
        if kind == "protocol":
            watch.run(wrong, "plan", "--model", "tiny-gpt2", "--layer", 0, "--protocol", path)
        elif code == 0:
            cards = ["--cards", tmp_path / str(number)]
            watch.run(wrong, "list", *cards, lines=2)
            watch.run(wrong, "plan", *cards, "--model", "mine", codes=(0, 2))
            watch.run(wrong, "fetch", *cards, "--model", "mine", codes=(0, 1, 2))


def test_checkpoints(watch: Watch, tmp_path: Path) -> None:
    good = CHECKPOINTS / "tiny-gpt2"
    names = [path.name for path in good.iterdir() if path.name != "training.json"]
    spoiled = folders.folders_like(good, tmp_path / "spoiled", names)
    keys = [*json.loads((good / "config.json").read_text())]
    saying = folders.folders_saying(good, tmp_path / "saying", "config.json", keys)
    for number, (wrong, folder) in enumerate(watch.some(itertools.chain(spoiled, saying))):
        watch.run(wrong, "card", f"hf-causal:{folder}", codes=(0, 1, 2))
        if number % 25 == 0:
            options = ["--weights", folder, "--layer", 0, "--arm", "raw", *SMALL]
            watch.run(wrong, "run", "--model", "tiny-gpt2", *options, codes=(0, 1, 2), lines=3)


def test_outputs(watch: Watch, tmp_path: Path) -> None:
    for wrong, folder in watch.some(folders.outputs(tmp_path / "outputs")):
        for command in ("status", "report", "export"):
            watch.run(wrong, command, "--output", folder, codes=(0, 1, 2))
        watch.run(wrong, "compare", folder, folder, lines=2)
        watch.run(wrong, "compare-paper", "--output", folder, "--init-stats", "x.csv")
        watch.run(wrong, "validate", folder)
        watch.run(wrong, "plan", "--model", "tiny-gpt2", "--output", folder)


def test_published_tables(watch: Watch, tmp_path: Path) -> None:
    from tests.records import make_record, write_records

    write_records(tmp_path / "runs", [make_record()])
    for wrong, path in watch.some(
        corpora.write_files(tmp_path / "t", folders.csvs(INIT_STATS), ".csv")
    ):
        watch.run(wrong, "compare-paper", "--init-stats", path)
